"""All benchmarks, each in a process of its own: `python -m benchmarks [PART ...] [--share S] [--repeats N]`.

Writes a JSON file and a page; parts that are not run keep the figures they have there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.report import markdown, section_of, targets_table

ROOT = Path(__file__).parents[1]
PARTS = (
    "lloyd",
    "cluster",
    "passes",
    "blocks",
    "fan_in",
    "seeding",
    "job",
    "start",
    "memory",
    "disk",
    "scaling",
    "quality",
)


def measured(part: str, options: list[str]) -> dict[str, Any]:
    """Run one part and return its section as JSON, with when and how long it ran."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "section.json"
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{part}", *options, "--json", str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
        section: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return section | {"at": at, "seconds": round(time.monotonic() - began, 1)}


def page(document: dict[str, Any]) -> str:
    """Return the page of all sections."""
    parts: dict[str, dict[str, Any]] = document["parts"]
    sections = {name: section_of(part) for name, part in parts.items()}
    lines = ["# Benchmarks", "", "Made by `make bench`; compare only what one run measured in turn.", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in document["machine"]), ""]
    lines += ["## Bounds", "", *targets_table(list(sections.values())), ""]
    for name, section in sections.items():
        lines += [
            markdown(section),
            f"`python -m benchmarks.{name}`, {parts[name]['seconds']} s, {parts[name]['at']}",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Run the parts and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), metavar="PART")
    parser.add_argument("--share", default="1.0")
    parser.add_argument("--repeats", default="3")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    asked = parser.parse_args()
    json_file, page_file = asked.out.with_suffix(".json"), asked.out.with_suffix(".md")
    found = json.loads(json_file.read_text(encoding="utf-8"))["parts"] if json_file.exists() else {}
    failed = []
    for part in asked.parts:
        try:
            found[part] = measured(part, ["--share", asked.share, "--repeats", asked.repeats])
        except subprocess.CalledProcessError as error:
            failed.append(f"{part}: exit code {error.returncode}")
            continue
        document = {"machine": described(), "parts": {name: found[name] for name in PARTS if name in found}}
        json_file.write_text(json.dumps(document, indent=1), encoding="utf-8")
        page_file.write_text(page(document), encoding="utf-8")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
