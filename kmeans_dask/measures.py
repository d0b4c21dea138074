"""What scores ask of a run of blocks: exact sums by cluster, and distances counted by their bits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, passes, score_kernels, sums
from kmeans_dask.blocks import Block, Floats, Labels
from kmeans_dask.passes import Exponents
from kmeans_dask.sums import Limbs

BITS = 32
COARSE_BITS = 15  # left out of a float32's bits by the first count: 256 bins to an octave
_COARSE = np.uint64(COARSE_BITS)
_SLICE_ROWS = 2**16
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How often each key occurs: sorted keys (m,) uint64, a cluster's number and then 32 bits; counts (m,)."""

    keys: Keys
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, keys: Keys) -> "Counts":
        """Count keys, (n,)."""
        found, counts = np.unique(keys, return_counts=True)
        return cls(found, counts.astype(np.int64))

    def added(self, other: "Counts") -> "Counts":
        """Return the counts of both."""
        keys, where = np.unique(np.concatenate((self.keys, other.keys)), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where, np.concatenate((self.counts, other.counts)))
        return Counts(keys, counts)


def no_counts() -> Counts:
    """Return counts of nothing."""
    return Counts(np.empty(0, np.uint64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Which rows belong together, by their nearest centroid, (k, d), and how much they weigh and add up to."""

    rows: npt.NDArray[np.int64]  # (k,)
    weight: Limbs  # (3, k)
    sums: Limbs  # (3, d, k) of weight * x
    sq_distances: Limbs  # (3, k) of weight * squared distance
    inertia: int
    bins: Counts  # of distances, by the upper bits of a float32

    def combined(self, other: "Groups") -> "Groups":
        """Return the groups of both sets of rows."""
        return Groups(
            self.rows + other.rows,
            sums.added(self.weight, other.weight),
            sums.added(self.sums, other.sums),
            sums.added(self.sq_distances, other.sq_distances),
            self.inertia + other.inertia,
            self.bins.added(other.bins),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What `spreads` is told: centroids and means, (k, d), which clusters have weight, (k,), bins to look into."""

    centroids: Floats
    means: Floats
    filled: npt.NDArray[np.bool_]
    bins: Keys
    reach: int  # exponent of weight * distance
    sq_reach: int  # and of weight * squared distance, to means
    heaviest: int  # and of weight


@dataclass(frozen=True, slots=True, eq=False)
class Spreads:
    """How far rows lie from their cluster's mean, and how far nearer to its centroid than to any other; (3, k) each."""

    distances: Limbs  # of weight * distance to the mean
    sq_distances: Limbs  # of weight * squared distance to the mean
    silhouettes: Limbs  # of weight * simplified silhouette
    distances_in_bins: Counts  # by all bits of a float32

    def combined(self, other: "Spreads") -> "Spreads":
        """Return the spreads of both sets of rows."""
        return Spreads(
            sums.added(self.distances, other.distances),
            sums.added(self.sq_distances, other.sq_distances),
            sums.added(self.silhouettes, other.silhouettes),
            self.distances_in_bins.added(other.distances_in_bins),
        )


def groups(blocks: Sequence[Block], centroids: Floats, scales: Exponents) -> Groups:
    """Return the groups of a run of blocks."""
    k, d = centroids.shape
    scan = passes.scan_of(centroids, blocks[0].tiles.dtype)
    factors = np.array([sums.scale(e) for e in scales.columns.tolist()])
    inertia_factor = sums.scale(scales.inertia)
    rows, inertia, bins = np.zeros(k, np.int64), 0, no_counts()
    added = np.zeros((2, d, k), np.int64)
    weight, sq = _Sums(k, scales.weight), _Sums(k, scales.inertia)
    for block in blocks:
        labels = passes.labels_of(block, centroids, scan)
        sq_distances = passes.sq_distances_of(block, centroids, labels)
        kernels.count_rows(labels, rows)
        kernels.add_rows(block.tiles, block.n_rows, labels, block.weights, factors, added[0], added[1])
        inertia += sums.joined(*kernels.total_of(sq_distances, block.weights, inertia_factor))
        for rows_here in _slices(block.n_rows):
            some, near = labels[rows_here], sq_distances[rows_here]
            heavy = block.weights[rows_here]
            weight.add(np.ones(len(some)), some, heavy)
            sq.add(near, some, heavy)
            bins = bins.added(Counts.of(_keys(some, near) >> _COARSE))
    return Groups(rows, weight.limbs, sums.normalised(*added), sq.limbs, inertia, bins)


def spreads(blocks: Sequence[Block], asked: Asked) -> Spreads:
    """Return the spreads of a run of blocks."""
    k = len(asked.centroids)
    scan = passes.scan_of(asked.centroids, blocks[0].tiles.dtype)
    columns = np.ascontiguousarray(asked.centroids.T)
    near, sq = _Sums(k, asked.reach), _Sums(k, asked.sq_reach)
    silhouettes, found = _Sums(k, asked.heaviest), no_counts()
    for block in blocks:
        labels = passes.labels_of(block, asked.centroids, scan)
        sq_distances = passes.sq_distances_of(block, asked.centroids, labels)
        others = np.empty(block.n_rows)
        score_kernels.nearest_others(block.tiles, block.n_rows, columns, labels, asked.filled, others)
        in_bins = []
        for rows in _slices(block.n_rows):
            silhouettes.add(_silhouettes(sq_distances[rows], others[rows]), labels[rows], block.weights[rows])
            keys = _keys(labels[rows], sq_distances[rows])
            in_bins.append(keys[np.isin(keys >> _COARSE, asked.bins)])
        del sq_distances, others
        found = found.added(Counts.of(np.concatenate(in_bins)) if in_bins else no_counts())
        to_means = passes.sq_distances_of(block, asked.means, labels)
        for rows in _slices(block.n_rows):
            near.add(np.sqrt(to_means[rows]), labels[rows], block.weights[rows])
            sq.add(to_means[rows], labels[rows], block.weights[rows])
    return Spreads(near.limbs, sq.limbs, silhouettes.limbs, found)


def _slices(n_rows: int) -> Iterator[slice]:
    """Yield runs of rows: what is made of them takes no memory by the block."""
    return (slice(first, min(first + _SLICE_ROWS, n_rows)) for first in range(0, n_rows, _SLICE_ROWS))


def _silhouettes(sq_distances: Floats, others: Floats) -> Floats:
    """Return (b - a) / b, a the distance to the own centroid and b to the nearest other; 0 where both are 0."""
    a, b = np.sqrt(sq_distances), np.sqrt(others)
    some = (b > 0) & np.isfinite(b)
    found: Floats = np.divide(b - a, b, out=np.zeros_like(a), where=some)
    return found


def _keys(labels: Labels, sq_distances: Floats) -> Keys:
    """Return each row's label and the bits of its distance as float32, which are in the order of their values."""
    bits = np.sqrt(sq_distances).astype(np.float32).view(np.uint32)
    return (labels.astype(np.uint64) << np.uint64(BITS)) | bits


class _Sums:
    """Exact sums of weight * value by label."""

    def __init__(self, k: int, exponent: int) -> None:
        self._factor = sums.scale(exponent)
        self._high, self._low = np.zeros((2, k), np.int64)

    def add(self, values: Floats, labels: Labels, weights: Floats) -> None:
        weighted = values * weights if weights.size else values
        kernels.add_values(weighted, labels, self._factor, self._high, self._low)

    @property
    def limbs(self) -> Limbs:
        return sums.normalised(self._high, self._low)
