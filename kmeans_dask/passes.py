"""What one pass over a run of blocks computes for Lloyd's algorithm, and how partial results combine.

The labels of a run's last pass are remembered in each block, under the digests of the centroids they belong to. They
are a cache: a pass that finds other ones, or none, computes what it needs again, so its value depends on its arguments
alone, also when it is repeated or when a block is new to its worker.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, sums
from kmeans_dask.blocks import Block, Floats, Labels, Summary, padded
from kmeans_dask.sums import Limbs

Scan = tuple[npt.NDArray[Any], npt.NDArray[Any], float, float, float]


@dataclass(frozen=True, slots=True)
class Partials:
    """What a pass returns for k clusters; rows counts rows, the limbs and inertia hold weighted sums."""

    rows: npt.NDArray[np.int64]  # (k,)
    weight: Limbs  # (3, k); (3, 0) when every row weighs 1
    sums: Limbs  # (3, d, k)
    inertia: int
    changed: int

    def combined(self, other: "Partials") -> "Partials":
        """Return the partials of both sets of rows."""
        return Partials(
            self.rows + other.rows,
            # Blocks without rows do not know whether the others have weights.
            sums.added(self.weight, other.weight)
            if self.weight.shape == other.weight.shape
            else max(self.weight, other.weight, key=np.size),
            sums.added(self.sums, other.sums),
            self.inertia + other.inertia,
            self.changed + other.changed,
        )


@dataclass(frozen=True, slots=True)
class Exponents:
    """The exponents of the exact sums, from bounds over all rows: the same for every block."""

    columns: npt.NDArray[np.int64]  # (d,): of weight * x
    weight: int
    inertia: int


def exponents(summary: Summary, centroids: Floats) -> Exponents:
    """Return exponents for a pass with these centroids, (k, d)."""
    magnitudes, heaviest = summary.magnitudes(), summary.highest_weight
    columns = [sums.exponent(float(m) * heaviest) for m in magnitudes]
    reach = np.maximum(summary.highest - centroids.min(axis=0), centroids.max(axis=0) - summary.lowest)
    farthest = float(np.cumsum(reach * reach)[-1]) * (1 + 2.0**-20)
    return Exponents(np.array(columns), sums.exponent(heaviest), sums.exponent(farthest * heaviest))


def digest(centroids: Floats) -> str:
    """Return a name for the exact bits of centroids."""
    return hashlib.blake2b(centroids.tobytes(), digest_size=16).hexdigest()


def scan_of(centroids: Floats, dtype: np.dtype[Any]) -> Scan:
    """Return centroids as `kernels.label_rows` scans them."""
    k, d = centroids.shape
    k4 = padded(k)
    negative = np.zeros((k4, padded(d)), dtype)
    squares = np.full(k4, np.inf, dtype)
    sq_norms = np.einsum("jf,jf->j", centroids, centroids)  # only the scan's, whose rounding does not count
    with np.errstate(over="ignore"):  # a given centroid beyond float32 leaves every row to `kernels.settle`
        negative[:k, :d] = -2.0 * centroids
        squares[:k] = sq_norms
    info = np.finfo(dtype)
    radius = float(np.sqrt(sq_norms.max())) * (1 + 1e-9)
    unit = float(info.eps) / 2 + 2.0**-52  # |c|^2 above and the canonical distance round to float64 too
    return negative, squares, radius, unit, float(info.tiny) * (d + 8)


def labels_of(block: Block, centroids: Floats, scan: Scan) -> Labels:
    """Return the label of each packed row, (n_rows,) int32."""
    labels = np.empty(block.n_rows, np.int32)
    kernels.label_rows(block.tiles, block.n_rows, block.norms, scan, centroids, labels)
    return labels


def sq_distances_of(block: Block, centroids: Floats, labels: Labels) -> Floats:
    """Return each packed row's canonical squared distance to the centroid of its label, (n_rows,)."""
    sq_distances = np.empty(block.n_rows)
    columns = np.ascontiguousarray(centroids.T)
    kernels.distances_of_rows(block.tiles, block.n_rows, columns, labels, sq_distances)
    return sq_distances


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One pass of one run: the centroids before (None in the first), the centroids now, and how they have moved.

    thresholds: of each centroid, (k,) float32, its movement since the run began plus the largest movements of the
    others, iteration by iteration, rounded up. exact: whether to sum the canonical squared distances.
    """

    run: str
    before: Floats | None
    centroids: Floats
    thresholds: npt.NDArray[np.float32]
    scales: Exponents
    exact: bool

    def names(self) -> tuple[str, str]:
        """Return names of the centroids before and now."""
        return ("" if self.before is None else digest(self.before), digest(self.centroids))


@dataclass(slots=True)
class _State:
    """What a run of blocks remembers of a run: labels, slack and sums of the last pass, under its names."""

    blocks: tuple[Block, ...]
    names: tuple[str, str]
    labels: list[Labels]
    slack: list[npt.NDArray[np.float32]]
    totals: tuple[npt.NDArray[np.int64], ...]  # high, low (d, k); rows (k,); high, low of the weights
    changed: int = 0


def lloyd_pass(blocks: Sequence[Block], step: Step) -> Partials:
    """Label every row with its nearest centroid and return the sums of each cluster; in the first pass all change."""
    names, scan = step.names(), scan_of(step.centroids, blocks[0].tiles.dtype)
    state = _remembered(blocks, step.run, names)
    if state is None:
        state = _labelled(blocks, step, names, scan)
    elif state.names != names:
        state.changed = sum(
            _relabelled(block, step, scan, state, i, fresh=False) for i, block in enumerate(blocks)
        )
        state.names = names
    blocks[0].cache[step.run] = state
    high, low, rows, weight_high, weight_low = state.totals
    return Partials(
        rows.copy(),
        sums.normalised(weight_high, weight_low),
        sums.normalised(high, low),
        _inertia(state, step) if step.exact else 0,
        state.changed,
    )


def _remembered(blocks: Sequence[Block], run: str, names: tuple[str, str]) -> _State | None:
    """Take the state of a run out of its cache: that of this pass or the one before, of these very blocks, or None.

    Whoever takes it puts it back when its pass is whole, so a failed pass, or one that is asked twice at a time,
    leaves nothing half-changed.
    """
    state = blocks[0].cache.pop(run, None)
    if not isinstance(state, _State) or len(state.blocks) != len(blocks):
        return None
    ours = all(map(is_, state.blocks, blocks))
    return state if ours and (state.names == names or state.names[1] == names[0]) else None


def _labelled(blocks: Sequence[Block], step: Step, names: tuple[str, str], scan: Scan) -> _State:
    """Return the state of blocks that remember nothing of use."""
    k, d = step.centroids.shape
    weighted = any(block.weights.size for block in blocks)
    totals = (
        np.zeros((d, k), np.int64), np.zeros((d, k), np.int64), np.zeros(k, np.int64),
        np.zeros(k if weighted else 0, np.int64), np.zeros(k if weighted else 0, np.int64),
    )  # fmt: skip
    labels = [np.zeros(block.n_rows, np.int32) for block in blocks]
    slack = [np.empty(block.n_rows, np.float32) for block in blocks]
    state = _State(tuple(blocks), names, labels, slack, totals)
    before = None if step.before is None else scan_of(step.before, blocks[0].tiles.dtype)
    factors = _factors(step.scales)
    for i, block in enumerate(blocks):
        _relabelled(block, step, scan, state, i, fresh=True)
        if before is None or step.before is None:
            state.changed += block.n_rows
        else:
            state.changed += int(kernels.count_changed(labels_of(block, step.before, before), labels[i]))
        kernels.count_rows(labels[i], totals[2])
        kernels.add_rows(block.tiles, block.n_rows, labels[i], block.weights, factors, totals[0], totals[1])
        if weighted:
            kernels.add_values(block.weights, labels[i], factors[d], totals[3], totals[4])
    return state


def _relabelled(block: Block, step: Step, scan: Scan, state: _State, i: int, *, fresh: bool) -> int:
    return int(
        kernels.relabel_rows(
            (block.tiles, block.n_rows, block.norms, block.weights),
            scan, step.centroids, (step.thresholds, _factors(step.scales), fresh),
            (state.labels[i], state.slack[i]), state.totals,
        )
    )  # fmt: skip


def _factors(scales: Exponents) -> Floats:
    return np.array([*(sums.scale(int(e)) for e in scales.columns), sums.scale(scales.weight)])


def _inertia(state: _State, step: Step) -> int:
    inertia = 0
    for block, labels in zip(state.blocks, state.labels, strict=True):
        sq_distances = sq_distances_of(block, step.centroids, labels)
        cost = kernels.total_of(sq_distances, block.weights, sums.scale(step.scales.inertia))
        inertia += sums.joined(*cost)
    return inertia


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that might become a centroid."""

    sq_distance: float
    row_id: int
    label: int
    weight: float
    row: Floats  # (d,)


def farthest_rows(blocks: Sequence[Block], centroids: Floats, m: int) -> list[Candidate]:
    """Return the m rows of positive weight and distance farthest from their centroid, ties to the lowest row id."""
    scan = scan_of(centroids, blocks[0].tiles.dtype)
    found: list[Candidate] = []
    for block in blocks:
        labels = labels_of(block, centroids, scan)
        sq_distances = sq_distances_of(block, centroids, labels)
        if block.weights.size:
            sq_distances = np.where(block.weights > 0, sq_distances, 0.0)
        order = np.argsort(-sq_distances, kind="stable")[:m]
        rows = block.rows(order)
        found += [
            Candidate(
                float(sq_distances[i]), block.row_id(int(i)), int(labels[i]),
                float(block.weights[i]) if block.weights.size else 1.0, row,
            )
            for i, row in zip(order, rows, strict=True)
            if sq_distances[i] > 0
        ]  # fmt: skip
        found = farthest(found, [], m)
    return found


def farthest(a: list[Candidate], b: list[Candidate], m: int) -> list[Candidate]:
    """Return the m farthest of two lists."""
    return sorted(a + b, key=lambda c: (-c.sq_distance, c.row_id))[:m]


def forget(blocks: Sequence[Block], run: str) -> int:
    """Drop what the blocks remember of a run; return how many did."""
    return sum(block.cache.pop(run, None) is not None for block in blocks)
