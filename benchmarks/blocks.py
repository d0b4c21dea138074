"""What the number of blocks costs, and a round trip: `python -m benchmarks.blocks`.

One data set lies on two workers in several numbers of blocks, each a load of its own. Whole runs alternate between
them, so that what else the machine does meets all alike; every iteration is compared with the same one of the others.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.rows_on_workers import on_workers
from benchmarks.workloads import WORKLOADS
from kmeans_dask import passes
from kmeans_dask.blocks import Block, Floats
from kmeans_dask.dask_blocks import DaskBlocks
from kmeans_dask.lloyd import Identity, Limits, lloyd
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track
from pipeline.cluster import connected
from pipeline.config import DaskConfig

_ITERATIONS = 30
_COUNTS = (2, 64, 512)


def one(blocks: Sequence[Block]) -> int:
    """Return 1: the answer that costs nothing."""
    return 1


def empty_ms(blocks: DaskBlocks) -> float:
    """Return the milliseconds of one round trip of `one`."""
    began = time.perf_counter()
    blocks.map_reduce(one, combine=int.__add__)
    return 1000 * (time.perf_counter() - began)


def repeated_ms(blocks: DaskBlocks, centroids: Floats, repeats: int) -> list[float]:
    """Return the milliseconds of a pass that was made already: centroids down, sums up, and no row touched."""
    step = Track("repeated", centroids).step(blocks, exact=False)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        blocks.map_reduce(lloyd_pass, step, combine=passes.Partials.combined)
        times.append(1000 * (time.perf_counter() - began))
    blocks.map_reduce(passes.forget, "repeated", combine=int.__add__)
    return times[1:]


def iterations_ms(blocks: DaskBlocks, start: Floats) -> list[float]:
    """Return the milliseconds of each iteration of one run."""
    return [1000 * p.seconds for p in lloyd(blocks, start, Limits(max_iter=_ITERATIONS), Identity()).history]


def measured(size: Size) -> Section:
    """What do blocks cost, and what does an iteration's coordination?"""
    X = WORKLOADS["W2"].rows(size.share)
    start = WORKLOADS["W2"].start(X).astype(float)
    runs: dict[int, list[list[float]]] = {n: [] for n in _COUNTS}
    trips: dict[int, list[float]] = {n: [] for n in _COUNTS}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cluster = stack.enter_context(connected(DaskConfig(workers=2)))
        sides = {n: stack.enter_context(on_workers(cluster, X, folder, n)) for n in _COUNTS}
        for repeat in range(2 * size.repeats + 1):
            for n, blocks in sides.items():
                found = iterations_ms(blocks, start)
                if repeat:  # the first run of each compiles and warms
                    runs[n].append(found)
        for _ in range(20 * size.repeats):
            for n, blocks in sides.items():
                trips[n].append(empty_ms(blocks))
        repeated = {n: repeated_ms(blocks, start, 20 * size.repeats) for n, blocks in sides.items()}
    flat = {n: [ms for run in found for ms in run] for n, found in runs.items()}
    extra = {
        n: statistics.median(b - a for a, b in zip(flat[_COUNTS[0]], flat[n], strict=True)) for n in _COUNTS
    }
    rows = tuple(
        (
            f"{n} blocks",
            statistics.median(flat[n]),
            extra[n],
            statistics.median(trips[n]),
            statistics.median(repeated[n]),
        )
        for n in _COUNTS
    )
    head = (
        "",
        "an iteration, ms",
        "more than with 2, ms",
        "an empty trip, ms",
        "centroids down and sums up, ms",
    )
    targets = (
        Target("5. coordination of an iteration with 512 blocks, ms", statistics.median(repeated[512]), 3.0),
        Target("5. an iteration with 512 blocks less one with 2, ms", extra[512], 3.0),
    )
    question = f"W2 on two workers of one thread, runs of {_ITERATIONS} iterations in turn; medians."
    return Section("Blocks", question, (Table("", head, rows),), targets)


if __name__ == "__main__":
    main(measured)
