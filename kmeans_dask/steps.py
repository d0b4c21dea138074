"""One pass of Lloyd's algorithm over a run of blocks, scanning only rows whose nearest centroid may have changed.

Labels, slack and sums of a run's last pass are remembered with the blocks, under names of the centroids they belong to.
They are a cache: a pass that finds other ones, or none, computes what it needs again, so its value depends on its
arguments alone, also when it is repeated or when a block is new to its worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, pruning, sums
from kmeans_dask.blocks import Block, Floats, Labels
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


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One pass of one run: the centroids before (None in the first), the centroids now, and how they have moved.

    names: of the centroids before and now. thresholds: of each centroid, (k,) float32, its movement since the run began
    plus the largest movements of the others, iteration by iteration, rounded up; drift: the largest rise of any of them
    in each iteration, added up. factors: of the limbs of each column
    and of the weight, (d + 1,); inertia_factor: of the squared distances. exact: whether to sum those.
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


@dataclass(slots=True)
class _State:
    """What a run of blocks remembers of a run: labels, slack and sums of the last pass, under its names.

    caches: of the blocks, by which they are known again, also when their tiles have been read into another buffer.
    """

    caches: tuple[dict[str, Any], ...]
    names: tuple[str, str]
    labels: list[Labels]
    slack: list[npt.NDArray[np.float32]]
    owners: list[npt.NDArray[np.int32]]  # of tiles; see `pruning.relabel_rows`
    gaps: list[Floats]
    totals: tuple[npt.NDArray[np.int64], ...]  # high, low (k, d); rows (k,); high, low of the weights
    changed: int = 0


def lloyd_pass(blocks: Sequence[Block], step: Step) -> Partials:
    """Label every row with its nearest centroid and return the sums of each cluster; in the first pass all change."""
    state = _remembered(blocks, step)
    if state is None:
        state = _labelled(blocks, step)
    elif state.names != step.names:
        state.changed = sum(_relabelled(block, step, state, i, fresh=False) for i, block in enumerate(blocks))
        state.names = step.names
    high, low, rows, weight_high, weight_low = state.totals
    weight = sums.normalised(weight_high, weight_low) if weight_high.size else np.empty((3, 0), np.int64)
    columns = sums.normalised(high.T.copy(), low.T.copy())
    inertia = _inertia(blocks, state, step) if step.exact else 0
    partials = Partials(rows.copy(), weight, columns, inertia, state.changed)
    blocks[0].cache[step.run] = state
    return partials


def _remembered(blocks: Sequence[Block], step: Step) -> _State | None:
    """Take the state of a run out of its cache: that of this pass or the one before, of these very blocks, or None.

    Whoever takes it puts it back when its pass is whole, so a failed pass, or one that is asked twice at a time,
    leaves nothing half-changed.
    """
    state = blocks[0].cache.pop(step.run, None)
    if not isinstance(state, _State) or len(state.caches) != len(blocks):
        return None
    ours = all(cache is block.cache for cache, block in zip(state.caches, blocks, strict=True))
    return state if ours and (state.names == step.names or state.names[1] == step.names[0]) else None


def _labelled(blocks: Sequence[Block], step: Step) -> _State:
    """Return the state of blocks that remember nothing of use."""
    k, d = step.centroids.shape
    weighted = any(block.weights.size for block in blocks)
    totals = (
        np.zeros((k, d), np.int64), np.zeros((k, d), np.int64), np.zeros(k, np.int64),
        np.zeros(k if weighted else 0, np.int64), np.zeros(k if weighted else 0, np.int64),
    )  # fmt: skip
    labels = [np.zeros(block.n_rows, np.int32) for block in blocks]
    slack = [np.empty(block.n_rows, np.float32) for block in blocks]
    owners = [np.full(len(block.tiles), -1, np.int32) for block in blocks]
    gaps = [np.empty(len(block.tiles)) for block in blocks]
    caches = tuple(block.cache for block in blocks)
    state = _State(caches, step.names, labels, slack, owners, gaps, totals)
    before = None if step.before is None else scan_of(step.before, blocks[0].tiles.dtype)
    for i, block in enumerate(blocks):
        _relabelled(block, step, state, i, fresh=True)
        if before is None or step.before is None:
            state.changed += block.n_rows
        else:
            state.changed += int(kernels.count_changed(labels_of(block, step.before, before), labels[i]))
    return state


def _relabelled(block: Block, step: Step, state: _State, i: int, *, fresh: bool) -> int:
    return int(
        pruning.relabel_rows(
            (block.tiles, block.n_rows, block.weights),
            balls_of(block), tile_sums_of(block, step.factors), step.scan, step.centroids,
            (step.thresholds, step.drift, fresh), step.factors,
            (state.labels[i], state.slack[i], state.owners[i], state.gaps[i]), state.totals,
        )
    )  # fmt: skip


def _inertia(blocks: Sequence[Block], state: _State, step: Step) -> int:
    inertia = 0
    for block, labels in zip(blocks, state.labels, strict=True):
        sq_distances = sq_distances_of(block, step.centroids, labels)
        cost = kernels.total_of(sq_distances, block.weights, step.inertia_factor)
        inertia += sums.joined(*cost)
    return inertia
