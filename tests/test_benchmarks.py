"""Benchmarks run once on a tiny size, so that they cannot rot."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS, page

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "lloyd": ["W2", "ours", "scikit-learn", "--share", "0.002"],
    "cluster": ["ours", "--share", "0.01"],
    "passes": ["--share", "0.002"],
    "blocks": ["--share", "0.1"],
    "fan_in": ["--share", "0.02"],
    "seeding": ["scikit-learn", "--share", "0.0005"],
    "job": ["--share", "0.002"],
    "start": ["--share", "0.01"],
    "memory": ["--share", "0.01"],
    "disk": ["--share", "0.01"],
    "scaling": ["--share", "0.002"],
    "quality": ["grid", "irregular", "--share", "0.05"],
}


def measured(part: str, folder: Path) -> dict[str, Any]:
    """Run a part with one round and return its section."""
    out = folder / "section.json"
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{part}",
        *OPTIONS[part],
        "--repeats",
        "1",
        "--json",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    section: dict[str, Any] = json.loads(out.read_text())
    return section


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs(part: str, tmp_path: Path) -> None:
    """Every part gives figures, and a page can be made of them; cells and bounds are positive numbers or text."""
    section = measured(part, tmp_path)
    assert section["tables"][0]["rows"]
    assert section["targets"]
    done = section | {"seconds": 1.0, "at": "today"}
    text = page({"machine": [["processor", "some"]], "parts": {part: done}})
    for target in section["targets"]:
        assert target["claim"] in text


def test_the_systems_do_equal_work(tmp_path: Path) -> None:
    """Ours and scikit-learn make the same number of passes and reach the same inertia, to float32."""
    rows = {row[0]: row for row in measured("lloyd", tmp_path)["tables"][0]["rows"]}
    assert rows["ours"][3] == rows["scikit-learn"][3]
    assert abs(float(rows["ours"][4]) / float(rows["scikit-learn"][4]) - 1) < 1e-4
