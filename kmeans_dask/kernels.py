"""The compiled loops over tiles: nearest centroids, exact sums, canonical distances.

Tiles are (n_tiles, d4, 128), feature-major: the vector lanes are rows, d4 is the number of features rounded up to 4.
Rows from n_rows on are padding: never counted, summed or returned. `centroids` are (k, d) float64.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

TILE = 128
_SECOND, _LABEL = 5 * TILE, 6 * TILE
_BEST = 4 * TILE
WORK = 7 * TILE
_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(**options: object) -> Callable[[_F], _F]:
    """Return numba's decorator for a kernel that releases the GIL and is cached on disk."""
    decorator: Any = numba.njit
    return cast("Callable[[_F], _F]", decorator(nogil=True, cache=True, error_model="numpy", **options))


# The scan only proposes: whatever its rounding, `settle` decides what it leaves open. So the compiler may fuse
# multiply-adds here, and nowhere else. One flat work array with constant offsets lets it vectorise without checks
# for overlap: four scores of each row, then its best, second best and label.
@compiled(fastmath={"contract"})
def scan_tile(tile, negative, squares, work):  # type: ignore[no-untyped-def]
    """Find each row's best and second best centroid up to rounding.

    tile (d4 * 128,), negative (k4, d4) = -2 * centroid, squares (k4,) = |centroid|^2, infinite for padding: in;
    work (7 * 128,): out. The score |c|^2 - 2 x.c is the squared distance less |x|^2.
    """
    for r in range(TILE):
        work[_BEST + r] = np.inf
        work[_SECOND + r] = np.inf
        work[_LABEL + r] = 0
    for j in range(0, negative.shape[0], 4):
        q0, q1, q2, q3 = squares[j], squares[j + 1], squares[j + 2], squares[j + 3]
        for r in range(TILE):
            work[r] = q0
            work[TILE + r] = q1
            work[2 * TILE + r] = q2
            work[3 * TILE + r] = q3
        for f in range(0, negative.shape[1], 4):
            a0, a1, a2, a3 = negative[j, f], negative[j, f + 1], negative[j, f + 2], negative[j, f + 3]
            b0, b1, b2, b3 = (
                negative[j + 1, f],
                negative[j + 1, f + 1],
                negative[j + 1, f + 2],
                negative[j + 1, f + 3],
            )
            c0, c1, c2, c3 = (
                negative[j + 2, f],
                negative[j + 2, f + 1],
                negative[j + 2, f + 2],
                negative[j + 2, f + 3],
            )
            d0, d1, d2, d3 = (
                negative[j + 3, f],
                negative[j + 3, f + 1],
                negative[j + 3, f + 2],
                negative[j + 3, f + 3],
            )
            x = tile[f * TILE : (f + 4) * TILE]
            for r in range(TILE):
                x0, x1, x2, x3 = x[r], x[TILE + r], x[2 * TILE + r], x[3 * TILE + r]
                work[r] = work[r] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                work[TILE + r] = work[TILE + r] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                work[2 * TILE + r] = work[2 * TILE + r] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                work[3 * TILE + r] = work[3 * TILE + r] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        keep_best_two(work, j)


@compiled()
def keep_best_two(work, j):  # type: ignore[no-untyped-def]
    """Fold the four scores of centroids j to j + 3 into best, second best and label; selects, so that it vectorises."""
    number = work.dtype.type
    l0, l1, l2, l3 = number(j), number(j + 1), number(j + 2), number(j + 3)
    for r in range(TILE):
        best, second, label = work[_BEST + r], work[_SECOND + r], work[_LABEL + r]
        s = work[r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l0 if s < best else label
        best = s if s < best else best
        s = work[TILE + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l1 if s < best else label
        best = s if s < best else best
        s = work[2 * TILE + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l2 if s < best else label
        best = s if s < best else best
        s = work[3 * TILE + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l3 if s < best else label
        best = s if s < best else best
        work[_BEST + r] = best
        work[_SECOND + r] = second
        work[_LABEL + r] = label


@compiled()
def settle(tile, r, centroids, proposed):  # type: ignore[no-untyped-def]
    """Return the lowest j that minimises the float64 sum over features, in order, of (x - c)^2 for one row.

    Partial sums never fall, so a sum above the best so far can stop early.
    """
    n_features = centroids.shape[1]
    best = 0.0
    for f in range(n_features):
        difference = np.float64(tile[f, r]) - centroids[proposed, f]
        best += difference * difference
    label = proposed
    for j in range(centroids.shape[0]):
        total = 0.0
        for f in range(n_features):
            difference = np.float64(tile[f, r]) - centroids[j, f]
            total += difference * difference
            if total > best:
                break
        if total < best or (total == best and j < label):
            best = total
            label = j
    return label


@compiled()
def label_rows(tiles, n_rows, norms, scan, centroids, labels):  # type: ignore[no-untyped-def]
    """Write each row's label, (n_rows,) int32, exactly as `settle` defines it.

    norms (n_tiles,): an upper bound of |x| in each tile. scan = (negative, squares, radius, unit, floor): the largest
    |centroid|, the unit roundoff of the tiles' dtype, and what its underflow can hide.
    """
    negative, squares, radius, unit, floor = scan
    work = np.empty(WORK, tiles.dtype)
    for t in range(tiles.shape[0]):
        tile = tiles[t]
        scan_tile(tile.reshape(-1), negative, squares, work)
        reach = norms[t] + radius
        open_within = 2.0 * ((negative.shape[1] + 8) * unit * reach * reach + floor)
        for r in range(min(TILE, n_rows - t * TILE)):
            label = np.int32(work[_LABEL + r])
            # Not <= turned round: an overflow to infinity or NaN is left to `settle` as well.
            if not (np.float64(work[_SECOND + r]) - np.float64(work[_BEST + r]) > open_within):
                label = np.int32(settle(tile, r, centroids, label))
            labels[t * TILE + r] = label


@compiled()
def distances_of_rows(tiles, n_rows, columns, labels, sq_distances):  # type: ignore[no-untyped-def]
    """Write each row's canonical squared distance to its centroid, (n_rows,) float64; columns is (d, k)."""
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        for r in range(rows):
            sq_distances[first + r] = 0.0
        for f in range(columns.shape[0]):
            for r in range(rows):
                difference = np.float64(tiles[t, f, r]) - columns[f, labels[first + r]]
                sq_distances[first + r] += difference * difference


@compiled()
def add_rows(tiles, n_rows, labels, weights, factors, high, low):  # type: ignore[no-untyped-def]
    """Add each row's weight * value to its cluster's sums, high and low (d, k) int64; no weights: (0,)."""
    weighted = weights.shape[0] > 0
    for t in range(tiles.shape[0]):
        first = t * TILE
        for f in range(high.shape[0]):
            factor = factors[f]
            for r in range(min(TILE, n_rows - first)):
                x = np.float64(tiles[t, f, r])
                if weighted:
                    x = weights[first + r] * x
                y = x * factor
                h = np.int64(y)
                label = labels[first + r]
                high[f, label] += h
                low[f, label] += np.int64((y - np.float64(h)) * 4294967296.0)


@compiled()
def add_values(values, labels, factor, high, low):  # type: ignore[no-untyped-def]
    """Add each value (n,) to its cluster's accumulators, high and low (k,) int64."""
    for i in range(values.shape[0]):
        y = values[i] * factor
        h = np.int64(y)
        high[labels[i]] += h
        low[labels[i]] += np.int64((y - np.float64(h)) * 4294967296.0)


@compiled()
def total_of(values, weights, factor):  # type: ignore[no-untyped-def]
    """Return the three accumulators of sum(weight * value), values (n,) float64."""
    high, middle, low = np.int64(0), np.int64(0), np.int64(0)
    weighted = weights.shape[0] > 0
    for i in range(values.shape[0]):
        x = weights[i] * values[i] if weighted else values[i]
        y = x * factor
        h = np.int64(y)
        y = (y - np.float64(h)) * 4294967296.0
        m = np.int64(y)
        high += h
        middle += m
        low += np.int64((y - np.float64(m)) * 4294967296.0)
    return high, middle, low


@compiled()
def row_at(values, weights, factor, high, middle, low):  # type: ignore[no-untyped-def]
    """Return the first row whose running total of weight * value exceeds (high, middle, low), or -1.

    middle and low are in [0, 2**32).
    """
    weighted = weights.shape[0] > 0
    for i in range(values.shape[0]):
        y = (weights[i] * values[i] if weighted else values[i]) * factor
        h = np.int64(y)
        y = (y - np.float64(h)) * 4294967296.0
        m = np.int64(y)
        low -= np.int64((y - np.float64(m)) * 4294967296.0)
        middle -= m
        high -= h
        if low < 0:
            low += np.int64(4294967296)
            middle -= 1
        if middle < 0:
            middle += np.int64(4294967296)
            high -= 1
        if high < 0:
            return i
    return -1


@compiled()
def count_rows(labels, counts):  # type: ignore[no-untyped-def]
    """Add the number of rows of each label to counts (k,) int64."""
    for i in range(labels.shape[0]):
        counts[labels[i]] += 1


@compiled()
def count_changed(before, after):  # type: ignore[no-untyped-def]
    """Return the number of positions where two label arrays differ."""
    changed = 0
    for i in range(after.shape[0]):
        changed += before[i] != after[i]
    return changed


@compiled()
def norms_of_tiles(tiles):  # type: ignore[no-untyped-def]
    """Return an upper bound of the largest row norm of each tile, (n_tiles,) float64."""
    norms = np.empty(tiles.shape[0])
    sums = np.empty(TILE)
    for t in range(tiles.shape[0]):
        sums[:] = 0.0
        for f in range(tiles.shape[1]):
            for r in range(TILE):
                x = np.float64(tiles[t, f, r])
                sums[r] += x * x
        norms[t] = np.sqrt(sums.max()) * (1.0 + 1e-9)
    return norms


@compiled()
def keep_closer(offset, new_labels, new_sq_distances, labels, sq_distances):  # type: ignore[no-untyped-def]
    """Take the new label (plus offset) and squared distance wherever it is strictly closer."""
    for i in range(labels.shape[0]):
        if new_sq_distances[i] < sq_distances[i]:
            sq_distances[i] = new_sq_distances[i]
            labels[i] = new_labels[i] + offset


@compiled()
def pack_column(values, shift, feature, tiles):  # type: ignore[no-untyped-def]
    """Store values (n,) less shift in one feature's lanes; return the largest magnitude that is not NaN."""
    largest = 0.0
    for i in range(values.shape[0]):
        x = np.float64(values[i]) - shift
        magnitude = abs(x)
        largest = max(largest, magnitude)
        tiles[i // TILE, feature, i % TILE] = x
    return largest


@compiled()
def add_column(tiles, n_rows, feature, center, squared, factor):  # type: ignore[no-untyped-def]
    """Return (count, high, low) of sum(x - center), or of its squares, over one feature's values that are not NaN."""
    count, high, low = 0, np.int64(0), np.int64(0)
    for t in range(tiles.shape[0]):
        for r in range(min(TILE, n_rows - t * TILE)):
            x = np.float64(tiles[t, feature, r]) - center
            if not np.isnan(x):
                y = (x * x if squared else x) * factor
                h = np.int64(y)
                high += h
                low += np.int64((y - np.float64(h)) * 4294967296.0)
                count += 1
    return count, high, low


@compiled()
def finish_column(tiles, n_rows, feature, finishing, out):  # type: ignore[no-untyped-def]
    """Write (x - center) * inverse of one feature, NaN replaced by fill; finishing = (fill, center, inverse)."""
    fill, center, inverse = finishing
    for t in range(tiles.shape[0]):
        for r in range(min(TILE, n_rows - t * TILE)):
            x = np.float64(tiles[t, feature, r])
            if np.isnan(x):
                x = fill
            out[t, feature, r] = (x - center) * inverse
