"""A trial over one block in one compiled call: bit by bit what `lloyd` makes of it, iteration by iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kmeans_dask import sums
from kmeans_dask.blocks import Block, Blocks, Floats
from kmeans_dask.bounds import Bounds, add_movements
from kmeans_dask.kernels import compiled, explained, means_of, round_totals
from kmeans_dask.means import CANCELLED
from kmeans_dask.passes import balls_of, scan_of, tile_sums_of
from kmeans_dask.pruning import relabel_rows
from kmeans_dask.radii import narrow_radii, reach_tiles
from kmeans_dask.repeats import distinct
from kmeans_dask.resume import End
from kmeans_dask.scans import write_scan
from kmeans_dask.steps import Step, passed
from kmeans_dask.tracks import Track, name_after

_MOST = 2**27  # rows * clusters * features: with more a pass takes long enough for the client to make each


@dataclass(frozen=True, slots=True)
class Course:
    """When a trial ends; see `lloyd.Limits` and `lloyd.Trial`."""

    max_iter: int
    sq_shift: float
    squares: float
    bar: float
    hope: float


@dataclass(frozen=True, slots=True, eq=False)
class Landing:
    """Where a trial ended: its centroids, (k, d), their rows, (k,), and how many labels its last pass changed."""

    centroids: Floats
    sizes: npt.NDArray[np.int64]
    inertia: float
    n_iter: int
    changed: int
    end: End


def may_land(blocks: Blocks, start: Floats) -> bool:
    """Whether a trial from start centroids, (k, d), may be made at once."""
    return blocks.n_blocks == 1 and blocks.summary.n_samples * start.size <= _MOST


def landed(blocks: Blocks, path: Track, course: Course) -> Landing | None:
    """Return where a trial of free centroids ends; None where it must be made iteration by iteration.

    That is where rows lie in several groups or have weights, where a cluster runs empty, and where the inertia must be
    told by the distances themselves.
    """
    step, n_rows = path.step(blocks, exact=False), blocks.summary.n_samples
    return blocks.map_reduce(leap, step, n_rows, path.bounds, course, combine=_neither)


def _neither(a: Landing | None, b: Landing | None) -> None:
    """Return what two groups of rows make of a trial: none of them has all."""


def leap(blocks: Sequence[Block], step: Step, n_rows: int, bounds: Bounds, course: Course) -> Landing | None:
    """Make all passes of a trial, of which the step is the first, if these blocks are one of all rows."""
    if blocks[0].n_rows < n_rows or blocks[0].weights.size:
        return None
    block = distinct(blocks[0])
    state = passed([block], step)
    centroids, bounds = step.centroids.copy(), bounds.copy()
    state.changed, n_moves, bounds.drift, inertia = advance(
        (block.tiles, block.n_rows, block.weights, block.copies), balls_of(block), tile_sums_of(block, step.factors),
        scan_of(centroids, block.tiles.dtype), (step.factors, step.scales.columns - sums.BITS),
        (*state.known[0], state.radii), state.totals,
        (centroids, (bounds.moved, bounds.thresholds, bounds.owed), bounds.drift),
        (course.max_iter - 1, course.sq_shift), (course.squares, course.bar, course.hope), state.changed,
    )  # fmt: skip
    if np.isnan(inertia) and n_moves:
        return None
    if n_moves:
        state.names = ("", name_after(step.names[1], bounds, centroids))
    block.cache[step.run] = state
    if np.isnan(inertia):
        return None  # and the first pass need not be made again
    end = End(step.run, state.names[1], centroids, bounds.thresholds, bounds.drift, bounds.owed)
    return Landing(centroids, state.totals[2].copy(), float(inertia), n_moves + 1, state.changed, end)


@compiled()
def advance(rows, balls, tile_sums, scan, scales, known, totals, path, limits, trial, changed):  # type: ignore[no-untyped-def]
    """Move and pass until the trial ends; all in place.

    known = (labels, slack, owners, gaps: see `pruning.relabel_rows`; radii (k,)).
    path = (centroids (k, d), bounds, drift): see `bounds.add_movements`; scales = (factors, units of the columns);
    limits = (moves, sq_shift), trial = (squares, bar, hope); changed: labels, by the pass before. Returns those of the
    last pass, the moves, the drift, and the inertia: NaN where the trial cannot be made here.
    """
    centroids, bounds, drift = path
    squares, bar, hope = trial
    k, d = centroids.shape
    every, no_weights, no_shifts = np.ones(k, np.bool_), np.empty((3, 0), np.int64), np.zeros(k, np.int64)
    rounded, weights, whole = np.empty((d, k)), np.empty(k), np.empty(k, np.bool_)
    limbs, limbs_before, counts = np.empty((3, d, k), np.int64), np.empty((3, d, k), np.int64), totals[2][:0]
    n_moves, last = 0, np.inf
    while True:
        carry_limbs(totals, limbs)
        round_totals(limbs, totals[2], no_weights, scales[1], 0, rounded, weights)
        inertia = squares - explained(rounded, weights, centroids)
        if not inertia > squares * CANCELLED or totals[2].min() == 0:
            return changed, n_moves, drift, np.nan
        if n_moves >= limits[0] or inertia - hope * (last - inertia) > bar:
            return changed, n_moves, drift, inertia
        means = centroids.copy()
        means_of(
            limbs,
            totals[2],
            (limbs_before[:, :, : counts.shape[0]], counts),
            scales[1],
            no_shifts,
            every,
            means,
        )
        radii, new = known[4].copy(), (bounds[0].copy(), bounds[1].copy(), bounds[2].copy())
        rise, sq_shift = add_movements(centroids, means, radii, new)
        if (changed == 0 and (means == centroids).all()) or (limits[1] > 0 and sq_shift <= limits[1]):
            return changed, n_moves, drift, inertia
        centroids[:], known[4][:] = means, radii
        bounds[0][:], bounds[1][:], bounds[2][:] = new
        drift += rise
        limbs_before[:], counts = limbs, totals[2].copy()
        last, n_moves = inertia, n_moves + 1
        write_scan(centroids, scan[2][1], scan[0], scan[1], scan[2][0])
        step = (bounds[1], drift, False)
        found = np.zeros(k), np.zeros((2, k), np.int64)
        state = known[0], known[1], known[2], known[3], found
        changed = relabel_rows(rows, balls, tile_sums, scan, centroids, step, scales[0], state, totals)
        if narrow_radii(known[4], found, totals[2], whole):
            reach_tiles(known[4], whole, known[2], balls, centroids)


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
