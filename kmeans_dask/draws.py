"""What seeding asks of a run of blocks: squared distances to the centroids chosen so far, and rows drawn by them.

Each block remembers, per run, its rows' squared distances and nearest choices under a name for the choices; what it
has lost it computes again, to the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kmeans_dask import closer, draw_kernels, gain_kernels, kernels, passes, randoms, sums
from kmeans_dask.blocks import Block, Floats, Labels, Offsets, Summary, without_rows
from kmeans_dask.sums import Limbs


@dataclass(frozen=True, slots=True)
class Known:
    """Chosen centroids (m, d), names of those that the last pass knew and of all, and exponents of the exact sums."""

    centroids: Floats
    names: tuple[str, str]
    exponent: int  # of weight * squared distance to the nearest of them
    weight_exponent: int

    @classmethod
    def nothing(cls, summary: Summary) -> "Known":
        """Return no choices yet: every row then costs its weight."""
        spread = summary.highest - summary.lowest
        farthest = float(np.cumsum(spread * spread)[-1]) * (1 + 2.0**-20)
        heaviest = summary.highest_weight
        return cls(
            np.empty((0, len(spread))), ("", ""), sums.exponent(farthest * heaviest), sums.exponent(heaviest)
        )

    @property
    def cost_exponent(self) -> int:
        """The exponent of the costs under these choices."""
        return self.exponent if len(self.centroids) else self.weight_exponent

    def extended(self, rows: Floats) -> "Known":
        """Return these choices and the rows, (m, d)."""
        names = self.names[1], passes.digest(rows, self.names[1])
        return replace(self, centroids=np.concatenate((self.centroids, rows)), names=names)


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
        if not len(self.ids):
            return other
        ids, where = np.unique(np.concatenate((self.ids, other.ids)), return_inverse=True)
        limbs = np.zeros((3, len(ids)), np.int64)
        for some, at in ((self, where[: len(self.ids)]), (other, where[len(self.ids) :])):
            limbs[:, at] = limbs[:, at] + some.limbs
        return Buckets(ids, limbs)

    def total(self) -> int:
        """Return the cost of all ranges, in units of 2**(exponent - 95)."""
        return sums.joined(*self.limbs.sum(axis=1).tolist())

    def added_up(self) -> "Running":
        """Return the cost of each range and all before it."""
        limbs = np.cumsum(self.limbs, axis=1)
        limbs[1] += limbs[2] >> 32
        limbs[0] += limbs[1] >> 32
        limbs[1:] &= 0xFFFFFFFF
        return Running(self.ids, limbs)

    def totals(self) -> list[int]:
        """Return the cost of each range, in units of 2**(exponent - 95)."""
        high, middle, low = (part.tolist() for part in self.limbs)
        return [sums.joined(h, m, x) for h, m, x in zip(high, middle, low, strict=True)]


class Running(NamedTuple):
    """Integer costs of ranges of row ids and all before them: ids (m,) ascending, limbs (3, m), the lower two whole."""

    ids: npt.NDArray[np.int64]
    limbs: Limbs

    def at(self, drawn: int) -> tuple[int, int]:
        """Return the range in which the running cost passes `drawn`, below the total, and what is left there."""
        first, last = 0, len(self.ids)
        for limb, part in zip(self.limbs, sums.parted(drawn), strict=True):
            some = limb[first:last]
            first, last = first + some.searchsorted(part), first + some.searchsorted(part, side="right")
        before = sums.joined(*self.limbs[:, last - 1].tolist()) if last else 0
        return int(self.ids[last]), drawn - before


def purposes(n_taken: int, n_draws: int) -> list[str]:
    """Return what the numbers are named that k-means++ draws after some rows; the first row is drawn once."""
    others = [f"plus plus {n_taken} draw {i}" for i in range(1, n_draws)] if n_taken else []
    return [f"plus plus {n_taken}", *others]


def nearest(block: Block, run: str, known: Known) -> tuple[Floats, Labels]:
    """Return each packed row's squared distance to its nearest choice and that choice's index; 1 and -1 with none.

    Both are valid until the next choices of this run are asked for.
    """
    if not len(known.centroids):
        return np.ones(block.n_rows), np.full(block.n_rows, -1, np.int32)
    state = _state(block, run, known)
    return state.sq_distances, state.labels


def _state(block: Block, run: str, known: Known) -> "_State":
    """Return what `nearest` remembers, brought up to these choices."""
    name = known.names[1]
    # Put back when whole, so a failed call leaves nothing half-changed.
    state: _State | None = block.cache.pop(run, None)
    if state is None or state.name not in known.names:
        state = _State.none(block)
    if state.name != name:
        new = known.centroids[state.n_known :]
        closer.take_closest(
            block.tiles, block.n_rows, passes.balls_of(block), passes.scan_of(new, block.tiles.dtype),
            known.centroids, state.n_known, (state.labels, state.sq_distances, state.farthest),
        )  # fmt: skip
        state.name, state.n_known = name, len(known.centroids)
    block.cache[run] = state
    return state


@dataclass(slots=True)
class _State:
    """What a block remembers of a run: the choices' name and number, and each row's nearest of them."""

    name: str
    n_known: int
    labels: Labels
    sq_distances: Floats
    farthest: Floats  # of each tile

    @classmethod
    def none(cls, block: Block) -> "_State":
        return cls(
            "",
            0,
            np.full(block.n_rows, -1, np.int32),
            np.full(block.n_rows, np.inf),
            np.full(len(block.tiles), np.inf),
        )


def total(blocks: Sequence[Block], run: str, known: Known) -> int:
    """Return the cost of all rows, in units of 2**(known.cost_exponent - 95)."""
    factor = sums.scale(known.cost_exponent)
    return sum(
        sums.joined(*kernels.total_of(nearest(block, run, known)[0], block.weights, factor))
        for block in blocks
    )


def costs(
    blocks: Sequence[Block], run: str, known: Known, shift: int, within: tuple[int, int] | None = None
) -> Buckets:
    """Return the costs of rows by row id >> shift; within: only of the rows of one such range of a larger shift."""
    found = Buckets(np.empty(0, np.int64), np.empty((3, 0), np.int64))
    for block in blocks:
        start, stop = block.first_row, block.first_row + block.n_source_rows
        if within is not None:
            start, stop = max(start, within[0] << within[1]), min(stop, (within[0] + 1) << within[1])
        if start < stop:
            sq_distances, _ = nearest(block, run, known)
            limbs = np.zeros((4, (stop - 1 >> shift) - (start >> shift) + 1), np.int64)
            factor = sums.scale(known.cost_exponent)
            draw_kernels.add_costs(
                sq_distances, block.weights, factor, _where(block), (start, stop, shift), limbs
            )
            limbs[1] += limbs[2] >> 32
            limbs[0] += limbs[1] >> 32
            limbs[1:3] &= 0xFFFFFFFF
            held = np.flatnonzero(limbs[3])
            found = found.joined(Buckets(held + (start >> shift), limbs[:3, held]))
    return found


def costs_within(
    blocks: Sequence[Block], run: str, known: Known, shift: int, ranges: Sequence[tuple[int, int] | None]
) -> list[Buckets]:
    """Return the costs of the rows of each range, (id, its shift), or of all."""
    return [costs(blocks, run, known, shift, within) for within in ranges]


def joined_each(some: list[Buckets], others: list[Buckets]) -> list[Buckets]:
    """Return the costs of both sets of rows, range by range."""
    return [a.joined(b) for a, b in zip(some, others, strict=True)]


def gains(blocks: Sequence[Block], run: str, known: Known, choices: Floats) -> Limbs:
    """Return by how much each of the choices, (m, d), would lower the cost of all rows, (3, m) limbs."""
    limbs = np.zeros((3, len(choices)), np.int64)
    for block in blocks:
        state = _state(block, run, known)
        gain_kernels.add_gains(
            block.tiles, block.n_rows, passes.balls_of(block), passes.scan_of(choices, block.tiles.dtype), choices,
            block.weights, sums.scale(known.cost_exponent), (state.sq_distances, state.farthest), limbs,
        )  # fmt: skip
    return sums.added(limbs, np.zeros_like(limbs))


def _where(block: Block) -> tuple[Offsets, int]:
    """Return what tells the kernels of draws the row ids."""
    return np.empty(0, np.uint32) if block.kept is None else block.kept, block.first_row


def rows_of(blocks: Sequence[Block], row_ids: Sequence[int]) -> Rows:
    """Return the rows of these ids that lie here."""
    rows = Rows.none(blocks[0].n_features)
    for block in blocks:
        if any(block.first_row <= i < block.first_row + block.n_source_rows for i in row_ids):
            held = block.row_ids()
            at = np.flatnonzero(np.isin(held, row_ids))
            rows = rows.joined(Rows(held[at], block.rows(at)))
    return rows


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
        drawn = np.empty(block.n_rows, np.int64)
        where = _where(block)
        found = drawn[
            : draw_kernels.draw_rows(sq_distances, block.weights, where, np.uint64(key), n, cost, drawn)
        ]
        row_ids = found if block.kept is None else block.kept[found].astype(np.int64)
        rows = rows.joined(Rows(row_ids + block.first_row, block.rows(found)))
    return rows


def weights_of(blocks: Sequence[Block], run: str, known: Known) -> Limbs:
    """Return the weight of the rows nearest to each choice, (3, m) limbs."""
    counts, high, low = np.zeros((3, len(known.centroids)), np.int64)
    factor = sums.scale(known.weight_exponent)
    for block in blocks:
        _, labels = nearest(block, run, known)
        if block.weights.size:
            kernels.add_values(block.weights, labels, factor, high, low)
        else:
            kernels.count_rows(labels, counts)
    one_high, one_low = np.zeros((2, 1), np.int64)
    kernels.add_values(np.ones(1), np.zeros(1, np.int32), factor, one_high, one_low)
    return sums.normalised(high + counts * one_high, low + counts * one_low)


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
