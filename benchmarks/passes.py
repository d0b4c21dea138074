"""One pass over all rows, and a late iteration, in process: `python -m benchmarks.passes [W2 ...]`."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count

from benchmarks.machine import product_rate
from benchmarks.report import Cell, Section, Size, Table, Target, main
from benchmarks.workloads import WORKLOADS
from kmeans_dask import blocks_of, passes
from kmeans_dask.blocks import Block, Floats
from kmeans_dask.lloyd import Identity, Limits, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track

_BOUNDS = {"W2": (0.50, 0.30), "W4": (0.50, 0.45), "W5": (0.70, 0.65), "W6": (0.70, 0.65)}
_LATE = 0.001  # of the rows change their label
_LATE_MS = 1.0


def scanned(blocks: Sequence[Block], centroids: Floats) -> int:
    """Label every row and keep nothing."""
    scan = passes.scan_of(centroids, blocks[0].tiles.dtype)
    return sum(len(passes.labels_of(block, centroids, scan)) for block in blocks)


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest of some calls, the first one not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def first_pass_seconds(blocks: LocalBlocks, centroids: Floats, repeats: int) -> tuple[float, float]:
    """Return the seconds of a scan alone, and of a first pass with its sums."""
    names = count()

    def first() -> None:
        run = f"first-{next(names)}"
        blocks.map_reduce(
            lloyd_pass, Track(run, centroids).step(blocks, exact=False), combine=passes.Partials.combined
        )
        blocks.map_reduce(passes.forget, run, combine=int.__add__)

    scan = best_seconds(lambda: blocks.map_reduce(scanned, centroids, combine=int.__add__), repeats)
    return scan, best_seconds(first, repeats)


def late_ms(blocks: LocalBlocks, start: Floats, repeats: int) -> list[float]:
    """Return the milliseconds of the iterations of some runs in which few labels change."""
    runs = [lloyd(blocks, start, Limits(max_iter=100), Identity()).history for _ in range(repeats)]
    few = blocks.summary.n_samples * _LATE
    return [1000 * p.seconds for history in runs for p in history[2:-1] if p.changed <= few]


def measured(size: Size) -> Section:
    """What do a first pass and a late iteration cost, against the matrix product?"""
    rates = [product_rate()]  # again after each workload, the best counts: else a slow moment of it flatters
    found: dict[str, tuple[float, float, float]] = {}
    late: list[float] = []
    for name in _BOUNDS:
        if not size.wants(name):
            continue
        X = WORKLOADS[name].rows(size.share)
        blocks, preparation = blocks_of(X)
        centroids = preparation.prepared(WORKLOADS[name].start(X).astype(float))
        with blocks:
            seconds = first_pass_seconds(blocks, centroids, 2 * size.repeats)
            found[name] = (2 * X.size * len(centroids) / 1e9, *seconds)
            if name == "W2":
                late = late_ms(blocks, centroids, 2 * size.repeats)
        rates.append(product_rate())
    rate = max(rates)
    rows: list[tuple[Cell, ...]] = []
    targets = []
    for name, (work, scan, sums) in found.items():
        shares = work / scan / rate, work / sums / rate
        rows.append((name, 1000 * scan, f"{shares[0]:.0%}", 1000 * sums, f"{shares[1]:.0%}"))
        targets += [
            Target(f"3. {name}: {what}", share, bound, True)
            for what, share, bound in zip(
                ("the scan alone, of the matrix product's rate", "with sums"),
                shares,
                _BOUNDS[name],
                strict=True,
            )
        ]
    if late:
        targets.append(Target("4. W2: a late iteration, ms (median)", statistics.median(late), _LATE_MS))
    head = ("", "scan, ms", "of the product's rate", "with sums, ms", "of the product's rate")
    question = (
        f"A pass over all rows without any memory of an earlier one; the product makes {rate:.0f} GFLOP/s. "
        "Of passes the shortest of some counts, of late iterations the median of some runs."
    )
    return Section(
        "First passes and late iterations", question, (Table("", head, tuple(rows)),), tuple(targets)
    )


if __name__ == "__main__":
    main(measured)
