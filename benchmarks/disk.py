"""Rows on disk: `python -m benchmarks.disk [rate job]`.

rate: full passes over blocks on disk, nothing of them in the page cache, against the same blocks in memory and against
reading the disk alone. job: a job of 4 GiB of packed rows on one worker of 1 GiB. Both use the temporary directory: set
TMPDIR to a directory on the disk to be measured, with room for three times the rows.
"""

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import cores
from benchmarks.report import Cell, Section, Size, Table, Target, main
from kmeans_dask import packing, passes
from kmeans_dask.blocks import Block, Blocks, Floats
from kmeans_dask.disk_blocks import GROUP_BYTES, READ_AHEAD, DiskBlocks
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import RowRange, Wishes
from kmeans_dask.restarts import Settings, concurrently, fit_of, restarts_of
from kmeans_dask.spool import SpoolFile, spooled, tiles_of
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track
from pipeline import load_job, plan_job, run_job

_BYTES, _FEATURES, _CLUSTERS = 2**32, 64, 16
_RATE_SHARE = 0.5  # of the rows: also held in memory
_GROUP_ROWS = 2**16
_LIMIT = 2**30
_JOB = """
[source]
path = "rows/*.parquet"
[kmeans]
n_clusters = 16
n_init = 4
max_iter = 10
[dask]
workers = 1
memory_limit = {limit}
[output]
path = "out"
"""


def some_rows(i: int, n_rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return one row group of blobs, (n_features, n_rows)."""
    centres = np.random.default_rng(0).normal(size=(_CLUSTERS, _FEATURES)).astype(np.float32)
    rng = np.random.default_rng(i + 1)
    rows = centres[rng.integers(0, _CLUSTERS, n_rows)] + rng.standard_normal((n_rows, _FEATURES), np.float32)
    return np.ascontiguousarray(rows.T)


def row_groups(share: float) -> list[int]:
    """Return the rows of each row group."""
    n_rows = int(_BYTES / (4 * _FEATURES) * share)
    return [min(_GROUP_ROWS, n_rows - first) for first in range(0, n_rows, _GROUP_ROWS)]


def packed(share: float) -> list[Block]:
    """Return packed blocks of a group's size."""
    names = tuple(f"x{f}" for f in range(_FEATURES))
    ready = packing.provisional(some_rows(0, _GROUP_ROWS), Wishes(names, "float32"))

    def one(i: int, n_rows: int) -> Block:
        return packing.pack(some_rows(i, n_rows), RowRange(i * _GROUP_ROWS, n_rows), ready)

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, *zip(*enumerate(row_groups(share)), strict=True)))


def forgotten(files: Sequence[SpoolFile]) -> None:
    """Take files out of the page cache; they must have been written to the disk."""
    for file in files:
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_of_passes(blocks: Blocks, start: Floats, repeats: int, files: Sequence[SpoolFile] = ()) -> float:
    """Return the seconds of the shortest full pass with its sums; what is remembered of each is forgotten."""
    best = np.inf
    for i in count():
        run = f"full-{i}"
        forgotten(files)
        began = time.perf_counter()
        step = Track(run, start).step(blocks, exact=False)
        blocks.map_reduce(lloyd_pass, step, combine=passes.Partials.combined)
        best = min(best, time.perf_counter() - began) if i else best
        blocks.map_reduce(passes.forget, run, combine=int.__add__)
        if i == repeats:
            return float(best)
    raise AssertionError("unreachable")


def seconds_of_reading(file: SpoolFile, n_threads: int) -> float:
    """Return the seconds in which threads read a file from the disk, in pieces as large as a group."""
    forgotten([file])
    offsets = iter(range(0, file.n_bytes, GROUP_BYTES))
    lock = threading.Lock()

    def read() -> None:
        buffer = memoryview(bytearray(GROUP_BYTES))
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            file.read(buffer[: min(GROUP_BYTES, file.n_bytes - offset)], offset)

    began = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        for done in [pool.submit(read) for _ in range(n_threads)]:
            done.result()
    return time.perf_counter() - began


def rate(size: Size) -> tuple[Table, list[Target]]:
    """Full passes over the same blocks in memory and on disk, and what restarts share."""
    blocks = packed(_RATE_SHARE * size.share)
    start = blocks[0].rows(np.arange(_CLUSTERS, dtype=np.int64))
    disk_blocks = spooled(blocks, tempfile.gettempdir())
    file = tiles_of(disk_blocks[0]).file
    assert file is not None
    os.fsync(file.fd)
    with LocalBlocks(blocks) as local:
        memory = seconds_of_passes(local, start, size.repeats)
    blocks.clear()
    del local
    reading = min(seconds_of_reading(file, cores() + READ_AHEAD) for _ in range(size.repeats))
    with DiskBlocks(disk_blocks) as disk:
        from_disk = seconds_of_passes(disk, start, size.repeats, [file])
        again = seconds_of_passes(disk, start, size.repeats)
        alone, together = read_bytes(disk)
    slowest = max(4 * memory, reading / 0.8)
    gb = file.n_bytes / 1e9
    rows: list[tuple[Cell, ...]] = [
        ("in memory", memory, gb / memory),
        ("on disk, not in the page cache", from_disk, gb / from_disk),
        ("on disk, in the page cache", again, gb / again),
        ("reading alone, not in the page cache", reading, gb / reading),
    ]
    title = f"A full pass over {gb:.3g} GB, {_FEATURES} features, {_CLUSTERS} clusters"
    return Table(title, ("", "seconds", "GB/s"), tuple(rows)), [
        Target("10. a full pass from disk / the slower of 4 in memory and 1/0.8 of reading", from_disk / slowest, 1.0),
        Target("10. bytes read by four restarts at once / by the longest of them alone", together / max(alone), 1.1),
    ]  # fmt: skip


def read_bytes(disk: DiskBlocks) -> tuple[list[int], int]:
    """Return the bytes that restarts read one after the other, and all at once."""
    settings = Settings(_CLUSTERS, init="random", n_init=4, seed=3, tol=0.0, max_iter=5)
    alone = []
    for restart in restarts_of(settings):
        before = disk.read_bytes
        fit_of(disk, settings)(restart, lambda progress: None)
        alone.append(disk.read_bytes - before)
    before = disk.read_bytes
    concurrently(lambda progress: None, 4)(fit_of(disk, settings), restarts_of(settings))
    return alone, disk.read_bytes - before


def write_rows(folder: Path, share: float) -> None:
    """Write rows in 8 files of row groups of 16 MB, uncompressed."""
    names = [f"x{f}" for f in range(_FEATURES)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    groups = list(enumerate(row_groups(share)))
    folder.mkdir()
    for k in range(8):
        file = folder / f"part-{k}.parquet"
        options = {"compression": "none", "use_dictionary": False}
        with pq.ParquetWriter(file, schema, **options) as writer:
            for i, n_rows in groups[len(groups) * k // 8 : len(groups) * (k + 1) // 8]:
                table = pa.table(dict(zip(names, some_rows(i, n_rows), strict=True)))
                writer.write_table(table, row_group_size=n_rows)


class Peak:
    """The largest memory of a child of this process, and how many of that size there were."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._end.wait(0.02):
            for child in me.children(recursive=True):
                try:
                    self.bytes = max(self.bytes, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def _compile(folder: Path) -> None:
    """Run a small job, so that no worker of the large one compiles kernels, which takes some 250 MB."""
    small = folder / "small"
    small.mkdir()
    write_rows(small / "rows", 0.005)
    (small / "job.toml").write_text(_JOB.format(limit=2**31), encoding="utf-8")
    run_job(load_job(small / "job.toml", ["prepare.blocks=disk"]))


def job(size: Size) -> tuple[Table, list[Target]]:
    """A job of more rows than its worker's memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _compile(folder)
        write_rows(folder / "rows", size.share)
        limit = max(int(_LIMIT * size.share), 600 * 2**20)
        (folder / "job.toml").write_text(_JOB.format(limit=limit), encoding="utf-8")
        where = "prepare.blocks=disk" if size.share < 1 else "prepare.blocks=auto"
        settings = load_job(folder / "job.toml", [where])
        plan = plan_job(settings)
        began = time.perf_counter()
        with Peak() as peak:
            run = run_job(settings)
        seconds = time.perf_counter() - began
    rows: list[tuple[Cell, ...]] = [
        ("packed rows, MB", plan.packed_bytes / 1e6),
        ("limit of the worker's memory, MB", limit / 1e6),
        ("its memory at most, MB", peak.bytes / 1e6),
        ("as planned, MB", (plan.memory_bytes or 0) / 1e6),
        ("restarts at once", plan.restarts_at_once or 0),
        ("whole job, s", seconds),
    ]
    return Table(f"A job on one worker, rows in {plan.blocks_in}", ("", ""), tuple(rows)), [
        Target("10. memory of the worker / its limit", peak.bytes / limit, 1.0),
        Target("10. workers lost", float(run.manifest["workers_lost"]), 0.0),
        Target("10. the plan's estimate off the truth", abs((plan.memory_bytes or 0) / peak.bytes - 1), 0.2),
    ]


def measured(size: Size) -> Section:
    """How fast are passes over rows on disk, and does a job of more rows than memory end?"""
    parts = [part(size) for name, part in (("rate", rate), ("job", job)) if size.wants(name)]
    tables, targets = zip(*parts, strict=True)
    question = f"{_FEATURES} float32 features, blobs; one disk, {tempfile.gettempdir()}."
    return Section("Rows on disk", question, tables, tuple(t for some in targets for t in some))


if __name__ == "__main__":
    main(measured)
