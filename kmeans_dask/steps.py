"""One pass of Lloyd's algorithm over a run of blocks, scanning only rows whose nearest centroid may have changed.

Labels, slack and sums of a run's last pass are remembered with the blocks, under names of the centroids they belong to.
They are a cache: a pass that finds other ones, or none, computes what it needs again, so its value, but for radii,
depends on its arguments alone, also when it is repeated or when a block is new to its worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import bounds, kernels, pruning, radii, resume, sums
from kmeans_dask.blocks import Block, Floats, Labels, of_distinct_rows
from kmeans_dask.passes import (
    Exponents,
    Partials,
    Scan,
    balls_of,
    labels_of,
    scan_of,
    sq_distances_of,
    tile_sums_of,
)
from kmeans_dask.repeats import distinct
from kmeans_dask.resume import End, Origin


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One pass of one run: the centroids before (None in the first), the centroids now, and how they have moved.

    names: of the centroids before and now. thresholds, (k,) float32, and drift: see `bounds.Bounds`. factors: of the
    limbs of each column and of the weight, (d + 1,); inertia_factor: of the squared distances. exact: whether to sum
    those. origin: where the run started, in its first pass.
    """

    run: str
    names: tuple[str, str]
    before: Floats | None
    centroids: Floats
    scan: Scan
    thresholds: npt.NDArray[np.float32]
    drift: float
    scales: Exponents
    factors: Floats
    inertia_factor: float
    exact: bool
    origin: Origin | None = None


# Of a block's rows and tiles: labels, slack, owners, gaps; see `pruning.relabel_rows`.
Known = tuple[Labels, npt.NDArray[np.float32], npt.NDArray[np.int32], Floats]


@dataclass(slots=True)
class State:
    """What a run of blocks remembers of a run: what is known of the rows since the last pass, under its names.

    caches: of the blocks, by which they are known again, also when their tiles have been read into another buffer.
    known: of each block the labels, slack, owners and gaps of `pruning.relabel_rows`.
    """

    caches: tuple[dict[str, Any], ...]
    names: tuple[str, str]
    known: list[Known]
    totals: tuple[npt.NDArray[np.int64], ...]  # high, low (k, d); rows (k,); high, low of the weights
    radii: Floats  # (k,): see `Partials`
    changed: int = 0

    def is_of(self, blocks: Sequence[Block]) -> bool:
        """Whether these very blocks are what it is remembered of."""
        caches = [block.cache for block in blocks]
        return len(self.caches) == len(caches) and all(map(is_, self.caches, caches))


@of_distinct_rows
def lloyd_pass(blocks: Sequence[Block], step: Step) -> Partials:
    """Label every row with its nearest centroid and return the sums of each cluster; in the first pass all change."""
    blocks = [distinct(block) for block in blocks]
    state = passed(blocks, step)
    high, low, rows, weight_high, weight_low = state.totals
    weight = sums.normalised(weight_high, weight_low) if weight_high.size else np.empty((3, 0), np.int64)
    columns = sums.normalised(high.T.copy(), low.T.copy())
    inertia = _inertia(blocks, state, step) if step.exact else 0
    partials = Partials(rows.copy(), weight, columns, inertia, state.changed, state.radii.copy())
    blocks[0].cache[step.run] = state
    return partials


def passed(blocks: Sequence[Block], step: Step) -> State:
    """Return the state of blocks after a pass, for whoever calls to put it back into the cache of the first."""
    state = _remembered(blocks, step.run)
    if state is None or not (state.names == step.names or state.names[1] == step.names[0]):
        return _resumed(blocks, step, state) or _labelled(blocks, step)
    if state.names != step.names and step.before is not None:
        bounds.widen(step.before, step.centroids, state.radii)
        state.changed = _relabelled(blocks, step, state, fresh=False)
        state.names = step.names
    return state


def _remembered(blocks: Sequence[Block], run: str) -> State | None:
    """Take the state of a run out of its cache, if it is that of these very blocks.

    Whoever takes it puts it back when its pass is whole, so a failed pass, or one that is asked twice at a time,
    leaves nothing half-changed.
    """
    state = blocks[0].cache.pop(run, None)
    return state if isinstance(state, State) and state.is_of(blocks) else None


def _ended(blocks: Sequence[Block], end: End) -> State | None:
    """Take the state at the end of a run out of its cache, if it is there."""
    state = _remembered(blocks, end.run)
    return state if state and state.names[1] == end.name else None


def remembered_labels(blocks: Sequence[Block], run: str, name: str) -> list[Labels] | None:
    """Return the labels of each block after a run's last pass, if that was with the centroids of this name.

    None where only those of distinct rows are known.
    """
    state = blocks[0].cache.get(run)
    if not isinstance(state, State) or state.names[1] != name or not state.is_of(blocks):
        return None
    return [labels for labels, *_ in state.known]


def rename(blocks: Sequence[Block], end: End, run: str) -> list[Labels] | None:
    """Let blocks remember the end of a run as that of another; return its labels, if they remember any."""
    blocks = [distinct(block) for block in blocks]
    state = _ended(blocks, end)
    if state is None:
        return None
    blocks[0].cache[run] = state
    return [labels for labels, *_ in state.known]


def _resumed(blocks: Sequence[Block], step: Step, held: State | None) -> State | None:
    """Return the state of blocks in the first pass of a run, if they remember the end from which it starts.

    held: what they have remembered under the run's own name, which is used up; another's is copied.
    """
    if step.origin is None:
        return None
    end, places = step.origin.end, step.origin.places
    state = held if end.run == step.run else _ended(blocks, end)
    if state is None or state.names[1] != end.name:
        return None
    if end.run == step.run:
        known = state.known
    else:
        blocks[0].cache[end.run] = state
        known = held.known if held else [_room(block) for block in blocks]
    totals = tuple(_placed(total, places, len(step.centroids)) for total in state.totals)
    origin, added = (end.centroids, end.thresholds, end.drift, places), step.centroids[step.origin.added]
    for block, before, after in zip(blocks, state.known, known, strict=True):
        resume.carry(block.n_rows, balls_of(block), origin, added, before, after)
    reach = _placed(state.radii, places, len(step.centroids))
    resumed = State(state.caches, step.names, known, totals, reach)
    _relabelled(blocks, step, resumed, fresh=False)
    resumed.changed = sum(block.n_copies for block in blocks)
    return resumed


def _placed(total: npt.NDArray[Any], places: npt.NDArray[np.int32], k: int) -> npt.NDArray[Any]:
    """Return what is known of clusters, (K,) or (K, d), at their places among k; of no weights, (0,), nothing."""
    placed = np.zeros((k if total.size else 0, *total.shape[1:]), total.dtype)
    if total.size:
        resume.place_rows(total.reshape(len(total), -1), places, placed.reshape(k, -1))
    return placed


def _room(block: Block) -> Known:
    """Return room for what is known of a block."""
    labels, slack = np.zeros(block.n_rows, np.int32), np.empty(block.n_rows, np.float32)
    return labels, slack, np.full(len(block.tiles), -1, np.int32), np.empty(len(block.tiles))


def _labelled(blocks: Sequence[Block], step: Step) -> State:
    """Return the state of blocks that remember nothing of use."""
    k, d = step.centroids.shape
    weighted = any(block.weights.size for block in blocks)
    totals = (
        np.zeros((k, d), np.int64), np.zeros((k, d), np.int64), np.zeros(k, np.int64),
        np.zeros(k if weighted else 0, np.int64), np.zeros(k if weighted else 0, np.int64),
    )  # fmt: skip
    caches = tuple(block.cache for block in blocks)
    state = State(caches, step.names, [_room(block) for block in blocks], totals, np.zeros(k))
    _relabelled(blocks, step, state, fresh=True)
    before = None if step.before is None else scan_of(step.before, blocks[0].tiles.dtype)
    for block, (labels, *_) in zip(blocks, state.known, strict=True):
        if before is None or step.before is None:
            state.changed += block.n_copies
        else:
            state.changed += _count_changed(block, labels_of(block, step.before, before), labels)
    return state


def _count_changed(block: Block, before: Labels, after: Labels) -> int:
    if block.copies.size:
        return int(block.copies[before != after].sum())
    return int(kernels.count_changed(before, after))


def _relabelled(blocks: Sequence[Block], step: Step, state: State, *, fresh: bool) -> int:
    """Bring what is known of blocks from the pass before to this one; return how many labels changed."""
    k, changed = len(step.centroids), 0
    found, whole = (np.zeros(k), np.zeros((2, k), np.int64)), np.empty(k, np.bool_)
    for block, known in zip(blocks, state.known, strict=True):
        changed += pruning.relabel_rows(
            (block.tiles, block.n_rows, block.weights, block.copies),
            balls_of(block), tile_sums_of(block, step.factors), step.scan, step.centroids,
            (step.thresholds, step.drift, fresh), step.factors, (*known, found), state.totals,
        )  # fmt: skip
    if radii.narrow_radii(state.radii, found, state.totals[2], whole):
        for block, (_, _, owners, _) in zip(blocks, state.known, strict=True):
            radii.reach_tiles(state.radii, whole, owners, balls_of(block), step.centroids)
    return int(changed)


def _inertia(blocks: Sequence[Block], state: State, step: Step) -> int:
    inertia = 0
    for block, (labels, *_) in zip(blocks, state.known, strict=True):
        sq_distances = sq_distances_of(block, step.centroids, labels)
        if block.copies.size:
            cost = kernels.total_of_copies(sq_distances, block.copies, step.inertia_factor)
        else:
            cost = kernels.total_of(sq_distances, block.weights, step.inertia_factor)
        inertia += sums.joined(*cost)
    return inertia
