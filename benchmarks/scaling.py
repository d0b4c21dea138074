"""Two workers against one, each with as many rows: `python -m benchmarks.scaling`.

Beside it the same by two processes, each with a cluster of one worker, at the same time: these have nothing in common
but the machine, and share no work.
"""

import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.managers import SyncManager

import numpy as np

from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.rows_on_workers import on_workers
from benchmarks.workloads import WORKLOADS, Rows
from kmeans_dask.lloyd import Identity, Limits, lloyd
from pipeline.cluster import connected
from pipeline.config import DaskConfig

_ITERATIONS = 20
_TIMES = 4  # W2's rows, on each worker


def rows_for(n_workers: int, share: float) -> Rows:
    """Return so many times W2's rows: each worker's share is the same rows in another order."""
    X = np.concatenate([WORKLOADS["W2"].rows(share)] * _TIMES)
    rng = np.random.default_rng(0)
    return np.concatenate([X[rng.permutation(len(X))] for _ in range(n_workers)])


def run_seconds(n_workers: int, size: Size, wait: Callable[[], object] = lambda: None) -> list[float]:
    """Return the seconds of whole runs on so many workers; wait: what is done before each."""
    X = rows_for(n_workers, size.share)
    start = WORKLOADS["W2"].start(WORKLOADS["W2"].rows(size.share)).astype(float)
    settings = DaskConfig(workers=n_workers, memory_limit=4 * 2**30)
    limits, runs = Limits(max_iter=_ITERATIONS), []
    with (
        tempfile.TemporaryDirectory() as folder,
        connected(settings) as cluster,
        on_workers(cluster, X, folder, 8 * n_workers) as blocks,
    ):
        for _ in range(size.repeats + 1):
            wait()
            runs.append(lloyd(blocks, start, limits, Identity()).history)
    return [sum(p.seconds for p in history) for history in runs[1:]]


def side_by_side(n: int, size: Size) -> list[float]:
    """Return the seconds of runs on one worker by so many processes at a time: those of the slowest of each."""
    fresh = get_context("spawn")
    with SyncManager(ctx=fresh) as shared, ProcessPoolExecutor(n, fresh) as pool:
        wait = shared.Barrier(n).wait
        sides = [pool.submit(run_seconds, 1, size, wait) for _ in range(n)]
        return list(map(max, zip(*(side.result() for side in sides), strict=True)))


def measured(size: Size) -> Section:
    """Do two workers go through twice the rows in the same time?"""
    found = {
        "1 worker": run_seconds(1, size),
        "2 workers": run_seconds(2, size),
        "2 processes, each with 1 worker of its own": side_by_side(2, size),
    }
    one, *others = map(statistics.median, found.values())
    rows = tuple((name, seconds, one / seconds) for name, seconds in zip(found, (one, *others), strict=True))
    target = Target(
        "11. weak scaling, one worker's seconds / two workers'", one / others[0], 0.9, at_least=True
    )
    n_rows = len(rows_for(1, size.share))
    question = (
        f"{n_rows:,} x 16 on each worker of one thread, the same rows on each, {_ITERATIONS} iterations."
    )
    return Section("Weak scaling", question, (Table("", ("", "seconds", "1 worker / it"), rows),), (target,))


if __name__ == "__main__":
    main(measured)
