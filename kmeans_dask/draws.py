"""What seeding asks of a run of blocks: squared distances to the centroids chosen so far, and rows drawn by them.

Each block remembers, per run, its rows' squared distances and nearest choices under a name for the choices; what it
has lost it computes again, to the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, passes, randoms, sums
from kmeans_dask.blocks import Block, Floats, Labels, Summary, without_rows
from kmeans_dask.sums import Limbs


@dataclass(frozen=True, slots=True)
class Known:
    """Chosen centroids (m, d), n_old of which the last pass knew, and exponents of the exact sums."""

    centroids: Floats
    n_old: int
    exponent: int  # of weight * squared distance to the nearest of them
    weight_exponent: int

    @classmethod
    def nothing(cls, summary: Summary) -> "Known":
        """Return no choices yet: every row then costs its weight."""
        spread = summary.highest - summary.lowest
        farthest = float(np.cumsum(spread * spread)[-1]) * (1 + 2.0**-20)
        heaviest = summary.highest_weight
        return cls(np.empty((0, len(spread))), 0, sums.exponent(farthest * heaviest), sums.exponent(heaviest))

    @property
    def cost_exponent(self) -> int:
        """The exponent of the costs under these choices."""
        return self.exponent if len(self.centroids) else self.weight_exponent

    def extended(self, rows: Floats) -> "Known":
        """Return these choices and the rows, (m, d)."""
        return replace(self, centroids=np.concatenate((self.centroids, rows)), n_old=len(self.centroids))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of the source: row_ids (m,) int64, values (m, d)."""

    row_ids: npt.NDArray[np.int64]
    values: Floats

    @classmethod
    def none(cls, n_features: int) -> "Rows":
        """Return no rows."""
        return cls(np.empty(0, np.int64), np.empty((0, n_features)))

    def taken(self, which: npt.NDArray[np.int64]) -> "Rows":
        """Return the chosen rows, in that order."""
        return Rows(self.row_ids[which], self.values[which])

    def joined(self, other: "Rows") -> "Rows":
        """Return both sets."""
        return Rows(
            np.concatenate((self.row_ids, other.row_ids)), np.concatenate((self.values, other.values))
        )

    def in_order(self) -> "Rows":
        """Return the rows by row id."""
        return self.taken(np.argsort(self.row_ids, kind="stable"))


class Buckets(NamedTuple):
    """Integer costs of ranges of row ids: ids (m,) ascending, each a row id shifted right, and limbs (3, m)."""

    ids: npt.NDArray[np.int64]
    limbs: Limbs

    def joined(self, other: "Buckets") -> "Buckets":
        """Return the costs of both sets of rows."""
        ids, where = np.unique(np.concatenate((self.ids, other.ids)), return_inverse=True)
        limbs = np.zeros((3, len(ids)), np.int64)
        for some, at in ((self, where[: len(self.ids)]), (other, where[len(self.ids) :])):
            limbs[:, at] = limbs[:, at] + some.limbs
        return Buckets(ids, limbs)

    def totals(self) -> list[int]:
        """Return the cost of each range, in units of 2**(exponent - 95)."""
        high, middle, low = (part.tolist() for part in self.limbs)
        return [sums.joined(h, m, x) for h, m, x in zip(high, middle, low, strict=True)]


def nearest(block: Block, run: str, known: Known) -> tuple[Floats, Labels]:
    """Return each packed row's squared distance to its nearest choice and that choice's index; 1 and -1 with none."""
    name = passes.digest(known.centroids)
    state = block.cache.get(run)
    if state is not None and state[0] == name:
        return state[1], state[2]
    if state is not None and state[0] == passes.digest(known.centroids[: known.n_old]):
        sq_distances, labels, new = state[1].copy(), state[2].copy(), known.centroids[known.n_old :]
    else:
        sq_distances, labels = np.full(block.n_rows, np.inf), np.full(block.n_rows, -1, np.int32)
        new = known.centroids
    if known.n_old == 0:
        sq_distances[:] = np.inf
    if len(new):
        offset = len(known.centroids) - len(new)
        new_labels = passes.labels_of(block, new, passes.scan_of(new, block.tiles.dtype))
        new_distances = passes.sq_distances_of(block, new, new_labels)
        kernels.keep_closer(offset, new_labels, new_distances, labels, sq_distances)
    else:
        sq_distances[:] = 1.0
    block.cache[run] = (name, sq_distances, labels)
    return sq_distances, labels


def costs(
    blocks: Sequence[Block], run: str, known: Known, shift: int, within: tuple[int, int] | None = None
) -> Buckets:
    """Return the costs of rows by row id >> shift; within: only of the rows of one such range of a larger shift."""
    found = Buckets(np.empty(0, np.int64), np.empty((3, 0), np.int64))
    for block in blocks:
        if block.n_rows:
            sq_distances, _ = nearest(block, run, known)
            row_ids, weights = block.row_ids(), block.weights
            if within is not None:
                chosen = np.flatnonzero(row_ids >> within[1] == within[0])
                row_ids, sq_distances = row_ids[chosen], sq_distances[chosen]
                weights = weights[chosen] if weights.size else weights
            ids, where = _numbered(row_ids >> shift)
            limbs = np.zeros((3, len(ids)), np.int64)
            kernels.add_costs(sq_distances, weights, sums.scale(known.cost_exponent), where, limbs)
            limbs[1] += limbs[2] >> 32
            limbs[0] += limbs[1] >> 32
            limbs[1:] &= 0xFFFFFFFF
            found = found.joined(Buckets(ids, limbs))
    return found


def _numbered(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct keys, ascending, and the place of each key among them."""
    if not len(keys):
        return keys, keys
    lowest = int(keys.min())
    if int(keys.max()) - lowest > 4 * len(keys) + 1024:
        distinct, where = np.unique(keys, return_inverse=True)
        return distinct, where
    held = np.bincount(keys - lowest) > 0
    return np.flatnonzero(held) + lowest, (np.cumsum(held) - 1)[keys - lowest]


def row_of(blocks: Sequence[Block], row_id: int) -> Rows:
    """Return the row of this id: one, or none from elsewhere."""
    for block in blocks:
        if block.first_row <= row_id < block.first_row + block.n_source_rows:
            at = np.flatnonzero(block.row_ids() == row_id)
            if len(at):
                return Rows(np.array([row_id]), block.rows(at))
    return Rows.none(blocks[0].n_features)


def highest_cost(blocks: Sequence[Block], run: str, known: Known) -> float:
    """Return the largest weight * squared distance of a row."""
    highest = 0.0
    for block in blocks:
        sq_distances, _ = nearest(block, run, known)
        chances = sq_distances * block.weights if block.weights.size else sq_distances
        highest = max(highest, float(chances.max(initial=0.0)))
    return highest


def sample(blocks: Sequence[Block], run: str, known: Known, key: int, n: float, cost: float) -> Rows:
    """Return about n rows: those whose uniform number * cost is below n * weight * squared distance."""
    rows = Rows.none(blocks[0].n_features)
    for block in blocks:
        sq_distances, _ = nearest(block, run, known)
        row_ids = block.row_ids()
        chances = sq_distances * block.weights if block.weights.size else sq_distances
        drawn = np.flatnonzero(randoms.uniforms(key, row_ids) * cost < n * chances)
        rows = rows.joined(Rows(row_ids[drawn], block.rows(drawn)))
    return rows


def weights_of(blocks: Sequence[Block], run: str, known: Known) -> Limbs:
    """Return the weight of the rows nearest to each choice, (3, m) limbs."""
    high, low = np.zeros((2, len(known.centroids)), np.int64)
    ones = np.ones(max(block.n_rows for block in blocks))
    for block in blocks:
        _, labels = nearest(block, run, known)
        weights = block.weights if block.weights.size else ones[: block.n_rows]
        kernels.add_values(weights, labels, sums.scale(known.weight_exponent), high, low)
    return sums.normalised(high, low)


def smallest(blocks: Sequence[Block], key: int, m: int) -> Rows:
    """Return the m rows of smallest hash among distinct rows of positive weight, by hash."""
    rows = Rows.none(blocks[0].n_features)
    for block in blocks:
        row_ids = block.row_ids()
        order = np.argsort(randoms.row_hashes(key, row_ids), kind="stable")
        if block.weights.size:
            order = order[block.weights[order] > 0]
        # Duplicates can use up any number of rows, so look at more until m distinct ones are found.
        looked_at = 2 * m
        while True:
            some = Rows(row_ids[order[:looked_at]], block.rows(order[:looked_at]))
            some = merge_smallest(some, Rows.none(block.n_features), key, m)
            if len(some.row_ids) == m or looked_at >= len(order):
                break
            looked_at *= 4
        rows = merge_smallest(rows, some, key, m)
    return rows


def merge_smallest(a: Rows, b: Rows, key: int, m: int) -> Rows:
    """Return the m of smallest hash among the distinct rows of both, by hash."""
    rows = a.joined(b)
    rows = rows.taken(np.argsort(randoms.row_hashes(key, rows.row_ids), kind="stable"))
    _, first = np.unique(rows.values + 0.0, axis=0, return_index=True)  # + 0.0: -0.0 equals 0.0
    return rows.taken(np.sort(first)[:m])


@without_rows
def forget(blocks: Sequence[Block], run: str) -> int:
    """Drop what the blocks remember of a run; return how many did."""
    return passes.forget(blocks, run)
