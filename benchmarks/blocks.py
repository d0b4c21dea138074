"""What the number of blocks costs: `python -m benchmarks.blocks [--rows N] [--repeats N] [--json FILE]`.

One data set lies twice on two workers, in 2 and in 512 blocks, each a load of its own. Whole runs alternate between the
two, so that what else the machine does meets both; every iteration is compared with the same one on the other side.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from kmeans_dask.blocks import Block, Floats
from kmeans_dask.dask_blocks import DaskBlocks
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.dask_loads import Recipe
from kmeans_dask.lloyd import Identity, Limits, lloyd
from kmeans_dask.packing import Preparation, RowRange, pack
from pipeline.cluster import connected
from pipeline.config import DaskConfig

N_FEATURES, N_CLUSTERS, ITERATIONS = 16, 16, 30
FEW, MANY = 2, 512
TRIPS = (2, 64, 512)
_CHUNK_ROWS = 1000  # rows are drawn in chunks of their own seed, so that blocks do not change them


@dataclass(frozen=True, slots=True)
class Report:
    """Medians in milliseconds; extra: of the differences between the same iterations; trips: by number of blocks."""

    rows: int
    repeats: int
    few_ms: float
    many_ms: float
    extra_ms: float
    trips_ms: dict[int, float]


def rows_of(first_row: int, n_rows: int) -> Floats:
    """Return rows around 64 points, (n_rows, 16)."""
    points = np.random.default_rng(0).normal(size=(64, N_FEATURES)) * 2
    chunks = []
    for chunk in range(first_row // _CHUNK_ROWS, -(-(first_row + n_rows) // _CHUNK_ROWS)):
        rng = np.random.default_rng(1 + chunk)
        chunks.append(points[rng.integers(0, 64, _CHUNK_ROWS)] + rng.normal(size=(_CHUNK_ROWS, N_FEATURES)))
    skipped = first_row % _CHUNK_ROWS
    return np.concatenate(chunks)[skipped : skipped + n_rows]


def block_of(first_row: int, n_rows: int) -> list[Block]:
    """Return those rows as one float32 block."""
    zeros, ones = np.zeros(N_FEATURES), np.ones(N_FEATURES)
    names = tuple(f"x{f}" for f in range(N_FEATURES))
    preparation = Preparation(names, "float32", zeros, zeros, ones, zeros, "error", "none")
    return [pack(list(rows_of(first_row, n_rows).T), RowRange(first_row, n_rows), preparation)]


def blocks_of(cluster: Cluster, n_rows: int, n_blocks: int) -> DaskBlocks:
    """Return the rows on the workers in so many blocks."""
    cuts = [n_rows * i // n_blocks for i in range(n_blocks + 1)]
    return DaskBlocks(
        cluster, [Recipe(block_of, (a, b - a), a, b - a, (b - a) * 64) for a, b in pairwise(cuts)]
    )


def iterations_ms(blocks: DaskBlocks, start: Floats) -> list[float]:
    """Return the milliseconds of each iteration of one run."""
    fit = lloyd(blocks, start, Limits(max_iter=ITERATIONS), Identity())
    return [1000 * progress.seconds for progress in fit.history]


def one(blocks: Sequence[Block]) -> int:
    """Return 1: the answer that costs nothing."""
    return 1


def trip_ms(blocks: DaskBlocks) -> float:
    """Return the milliseconds of one round trip of `one`."""
    began = time.perf_counter()
    blocks.map_reduce(one, combine=int.__add__)
    return 1000 * (time.perf_counter() - began)


def measured(n_rows: int, repeats: int) -> Report:
    """Run both sides in turn, and the round trips in turn."""
    with ExitStack() as stack:
        cluster = stack.enter_context(connected(DaskConfig(workers=2)))
        sides = {n: stack.enter_context(blocks_of(cluster, n_rows, n)) for n in sorted({FEW, MANY, *TRIPS})}
        start = rows_of(0, N_CLUSTERS)
        runs: dict[int, list[list[float]]] = {FEW: [], MANY: []}
        for repeat in range(repeats + 1):
            for n_blocks, run in runs.items():
                found = iterations_ms(sides[n_blocks], start)
                if repeat:  # the first run of each compiles and warms
                    run.append(found)
        trips: dict[int, list[float]] = {n: [] for n in TRIPS}
        for _ in range(20 * repeats):
            for n_blocks, times in trips.items():
                times.append(trip_ms(sides[n_blocks]))
    few, many = ([ms for run in runs[n] for ms in run] for n in (FEW, MANY))
    return Report(
        n_rows,
        repeats,
        statistics.median(few),
        statistics.median(many),
        statistics.median(b - a for a, b in zip(few, many, strict=True)),
        {n: statistics.median(times) for n, times in trips.items()},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report, or write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args(argv)
    report = measured(chosen.rows, chosen.repeats)
    sys.stdout.write(
        f"{report.rows:,} x {N_FEATURES} float32, k = {N_CLUSTERS}, two workers of one thread, medians of "
        f"{report.repeats} runs of {ITERATIONS} iterations\n"
        f"an iteration with {FEW} blocks    {report.few_ms:8.2f} ms\n"
        f"an iteration with {MANY} blocks  {report.many_ms:8.2f} ms\n"
        f"more for each iteration      {report.extra_ms:8.2f} ms\n"
    )
    for n_blocks, ms in report.trips_ms.items():
        sys.stdout.write(f"a round trip over {n_blocks:3} blocks  {ms:8.2f} ms\n")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(asdict(report), file, indent=2)


if __name__ == "__main__":
    main()
