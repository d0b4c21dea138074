"""What every benchmark gives: tables, and figures beside the bounds they should keep."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure: a share of the full number of rows, rounds of paired runs, and what is asked for by name."""

    share: float = 1.0
    repeats: int = 3
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a workload or system is asked for; without names, all are."""
        return not self.only or name in self.only


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under a title."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and its bound."""

    claim: str
    measured: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark's outcome; notes: what was left out, and why."""

    name: str
    question: str
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()


def section_of(document: dict[str, Any]) -> Section:
    """Return a section that was stored as JSON."""
    tables = [Table(t["title"], tuple(t["head"]), tuple(map(tuple, t["rows"]))) for t in document["tables"]]
    targets = [Target(**t) for t in document["targets"]]
    notes = tuple(document["notes"])
    return Section(document["name"], document["question"], tuple(tables), tuple(targets), notes)


def markdown(section: Section) -> str:
    """Return a section as Markdown."""
    lines = [f"## {section.name}", "", section.question, ""]
    for table in section.tables:
        lines += [f"**{table.title}**", ""] if table.title else []
        lines += [
            _row(table.head),
            _row(["---"] + ["---:"] * (len(table.head) - 1)),
            *map(_row, table.rows),
            "",
        ]
    lines += [f"- {note}" for note in section.notes] + ([""] if section.notes else [])
    if section.targets:
        lines += [*targets_table([section]), ""]
    return "\n".join(lines)


def targets_table(sections: Sequence[Section]) -> list[str]:
    """Return the targets of some sections as the lines of a table."""
    rows = [
        (
            t.claim,
            _text(t.measured),
            f"at {'least' if t.at_least else 'most'} {_text(t.bound)}",
            "yes" if t.met else "no",
        )
        for section in sections
        for t in section.targets
    ]
    return ["| | measured | bound | kept |", "| --- | ---: | ---: | --- |", *map(_row, rows)]


def _row(cells: Sequence[Cell]) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def main(measured: Callable[[Size], Section], argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--json` writes the section to a file too."""
    parser = argparse.ArgumentParser(description=measured.__doc__)
    parser.add_argument("only", nargs="*", help="workloads or systems; left out: all")
    parser.add_argument("--share", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", type=Path)
    asked = parser.parse_args(argv)
    section = measured(Size(asked.share, asked.repeats, tuple(asked.only)))
    print(markdown(section))
    if asked.json:
        asked.json.write_text(json.dumps(asdict(section), indent=1), encoding="utf-8")
