"""Start centroids, (k, d) float64 in the prepared space, that depend on the rows and the seed alone.

random: distinct rows. k-means++: Arthur and Vassilvitskii 2007, greedy as they say in their conclusion: of several
rows drawn each time, the one that lowers the cost most. k-means||: Bahmani et al. 2012, algorithm 2, with l = 2k and 3
to 8 rounds, as long as each halves the cost; its candidates are reclustered by greedy weighted k-means++ and Lloyd.
Rows of weight zero are never seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from kmeans_dask import draws, randoms, sums
from kmeans_dask.blocks import Blocks, Floats, unused
from kmeans_dask.draws import Buckets, Known, Rows
from kmeans_dask.lloyd import Identity, Limits, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import block_of_rows
from kmeans_dask.reclustering import greedy

ROUNDS = (3, 8)  # of k-means||, at least and at most
ROUNDS_OF_SEARCH = (5, 5)  # for a start that is searched on from: the length of searches was measured so
_WORTH_A_ROUND = 0.5  # of the cost before a round, up to which another one follows
_OVERSAMPLING = 2.0
_RECLUSTER_ITERATIONS = 30
_SHIFTS = (16, 8, 0)
_FEW = 64  # ranges of row ids for which a level is not worth its pass
METHODS = ("k-means||", "k-means++", "random")


def seeds(
    blocks: Blocks, n_clusters: int, seed: int, method: str, rounds: tuple[int, int] = ROUNDS
) -> Floats:
    """Return n_clusters start centroids by one of `METHODS`; distinct rows while there are enough of them."""
    if method == "random":
        found = random_rows(blocks, n_clusters, seed)
    elif method == "k-means++":
        found = plus_plus(blocks, n_clusters, seed)
    else:
        found = parallel(blocks, n_clusters, seed, rounds)
    # With fewer distinct rows than clusters the rest repeat: they stay empty, and inertia is 0.
    return np.resize(found, (n_clusters, found.shape[1]))


def random_rows(blocks: Blocks, n_clusters: int, seed: int) -> Floats:
    """Return up to n_clusters distinct rows: those of the smallest hashes."""
    key = randoms.derived(seed, "random rows")
    merge = partial(draws.merge_smallest, key=key, m=n_clusters)
    found: Rows = blocks.map_reduce(draws.smallest, key, n_clusters, combine=merge)
    return found.values


@dataclass(slots=True)
class _Chosen:
    """The centroids chosen so far and the exact cost of all rows under them."""

    blocks: Blocks
    run: str
    known: Known

    @classmethod
    def none(cls, blocks: Blocks, run: str) -> "_Chosen":
        return cls(blocks, unused(run), Known.nothing(blocks.summary))

    def add(self, rows: Floats) -> None:
        self.known = self.known.extended(rows)

    def cost(self) -> int:
        """Return the exact cost of all rows, in units of 2**(known.cost_exponent - 95)."""
        return self.blocks.map_reduce(draws.total, self.run, self.known, combine=int.__add__)

    def draw(self, seed: int, purposes: Sequence[str]) -> Floats | None:
        """Return a row for each purpose, (m, d), drawn in proportion to its cost; None when every row costs nothing."""
        costs = _ByRanges.of(self.blocks, self.run, self.known)
        while not (total := costs.total()):
            if not self._magnified():
                return None
            costs = _ByRanges.of(self.blocks, self.run, self.known)
        return costs.at([randoms.below(total, seed, purpose) for purpose in purposes])

    def best(self, rows: Floats) -> Floats:
        """Return the row, (1, d), of some, (m, d), under which all rows would cost least; of equals the first."""
        if len(rows) == 1:
            return rows
        limbs = self.blocks.map_reduce(draws.gains, self.run, self.known, rows, combine=sums.added)
        gains = sums.integers(limbs)
        return rows[[gains.index(max(gains))]]

    def _magnified(self) -> bool:
        """Fit the exponent to the costs that are left, all too small for it; whether that shows any."""
        highest = self.blocks.map_reduce(draws.highest_cost, self.run, self.known, combine=max)
        before = self.known.exponent
        self.known = replace(self.known, exponent=sums.exponent(highest))
        return self.known.exponent < before

    def forget(self) -> None:
        self.blocks.map_reduce(draws.forget, self.run, combine=int.__add__)


@dataclass(frozen=True, slots=True, eq=False)
class _ByRanges:
    """The costs of all rows by ranges of their ids, to be looked into level by level."""

    blocks: Blocks
    asked: tuple[str, Known]
    costs: Buckets

    @classmethod
    def of(cls, blocks: Blocks, run: str, known: Known) -> "_ByRanges":
        shift = _shifts(blocks.summary.n_samples)[0]
        [costs] = blocks.map_reduce(draws.costs_within, run, known, shift, (None,), combine=draws.joined_each)
        return cls(blocks, (run, known), costs)

    def total(self) -> int:
        """Return the cost of all rows, in units of 2**(exponent - 95)."""
        return self.costs.total()

    def at(self, drawn: Sequence[int]) -> Floats:
        """Return the rows, (m, d), at which the running cost passes each of `drawn`, below the total."""
        # From ranges of row ids to ever smaller ones, and so the same rows however rows are grouped.
        running = self.costs.added_up()
        places = [running.at(some) for some in drawn]
        for larger, shift in pairwise(_shifts(self.blocks.summary.n_samples)):
            ranges = tuple((found, larger) for found, _ in places)
            each = self.blocks.map_reduce(
                draws.costs_within, *self.asked, shift, ranges, combine=draws.joined_each
            )
            places = [some.added_up().at(rest) for some, (_, rest) in zip(each, places, strict=True)]
        row_ids = [found for found, _ in places]
        rows = self.blocks.map_reduce(draws.rows_of, row_ids, combine=Rows.joined).in_order()
        return rows.taken(np.searchsorted(rows.row_ids, row_ids)).values


def _shifts(n_samples: int) -> tuple[int, ...]:
    """Return by how many bits row ids are shifted, level by level, to find a drawn row; few rows need few levels."""
    return tuple(shift for shift in _SHIFTS if n_samples >> shift >= _FEW or shift == 0)


def plus_plus(blocks: Blocks, n_clusters: int, seed: int, n_draws: int | None = None) -> Floats:
    """Return up to n_clusters rows, each drawn in proportion to its weighted squared distance to those before.

    n_draws: how many are drawn each time after the first, of which the best is kept; see `_draws_for`.
    """
    chosen = _Chosen.none(blocks, "plus-plus")
    _continue(chosen, n_clusters, seed, n_draws or _draws_for(n_clusters))
    chosen.forget()
    return chosen.known.centroids


def _draws_for(n_clusters: int) -> int:
    """Return how many rows greedy k-means++ draws each time, as its authors did."""
    return 2 + int(math.log(n_clusters))


def _continue(chosen: _Chosen, n_clusters: int, seed: int, n_draws: int = 1) -> None:
    while (n := len(chosen.known.centroids)) < n_clusters:
        rows = chosen.draw(seed, draws.purposes(n, n_draws))
        if rows is None:
            return
        chosen.add(chosen.best(rows))


def parallel(blocks: Blocks, n_clusters: int, seed: int, rounds: tuple[int, int] = ROUNDS) -> Floats:
    """Return n_clusters centroids by k-means||: few passes, each drawing about oversampling * n_clusters rows."""
    chosen = _Chosen.none(blocks, "parallel")
    pool = _candidates(chosen, n_clusters, seed, rounds)
    if len(pool.rows) > n_clusters:
        chosen.forget()
        return pool.ordered(n_clusters, seed).start(n_clusters)
    chosen.known = Known.nothing(blocks.summary).extended(pool.rows)
    _continue(chosen, n_clusters, seed)
    chosen.forget()
    return chosen.known.centroids


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Rows drawn once, (m, d), for starts of any smaller number of clusters: by weights, (m,), or in their order.

    order: of weighted rows, those that k-means++ takes, in its order; the first k are a start for k.
    """

    rows: Floats
    weights: Floats | None
    order: Floats | None = None

    def ordered(self, n_clusters: int, seed: int) -> "Pool":
        """Return this pool of weighted rows with its order, for up to n_clusters."""
        if self.weights is None:
            return self
        own_seed = randoms.derived(seed, "recluster")
        block = block_of_rows(self.rows, self.weights)
        return replace(self, order=greedy(block, n_clusters, own_seed, _draws_for(n_clusters)))

    def start(self, n_clusters: int) -> Floats:
        """Return n_clusters start centroids; the pool holds more rows than that, or those there are, in order."""
        if self.weights is None or self.order is None:
            return _first(self.rows, n_clusters)
        with LocalBlocks([block_of_rows(self.rows, self.weights)], n_threads=1) as blocks:
            start = _first(self.order, n_clusters)
            return lloyd(blocks, start, Limits(_RECLUSTER_ITERATIONS), Identity()).centroids

    def serves(self, n_clusters: int) -> bool:
        """Whether `start` gives this many."""
        return self.weights is None or len(self.rows) > n_clusters


def pool(blocks: Blocks, n_clusters: int, seed: int, method: str) -> Pool:
    """Return what starts of up to n_clusters can be taken from, by one of `METHODS`."""
    if method == "random":
        return Pool(random_rows(blocks, n_clusters, seed), None)
    if method == "k-means++":
        return Pool(plus_plus(blocks, n_clusters, seed), None)
    chosen = _Chosen.none(blocks, "pool")
    found = _candidates(chosen, n_clusters, seed, ROUNDS)
    chosen.forget()
    return found.ordered(n_clusters, seed)


def _first(rows: Floats, n: int) -> Floats:
    """Return the first n rows, (n, d), repeated where there are fewer."""
    return np.resize(rows[:n], (n, rows.shape[1]))


def _candidates(chosen: _Chosen, n_clusters: int, seed: int, rounds: tuple[int, int]) -> Pool:
    """Draw k-means||'s candidates, weighted by the rows nearest to each, by row id."""
    blocks = chosen.blocks
    _continue(chosen, 1, seed)
    row_ids = np.full(len(chosen.known.centroids), -1, np.int64)  # the first row comes first
    n_drawn, before = _OVERSAMPLING * n_clusters, math.inf
    least, most = rounds
    for r in range(most):
        phi = sums.value(chosen.cost(), chosen.known.exponent, sums.SQUARE_BITS)
        if phi == 0 or (r >= least and phi > _WORTH_A_ROUND * before):
            break
        key, before = randoms.derived(seed, "parallel", r), phi
        rows = blocks.map_reduce(
            draws.sample, chosen.run, chosen.known, key, n_drawn, phi, combine=Rows.joined
        ).in_order()
        if len(rows.row_ids):
            chosen.add(rows.values)
            row_ids = np.concatenate((row_ids, rows.row_ids))
    weights = _weights(chosen)
    order = np.argsort(row_ids, kind="stable")
    order = order[weights[order] > 0]  # of equal rows, all but the first have none
    return Pool(chosen.known.centroids[order], weights[order])


def _weights(chosen: _Chosen) -> Floats:
    """Return the weight of the rows nearest to each choice, (m,)."""
    limbs = chosen.blocks.map_reduce(draws.weights_of, chosen.run, chosen.known, combine=sums.added)
    return np.array([sums.value(total, chosen.known.weight_exponent) for total in sums.integers(limbs)])
