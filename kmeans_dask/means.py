"""What the exact sums of a pass say: centroids at the means of their rows, inertia, weight."""

from functools import partial

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, sums
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.farthest import Candidate, farthest, farthest_rows
from kmeans_dask.passes import Exponents, Partials

_SMALLEST = -960
CANCELLED = 2.0**-24  # of what rows hold in all: an inertia below has lost too many digits as a difference


def inertia_of(partials: Partials, scales: Exponents) -> float:
    """Return the weighted sum of squared distances, correctly rounded."""
    return sums.value(partials.inertia, scales.inertia, sums.SQUARE_BITS)


def total_weight(partials: Partials, scales: Exponents) -> float:
    """Return the weight of all rows."""
    if partials.weight.shape[1] == 0:
        return float(partials.rows.sum())
    return sums.value(sum(sums.integers(partials.weight)), scales.weight)


def updated(
    blocks: Blocks, centroids: Floats, partials: Partials, scales: Exponents, frozen: tuple[int, ...] = (),
    last: Partials | None = None, of: tuple[str, str] | None = None,
) -> Floats:  # fmt: skip
    """Return each cluster's mean; an empty cluster takes a farthest row, or keeps its centroid if none is left.

    An empty cluster among the frozen takes none. last: what the centroids were updated from, if they are its result.
    of: the run that made the partials, and the name of the centroids: see `farthest_rows`.
    """
    weighted = partials.weight.shape[1] > 0
    few_rows = bool(partials.rows.sum() < 2**31)  # so that the upper limbs of their sums fit into 64 bits
    by_kernel = few_rows and not weighted
    divisors, shifts = _divisors(partials.weight, scales)
    # A mean that is not 0 is 2**(units - shifts - 31) or more: above the smallest normal number.
    is_normal = weighted and scales.columns.min() - sums.BITS - shifts.max() > _SMALLEST
    if few_rows and is_normal and divisors.min() > 0:
        wanted = np.ones(len(centroids), np.bool_)
        return _means(centroids, partials, scales, wanted, None, (divisors, shifts))
    if by_kernel and partials.rows.min() > 0:
        return _means(centroids, partials, scales, np.ones(len(centroids), np.bool_), last)
    weightless: npt.NDArray[np.bool_] = np.logical_not(
        partials.weight.any(axis=0) if weighted else partials.rows
    )
    empty = [j for j in np.flatnonzero(weightless).tolist() if j not in frozen]
    totals = None if by_kernel and not empty else _Totals(partials, scales)
    if totals and empty:
        m = len(empty) + len(centroids)  # some may be the only row of their cluster and cannot be taken
        rows = blocks.map_reduce(farthest_rows, centroids, m, of, combine=partial(farthest, m=m))
        totals.refill(empty, rows)
    means = centroids.copy()
    if totals:
        for j in totals.sums if by_kernel else range(len(centroids)):
            means[j] = totals.mean(j, centroids[j])
    if by_kernel:
        wanted = ~weightless
        wanted[list(totals.sums) if totals else []] = False
        return _means(means, partials, scales, wanted, last)
    return means


def _means(
    centroids: Floats, partials: Partials, scales: Exponents, wanted: npt.NDArray[np.bool_], last: Partials | None,
    weights: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
) -> Floats:  # fmt: skip
    """Return centroids, (k, d), those wanted moved to the means of their rows; weights: of `_divisors`."""
    means = centroids.copy()
    before = (partials.sums[:, :, :0], partials.rows[:0])
    if last is not None and last.rows.min() > 0:
        before = (last.sums, last.rows)
    divisors, shifts = weights or (partials.rows, np.zeros_like(partials.rows))
    kernels.means_of(partials.sums, divisors, before, scales.columns - sums.BITS, shifts, wanted, means)
    return means


def _divisors(weight: sums.Limbs, scales: Exponents) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each weight as divisor * 2**shift, (k,) each; a divisor of 0 where it is 0, or more than 31 bits long.

    Weights that are counts, as those of k-means||'s candidates, have few bits.
    """
    divisors, shifts = [], []
    for total in sums.integers(weight):
        n_zeros = (total & -total).bit_length() - 1 if total else 0
        divisors.append(total >> n_zeros if total < 1 << n_zeros + 31 else 0)
        shifts.append(n_zeros + scales.weight - sums.BITS)
    return np.array(divisors, np.int64), np.array(shifts, np.int64)


class _Totals:
    """Exact integers per cluster: weights[j] in 2**weight_shift and, once asked for, sums[j][f] in 2**shifts[f]."""

    def __init__(self, partials: Partials, scales: Exponents) -> None:
        weighted = partials.weight.shape[1] > 0
        self.partials = partials
        self.weights = sums.integers(partials.weight) if weighted else partials.rows.tolist()
        self.weight_shift = scales.weight - sums.BITS if weighted else 0
        self.shifts = (scales.columns - sums.BITS).tolist()
        self.sums: dict[int, list[int]] = {}

    def refill(self, empty: list[int], candidates: list[Candidate]) -> None:
        """Move one row to each empty cluster, the farthest to the lowest; no cluster gives all its weight."""
        remaining = iter(candidates)
        for j in empty:
            row = next((c for c in remaining if self.weights[c.label] > self._weight(c)), None)
            if row is None:
                return
            self._move(row, j)

    def _sums(self, j: int) -> list[int]:
        if j not in self.sums:
            self.sums[j] = sums.integers(self.partials.sums[:, :, j])
        return self.sums[j]

    def _weight(self, row: Candidate) -> int:
        return _truncated(row.weight, self.weight_shift)

    def _move(self, row: Candidate, target: int) -> None:
        addends = [
            _truncated(row.weight * x, shift) for x, shift in zip(row.row.tolist(), self.shifts, strict=True)
        ]
        self.sums[row.label] = [a - b for a, b in zip(self._sums(row.label), addends, strict=True)]
        self.sums[target] = addends
        self.weights[row.label] -= self._weight(row)
        self.weights[target] = self._weight(row)

    def mean(self, j: int, centroid: Floats) -> Floats:
        """Return a cluster's correctly rounded mean, (d,); without weight it keeps its centroid."""
        if not self.weights[j]:
            return centroid
        each = zip(self._sums(j), self.shifts, strict=True)
        return np.array(
            [sums.ratio(total, shift, self.weights[j], self.weight_shift) for total, shift in each]
        )


def _truncated(x: float, shift: int) -> int:
    """Return the integer limb sum of one addend, as the kernels make it."""
    numerator, denominator = x.as_integer_ratio()
    scaled = (
        (abs(numerator) << -shift) // denominator if shift < 0 else abs(numerator) // (denominator << shift)
    )
    return scaled if x >= 0 else -scaled
