"""A job's plan and rows: scanned and read when a step asks for them, or begun before the engine is imported.

numba and its kernels keep one core busy for half a second; a job in its own process scans and reads on another
meanwhile. What fails there fails in the step that asks for it.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from pipeline.config import Job
from pipeline.loads import HERE_BYTES, row_bytes, shared_loads
from pipeline.source import Plan, RowGroup, Rows, read_rows, scan

_MOST_BYTES: Final = 2**28  # read before the plan is known to fit into memory


class Source:
    """Where a job's rows come from."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def plan(self) -> Plan:
        """Return the job's plan, from the footers of its files."""
        return scan(self._job.source, self._job.kmeans.dtype)

    def rows(self, plan: Plan, row_groups: Sequence[RowGroup]) -> Rows:
        """Return the rows of consecutive row groups of the plan; see `read_rows`."""
        return read_rows(plan, row_groups)


class _Ahead(Source):
    """The same, with the plan and the first loads begun on the threads of a pool."""

    def __init__(self, job: Job, pool: ThreadPoolExecutor, n_threads: int) -> None:
        super().__init__(job)
        self._pool, self._n_threads = pool, n_threads
        self._reading: dict[int, Future[Rows]] = {}
        self._planning = pool.submit(self._begun)

    def plan(self) -> Plan:
        """Return the plan once it is there; raises what went wrong."""
        return self._planning.result()

    def rows(self, plan: Plan, row_groups: Sequence[RowGroup]) -> Rows:
        """Return rows that have been read, once: they are not kept; others are read now."""
        reading = self._reading.pop(row_groups[0].first_row, None)
        rows = None if reading is None else reading.result()
        if rows is not None and rows.n_source_rows == row_groups[-1].end_row - row_groups[0].first_row:
            return rows
        return super().rows(plan, row_groups)

    def _begun(self) -> Plan:
        plan = super().plan()
        loads = shared_loads(plan, self._n_threads, HERE_BYTES)[: self._n_threads]
        row = row_bytes(plan) + 8 * len(plan.columns)
        if sum(load.n_rows for load in loads) * row <= _MOST_BYTES:
            for load in loads:
                self._reading[load.first_row] = self._pool.submit(read_rows, plan, load.row_groups)
        return plan


def _is_here(path: str) -> bool:
    scheme, separator, _ = path.partition("://")
    return not separator or scheme == "file"


@contextmanager
def begun(job: Job) -> Iterator[Source]:
    """Give the source of a job, begun on other threads, no longer than the block, where that costs nothing in vain.

    That is in this process and from its own disks: elsewhere nothing is asked for before the output has been probed.
    """
    if job.dask is not None or not all(map(_is_here, job.source.path)):
        yield Source(job)
        return
    n_threads = len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(n_threads + 1, thread_name_prefix="ahead")
    try:
        yield _Ahead(job, pool, n_threads)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
