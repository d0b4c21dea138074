"""Two workers against one, each with as many rows: `python -m benchmarks.scaling`.

Beside it the same by two clusters of one worker at a time, which have nothing in common but the machine: no two workers
can scale better than that.
"""

import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np

from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.rows_on_workers import on_workers
from benchmarks.workloads import WORKLOADS, Rows
from kmeans_dask.blocks import Blocks
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


def run_seconds(clusters: Sequence[int], size: Size) -> list[float]:
    """Return the seconds of whole runs on clusters of so many workers each, side by side: those of the slowest."""
    start = WORKLOADS["W2"].start(WORKLOADS["W2"].rows(size.share)).astype(float)
    limits = Limits(max_iter=_ITERATIONS)

    def seconds(blocks: Blocks) -> float:
        return sum(p.seconds for p in lloyd(blocks, start, limits, Identity()).history)

    with ExitStack() as stack, ThreadPoolExecutor(len(clusters)) as pool:
        sides = []
        for n_workers in clusters:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            cluster = stack.enter_context(connected(DaskConfig(workers=n_workers, memory_limit=4 * 2**30)))
            X = rows_for(n_workers, size.share)
            sides.append(stack.enter_context(on_workers(cluster, X, folder, 8 * n_workers)))
        return [max(pool.map(seconds, sides)) for _ in range(size.repeats + 1)][1:]


def measured(size: Size) -> Section:
    """Do two workers go through twice the rows in the same time?"""
    ways = {"1 worker": (1,), "2 workers": (2,), "2 clusters of 1 worker, side by side": (1, 1)}
    found = {name: statistics.median(run_seconds(clusters, size)) for name, clusters in ways.items()}
    one, two, apart = found.values()
    rows = tuple((name, seconds, one / seconds) for name, seconds in found.items())
    targets = (
        Target("11. weak scaling, one worker's seconds / two workers'", one / two, 0.9, at_least=True),
        Target(
            "11. of what the machine allows: two clusters' seconds / two workers'",
            apart / two,
            0.9,
            at_least=True,
        ),
    )
    n_rows = len(rows_for(1, size.share))
    question = (
        f"{n_rows:,} x 16 on each worker of one thread, the same rows on each, {_ITERATIONS} iterations."
    )
    return Section("Weak scaling", question, (Table("", ("", "seconds", "1 worker / it"), rows),), targets)


if __name__ == "__main__":
    main(measured)
