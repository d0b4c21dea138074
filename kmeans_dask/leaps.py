"""Iterations of a trial in one compiled loop, where all rows lie in one block: bit by bit those of `lloyd`, one by one.

What a leap leaves is what a pass leaves that it was not asked for: labels and sums at centroids some iterations on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kmeans_dask import sums
from kmeans_dask.blocks import Block, Floats
from kmeans_dask.bounds import Bounds, add_movements
from kmeans_dask.kernels import compiled, explained, means_of, round_totals
from kmeans_dask.passes import balls_of, digest, scan_of, tile_sums_of
from kmeans_dask.pruning import relabel_rows
from kmeans_dask.repeats import distinct
from kmeans_dask.scans import write_scan
from kmeans_dask.steps import Step, passed

CANCELLED = 2.0**-24  # of what rows hold in all: an inertia below has lost too many digits as a difference


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How a trial goes on: for how many moves at most, and when it ends before.

    n_rows: of all blocks. bounds: before the first move. squares, bar, hope: see `lloyd.Trial`; last: the
    inertia before, infinite for none. sq_shift: of `lloyd.Limits`.
    """

    n_rows: int
    bounds: Bounds
    most: int
    sq_shift: float
    squares: float
    last: float
    bar: float
    hope: float


@dataclass(frozen=True, slots=True, eq=False)
class Landing:
    """Where a leap of some moves ended: what a `lloyd.Track` holds there, and the inertia before the last move."""

    n_moves: int
    before: Floats
    centroids: Floats
    names: tuple[str, str]
    bounds: Bounds
    last: float


def leap(blocks: Sequence[Block], step: Step, course: Course) -> Landing | None:
    """Make the pass of a step and, until one may end the run, moves and their passes; None where that cannot be."""
    if blocks[0].n_rows < course.n_rows or blocks[0].weights.size:
        return None
    block = distinct(blocks[0])
    state = passed([block], step)
    centroids, before = step.centroids.copy(), (step.centroids if step.before is None else step.before).copy()
    bounds = course.bounds.copy()
    n_changed, n_moves, bounds.drift, last = advance(
        (block.tiles, block.n_rows, block.weights, block.copies), balls_of(block), tile_sums_of(block, step.factors),
        scan_of(centroids, block.tiles.dtype), (step.factors, step.scales.columns - sums.BITS),
        (*state.known[0], state.radii), state.totals,
        (before, centroids, (bounds.moved, bounds.thresholds, bounds.owed), bounds.drift),
        (course.most, course.sq_shift), (course.squares, course.last, course.bar, course.hope), state.changed,
    )  # fmt: skip
    if n_moves:
        name = digest(before, step.names[1])
        state.changed, state.names = n_changed, (name, digest(centroids, digest(bounds.thresholds, name)))
    block.cache[step.run] = state
    return Landing(n_moves, before, centroids, state.names, bounds, last)


@compiled()
def advance(rows, balls, tile_sums, scan, scales, known, totals, path, limits, trial, changed):  # type: ignore[no-untyped-def]
    """Move and pass until a pass may end the run, or its inertia must be told otherwise; all in place.

    path = (centroids before, centroids (k, d), bounds, drift): see `bounds.add_movements`; scales = (factors, units of
    the columns); changed: labels, by the pass before. Returns those of the last pass, the moves, the drift and the
    inertia before the last move.
    """
    before, centroids, bounds, drift = path
    squares, last, bar, hope = trial
    k, d = centroids.shape
    every, no_weights = np.ones(k, np.bool_), np.empty((3, 0), np.int64)
    rounded, weights = np.empty((d, k)), np.empty(k)
    limbs, limbs_before, counts = np.empty((3, d, k), np.int64), np.empty((3, d, k), np.int64), totals[2][:0]
    n_moves = 0
    while True:
        carry_limbs(totals, limbs)
        round_totals(limbs, totals[2], no_weights, scales[1], 0, rounded, weights)
        inertia = squares - explained(rounded, weights, centroids)
        odd = not inertia > squares * CANCELLED or totals[2].min() == 0
        if odd or n_moves >= limits[0] or inertia - hope * (last - inertia) > bar:
            return changed, n_moves, drift, last
        means = centroids.copy()
        means_of(limbs, totals[2], (limbs_before[:, :, : counts.shape[0]], counts), scales[1], every, means)
        radii, new = known[4].copy(), (bounds[0].copy(), bounds[1].copy(), bounds[2].copy())
        rise, sq_shift = add_movements(centroids, means, radii, new)
        if (changed == 0 and (means == centroids).all()) or (limits[1] > 0 and sq_shift <= limits[1]):
            return changed, n_moves, drift, last
        before[:], centroids[:], known[4][:] = centroids, means, radii
        bounds[0][:], bounds[1][:], bounds[2][:] = new
        drift += rise
        limbs_before[:], counts = limbs, totals[2].copy()
        last, n_moves = inertia, n_moves + 1
        write_scan(centroids, scan[2][1], scan[0], scan[1], scan[2][0])
        step = (bounds[1], drift, False)
        changed = relabel_rows(rows, balls, tile_sums, scan, centroids, step, scales[0], known, totals)


@compiled()
def carry_limbs(totals, limbs):  # type: ignore[no-untyped-def]
    """Write the limbs, (3, d, k), of sums (k, d): see `sums.normalised`."""
    high, low = totals[0], totals[1]
    for j in range(high.shape[0]):
        for f in range(high.shape[1]):
            middle = high[j, f] + (low[j, f] >> 32)
            limbs[0, f, j] = middle >> 32
            limbs[1, f, j] = middle & np.int64(0xFFFFFFFF)
            limbs[2, f, j] = low[j, f] & np.int64(0xFFFFFFFF)
