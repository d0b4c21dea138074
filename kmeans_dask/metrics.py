"""How well centroids describe rows: scores of all rows, in two passes.

Everything is measured in the prepared space, where the rows were clustered, and every sum is exact: the same bits on
any number of blocks, threads and workers. Rows count by their weights, except in sizes and quantiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from kmeans_dask import measures, passes, sums
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.errors import ConfigError
from kmeans_dask.measures import BITS, COARSE_BITS, Asked, Counts, Groups, Keys, Spreads
from kmeans_dask.passes import Exponents
from kmeans_dask.sums import Limbs

QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Scores of k centroids; None where a score is not defined, as for a single cluster.

    simplified_silhouette: mean of (b - a) / max(a, b), a and b the distances to the nearest centroid and to the next
    one (Hruschka, de Castro and Campello 2004); 0 for a row alone in its cluster. davies_bouldin, calinski_harabasz:
    about the clusters' means, as scikit-learn defines them. Centroids without rows count in none of these.
    spreads: root mean square distance to the centroid. distance_quantiles: (k, q), the smallest distance, as float32,
    within which a share quantiles[q] of the cluster's rows lies. NaN for a cluster without rows.
    """

    sizes: npt.NDArray[np.int64]  # (k,)
    weights: Floats  # (k,)
    spreads: Floats  # (k,)
    silhouettes: Floats  # (k,) simplified
    quantiles: tuple[float, ...]
    distance_quantiles: Floats
    inertia: float
    distortion: float
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None


def metrics(blocks: Blocks, centroids: Floats, quantiles: Sequence[float] = QUANTILES) -> Metrics:
    """Return the scores of centroids, (k, d) float64 in the prepared space, on all rows."""
    if not all(0 <= q <= 1 for q in quantiles):
        raise ConfigError(f"quantiles must lie in [0, 1]; found {list(quantiles)}.")
    scales = passes.exponents(blocks.summary, centroids)
    groups = blocks.map_reduce(measures.groups, centroids, scales, combine=Groups.combined)
    wanted = [_ranked(groups.bins, rank, BITS - COARSE_BITS) for rank in _ranks(groups.rows, quantiles)]
    asked = _asked(blocks, centroids, groups, scales, np.unique([key for key, _ in wanted]).astype(np.uint64))
    spreads = blocks.map_reduce(measures.spreads, asked, combine=Spreads.combined)
    distances = [_within(spreads.distances_in_bins, key, rank) for key, rank in wanted]
    return _Found(groups, spreads, scales, asked).metrics(tuple(quantiles), distances)


@dataclass(frozen=True, slots=True)
class _Rank:
    """The n-th nearest row of a cluster, from 1; 0 when it has none."""

    cluster: int
    n: int


def _ranks(rows: npt.NDArray[np.int64], quantiles: Sequence[float]) -> list[_Rank]:
    shares = [Fraction(q).limit_denominator(10**6) for q in quantiles]
    return [
        _Rank(j, min(n, max(1, math.ceil(share * n))))
        for j, n in enumerate(rows.tolist())
        for share in shares
    ]


def _ranked(bins: Counts, rank: _Rank, bits: int) -> tuple[int, int]:
    """Return the bin in which a rank lies, and the rank within it."""
    first, stop = np.searchsorted(bins.keys, [np.uint64(j << bits) for j in (rank.cluster, rank.cluster + 1)])
    running = np.cumsum(bins.counts[first:stop])
    if rank.n == 0:
        return 0, 0
    at = int(np.searchsorted(running, rank.n))
    below = int(running[at - 1]) if at else 0
    return int(bins.keys[first + at]), rank.n - below


def _within(distances: Counts, key: int, n: int) -> float:
    """Return the n-th smallest distance of a bin; NaN for none."""
    if n == 0:
        return math.nan
    first, stop = np.searchsorted(distances.keys, [np.uint64(i << COARSE_BITS) for i in (key, key + 1)])
    at = int(np.searchsorted(np.cumsum(distances.counts[first:stop]), n))
    return float((distances.keys[first + at] & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32))


def _asked(blocks: Blocks, centroids: Floats, groups: Groups, scales: Exponents, bins: Keys) -> Asked:
    means = _means(groups, scales, centroids)
    sq_reach = passes.exponents(blocks.summary, means).inertia
    heaviest = blocks.summary.highest_weight
    farthest = 2.0 * math.sqrt(math.ldexp(1.0, sq_reach - 2) / heaviest) if heaviest else 0.0
    reach = sums.exponent(farthest * heaviest)
    filled = np.array([weight > 0 for weight in sums.integers(groups.weight)])
    return Asked(centroids, means, filled, bins, reach, sq_reach, scales.weight)


def _means(groups: Groups, scales: Exponents, centroids: Floats) -> Floats:
    """Return each cluster's mean, correctly rounded; a cluster without weight keeps its centroid."""
    k, d = centroids.shape
    weights, totals = sums.integers(groups.weight), sums.integers(groups.sums.reshape(3, -1))
    means = centroids.copy()
    for j in (j for j in range(k) if weights[j]):
        for f in range(d):
            means[j, f] = sums.ratio(
                totals[f * k + j], int(scales.columns[f]) - 63, weights[j], scales.weight - 63
            )
    return means


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What the two passes found."""

    groups: Groups
    spreads: Spreads
    scales: Exponents
    asked: Asked

    def metrics(self, quantiles: tuple[float, ...], distances: list[float]) -> Metrics:
        weights = _values(self.groups.weight, self.scales.weight)
        inertia = sums.value(self.groups.inertia, self.scales.inertia, sums.SQUARE_BITS)
        silhouettes = _over(_values(self.spreads.silhouettes, self.asked.heaviest), weights)
        silhouettes[self.groups.rows == 1] = 0.0
        total = math.fsum(weights)
        filled = np.flatnonzero(weights > 0)
        several = len(filled) > 1
        return Metrics(
            sizes=self.groups.rows,
            weights=weights,
            spreads=np.sqrt(_over(_values(self.groups.sq_distances, self.scales.inertia), weights)),
            silhouettes=silhouettes,
            quantiles=quantiles,
            distance_quantiles=np.array(distances).reshape(len(weights), len(quantiles)),
            inertia=inertia,
            distortion=inertia / total if total else 0.0,
            simplified_silhouette=_mean(silhouettes[filled], weights[filled]) if several else None,
            davies_bouldin=self.davies_bouldin(filled, weights) if several else None,
            calinski_harabasz=self.calinski_harabasz(filled, weights) if several else None,
        )

    def davies_bouldin(self, filled: npt.NDArray[np.intp], weights: Floats) -> float:
        """Return the mean over the clusters of the worst ratio of two clusters' mean distances to their distance."""
        means = self.asked.means[filled]
        near = _over(_values(self.spreads.distances, self.asked.reach), weights)[filled]
        worst = []
        for i in range(len(filled)):
            difference = means - means[i]
            apart = np.sqrt(np.cumsum(difference * difference, axis=1)[:, -1])
            ratios = np.divide(near + near[i], apart, out=np.zeros_like(apart), where=apart > 0)
            worst.append(float(ratios.max()))
        return math.fsum(worst) / len(worst)

    def calinski_harabasz(self, filled: npt.NDArray[np.intp], weights: Floats) -> float | None:
        """Return the ratio of the variance between the clusters to that within; None unless weights exceed clusters."""
        within = math.fsum(_values(self.spreads.sq_distances, self.asked.sq_reach))
        total = math.fsum(weights)
        if total <= len(filled):
            return None
        if within == 0:
            return 1.0
        difference = self.asked.means[filled] - self.overall_mean()
        between = math.fsum((weights[filled] * np.cumsum(difference * difference, axis=1)[:, -1]).tolist())
        return between * (total - len(filled)) / (within * (len(filled) - 1))

    def overall_mean(self) -> Floats:
        """Return the mean of all rows, (d,)."""
        weight = sum(sums.integers(self.groups.weight))
        totals = [sum(sums.integers(column)) for column in self.groups.sums.transpose(1, 0, 2)]
        shifts = zip(totals, self.scales.columns.tolist(), strict=True)
        return np.array([sums.ratio(t, e - 63, weight, self.scales.weight - 63) for t, e in shifts])


def _values(limbs: Limbs, exponent: int) -> Floats:
    return np.array([sums.value(total, exponent) for total in sums.integers(limbs)])


def _over(totals: Floats, weights: Floats) -> Floats:
    found: Floats = np.divide(totals, weights, out=np.full_like(totals, np.nan), where=weights > 0)
    return found


def _mean(values: Floats, weights: Floats) -> float:
    return math.fsum((values * weights).tolist()) / math.fsum(weights.tolist())
