"""Jobs that must be refused: the command line run in this process, and the bytes of an output before and after."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.cli import exit_code_of

JOB = """
[source]
path = "data"
[kmeans]
n_clusters = 3
n_init = 2
[output]
path = "out"
"""


@dataclass(frozen=True, slots=True)
class Bad:
    """What makes a job bad, and words its message must hold: place, rule, value found, fix.

    make: writes into a folder that holds good data in `data/a.parquet`, and may return keys to set.
    """

    name: str
    make: Callable[[Path], Mapping[str, Any] | None]
    says: tuple[str, ...]
    sets: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def good_columns(n_rows: int = 600) -> dict[str, Any]:
    """Return two features around three points, and an id."""
    rng = np.random.default_rng(1)
    around = 10.0 * rng.integers(0, 3, size=n_rows)
    return {"x": around + rng.normal(size=n_rows), "y": rng.normal(size=n_rows), "id": np.arange(n_rows)}


def write(folder: Path, columns: Mapping[str, Any], name: str = "data/a.parquet", **options: Any) -> Path:
    """Write a Parquet file of two row groups, with page checksums."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(columns))
    settings = {"row_group_size": max(1, -(-table.num_rows // 2)), "write_page_checksum": True, **options}
    pq.write_table(table, path, **settings)
    return path


def write_job(folder: Path) -> Path:
    """Write good data and the job on them, and return the job file."""
    write(folder, good_columns())
    job = folder / "job.toml"
    job.write_text(JOB)
    return job


def arguments(job: Path, sets: Mapping[str, Any]) -> list[str]:
    """Return the command line that runs a job without Prefect."""
    pairs = [f"{key}={json.dumps(value)}" for key, value in {"source.ids": ["id"], **sets}.items()]
    return ["run", str(job), "--no-prefect", "--quiet", *(word for pair in pairs for word in ("--set", pair))]


def exit_code(argv: list[str]) -> int:
    """Return the exit code of a command line run in this process, its logging undone."""
    with logging_restored():
        return exit_code_of(argv)


@contextmanager
def logging_restored() -> Iterator[None]:
    """Give the test runner its logging back, which a command line replaces."""
    root, raises = logging.getLogger(), logging.raiseExceptions
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = raises


def contents(folder: Path) -> dict[str, bytes | None] | None:
    """Return every path below a folder, with the bytes of files; None when there is no folder."""
    if not folder.exists():
        return None
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in paths}
