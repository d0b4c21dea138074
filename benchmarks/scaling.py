"""Two workers against one, each with as many rows: `python -m benchmarks.scaling`."""

import statistics
import tempfile

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


def run_seconds(n_workers: int, size: Size) -> list[float]:
    """Return the seconds of whole runs on so many workers."""
    X = rows_for(n_workers, size.share)
    start = WORKLOADS["W2"].start(WORKLOADS["W2"].rows(size.share)).astype(float)
    settings = DaskConfig(workers=n_workers, memory_limit=4 * 2**30)
    limits = Limits(max_iter=_ITERATIONS)
    with (
        tempfile.TemporaryDirectory() as folder,
        connected(settings) as cluster,
        on_workers(cluster, X, folder, 8 * n_workers) as blocks,
    ):
        runs = [lloyd(blocks, start, limits, Identity()).history for _ in range(size.repeats + 1)]
    return [sum(p.seconds for p in history) for history in runs[1:]]


def measured(size: Size) -> Section:
    """Do two workers go through twice the rows in the same time?"""
    found = {n: statistics.median(run_seconds(n, size)) for n in (1, 2)}
    rows = tuple((f"{n} worker{'s' if n > 1 else ''}", found[n]) for n in found)
    target = Target(
        "11. weak scaling, one worker's seconds / two workers'", found[1] / found[2], 0.9, at_least=True
    )
    n_rows = len(rows_for(1, size.share))
    question = (
        f"{n_rows:,} x 16 on each worker of one thread, the same rows on each, {_ITERATIONS} iterations."
    )
    return Section("Weak scaling", question, (Table("", ("", "seconds"), rows),), (target,))


if __name__ == "__main__":
    main(measured)
