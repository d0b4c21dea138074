"""Jobs for tests of the engines: sources of any layout, and what a run committed, by checksum."""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.lloyd import Progress
from pipeline import Job, Run
from pipeline.config import job_from_sections
from pipeline.runner import PlainRunner, Watch


def write_files(
    folder: Path, table: pa.Table, *, files: int = 1, group_rows: int = 2**20, **options: Any
) -> str:
    """Write a table's rows as files of row groups, and return their glob."""
    folder.mkdir(parents=True)
    rows = -(-table.num_rows // files)
    for i in range(files):
        part = table.slice(i * rows, rows)
        options = {"row_group_size": group_rows, "write_page_checksum": True, **options}
        pq.write_table(part, folder / f"{i:03d}.parquet", **options)
    return str(folder / "*.parquet")


def noise(n_rows: int, n_features: int = 4, seed: int = 0) -> pa.Table:
    """Return uniform rows, on which Lloyd's algorithm takes many iterations, and their ids."""
    rows = np.random.default_rng(seed).random((n_rows, n_features))
    return pa.table({"id": np.arange(n_rows), **{f"x{f}": rows[:, f] for f in range(n_features)}})


def job(
    folder: Path,
    source: str | Sequence[str] | Mapping[str, Any],
    *,
    dask: Mapping[str, Any] | None = None,
    scale: str = "none",
    **kmeans: Any,
) -> Job:
    """Return a job that reads a source and writes to folder/out."""
    sections: dict[str, Any] = {
        "source": dict(source) if isinstance(source, Mapping) else {"path": source, "ids": ["id"]},
        "prepare": {"scale": scale},
        "kmeans": {"n_clusters": 5, "n_init": 3, "seed": 11, **kmeans},
        "output": {"path": "out"},
    }
    if dask is not None:
        sections["dask"] = dict(dask)
    return job_from_sections(sections, folder)


def result_files(run: Run) -> dict[str, str]:
    """Return the checksum of every file that must depend on data and configuration alone."""
    home = Path(run.uri)
    named = [*home.glob("labels/*"), home / "centroids.parquet", home / "model.json", home / "model.parquet"]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in named}


def listing(folder: Path) -> list[str]:
    """Return every path below a folder, or nothing where there is none."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Counted:
    """The iterations of a job so far."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Progress]] = []
        self._changed = threading.Condition()

    def __call__(self, progress: Progress) -> None:
        with self._changed:
            self.seen.append((time.monotonic(), progress))
            self._changed.notify_all()

    @property
    def n(self) -> int:
        """How many there were."""
        return len(self.seen)

    def wait_for_more(self, more: int, timeout: float = 60.0) -> None:
        """Wait until there are more."""
        wanted = self.n + more
        with self._changed:
            if not self._changed.wait_for(lambda: self.n >= wanted, timeout):
                raise TimeoutError(f"{self.n} of {wanted} iterations after {timeout} s")

    def runner(self) -> PlainRunner:
        """Return a runner that counts here."""
        return PlainRunner(Watch(on_progress=self))
