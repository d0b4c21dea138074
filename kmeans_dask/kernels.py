"""The compiled loops over tiles: nearest centroids, exact sums, canonical distances.

Tiles are (n_tiles, d4, 128), feature-major: the vector lanes are rows, d4 is the number of features rounded up to 4.
Rows from n_rows on are padding: never counted, summed or returned. `centroids` are (k, d) float64.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from kmeans_dask.kernel_cache import KernelCache

TILE = 128
_SECOND, _LABEL = 5 * TILE, 6 * TILE
_BEST = 4 * TILE
WORK = 7 * TILE
_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(**options: object) -> Callable[[_F], _F]:
    """Return numba's decorator for a kernel that releases the GIL and is cached on disk."""
    njit: Any = numba.njit
    decorator = njit(nogil=True, error_model="numpy", **options)

    def decorated(kernel: _F) -> _F:
        dispatcher = decorator(kernel)
        if dispatcher is not kernel:  # NUMBA_DISABLE_JIT
            dispatcher._cache = KernelCache(kernel)
        return cast("_F", dispatcher)

    return decorated


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
def pack_column(values, shift, feature, tiles):  # type: ignore[no-untyped-def]
    """Store values (n,) less shift in one feature's lanes; return the largest magnitude that is not NaN."""
    largest = 0.0
    for t in range(tiles.shape[0]):
        first = t * TILE
        for r in range(min(TILE, values.shape[0] - first)):
            x = np.float64(values[first + r]) - shift
            magnitude = abs(x)
            largest = magnitude if magnitude > largest else largest
            tiles[t, feature, r] = x
    return largest


@compiled()
def pack_rows(rows, shifts, tiles, largest):  # type: ignore[no-untyped-def]
    """Store rows (n, d) less shifts (d,); write each feature's largest magnitude that is not NaN, (d,)."""
    largest[:] = 0.0
    for t in range(tiles.shape[0]):
        first = t * TILE
        for f in range(rows.shape[1]):
            shift, most = shifts[f], largest[f]
            for r in range(min(TILE, rows.shape[0] - first)):
                x = np.float64(rows[first + r, f]) - shift
                magnitude = abs(x)
                most = magnitude if magnitude > most else most
                tiles[t, f, r] = x
            largest[f] = most


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


@compiled()
def unit_rows(tiles, n_rows):  # type: ignore[no-untyped-def]
    """Divide each row by its length, in place; return the first row of length 0, or -1."""
    squares = np.empty(TILE)
    for t in range(tiles.shape[0]):
        rows = min(TILE, n_rows - t * TILE)
        squares[:] = 0.0
        for f in range(tiles.shape[1]):
            for r in range(rows):
                x = np.float64(tiles[t, f, r])
                squares[r] += x * x
        for r in range(rows):
            if squares[r] == 0.0:
                return t * TILE + r
            squares[r] = np.sqrt(squares[r])
        for f in range(tiles.shape[1]):
            for r in range(rows):
                tiles[t, f, r] = np.float64(tiles[t, f, r]) / squares[r]
    return -1


@compiled(fastmath={"contract"})
def add_squares(tile, squares):  # type: ignore[no-untyped-def]
    """Write each row's squared norm, (128,), up to rounding; tile (d4 * 128,)."""
    for r in range(TILE):
        squares[r] = 0
    for f in range(tile.shape[0] // TILE):
        x = tile[f * TILE : (f + 1) * TILE]
        for r in range(TILE):
            squares[r] += x[r] * x[r]


@compiled()
def count_open(thresholds, labels, slack):  # type: ignore[no-untyped-def]
    """Return how many rows of a tile must be scanned: those whose centroids may have moved past their slack."""
    count = 0
    for r in range(labels.shape[0]):
        count += not (thresholds[labels[r]] < slack[r])  # beyond float32 slack is NaN: always open
    return count


@compiled()
def judge_tile(work, squares, scan, thresholds, labels, slack, bound):  # type: ignore[no-untyped-def]
    """Turn a scanned tile's scores into labels and slack, (128,) each; return how many rows are left to settle.

    A row's slack is by how much its nearest centroid is nearer than any other, less all rounding, plus the threshold
    of its label; -inf where the two best are too close to call, or not numbers. bound: what other centroids' squared
    distances exceed the nearest one's by.
    """
    _, _, doubts, doubt, floor = scan
    number = work.dtype.type
    more, less, floor = number(1.0 + doubt), number(1.0 - doubt), number(floor)
    doubt, margin, zero, none = number(doubt), number(2.0**-20), number(0), number(-np.inf)
    farthest, bound = number(2.0**124), number(bound * (1.0 - 2.0**-18))
    for r in range(TILE):
        labels[r] = np.int32(work[_LABEL + r])
    for r in range(TILE):
        work[r] = doubts[labels[r]]
    unsettled = 0
    for r in range(TILE):
        near = work[_BEST + r] + work[r] + squares[r] * more + floor
        far = work[_SECOND + r] + squares[r] * less - floor
        far = far if far < farthest else farthest
        clear = far - near > doubt * far
        others = work[_BEST + r] + bound + squares[r] * less - floor
        far = others if others < far else far
        near, far = np.sqrt(near if near > zero else zero), np.sqrt(far if far > zero else zero)
        gap = (far - near) - (far + near) * margin
        work[r] = gap if clear else none
        unsettled += 0 if clear else 1
    for r in range(TILE):
        threshold = thresholds[labels[r]]
        bound = np.float32(work[r]) + threshold
        # The last term covers what float32 rounds off its smallest numbers.
        lowered = bound - (abs(bound) + threshold) * np.float32(2.0**-21) - np.float32(2.0**-140)
        slack[r] = np.float32(-np.inf) if work[r] == none else lowered
    return unsettled


@compiled()
def settle_rows(tiles, centroids, origin, labels, slack):  # type: ignore[no-untyped-def]
    """Decide the rows of a judged tile that were too close to call; origin: their places in the block."""
    for r in range(origin.shape[0]):
        if slack[r] == -np.inf:
            at = origin[r]
            labels[r] = settle(tiles[at // TILE], at % TILE, centroids, labels[r])


@compiled()
def move_row(block, factors, totals, at, old, new):  # type: ignore[no-untyped-def]
    """Take one row from a cluster's sums to another's."""
    tiles, weights = block[0], block[2]
    high, low, rows, weight_high, weight_low = totals
    weighted = weights.shape[0] > 0
    t, r = at // TILE, at % TILE
    for f in range(high.shape[0]):
        x = np.float64(tiles[t, f, r])
        if weighted:
            x = weights[at] * x
        y = x * factors[f]
        h = np.int64(y)
        rest = np.int64((y - np.float64(h)) * 4294967296.0)
        high[f, old] -= h
        high[f, new] += h
        low[f, old] -= rest
        low[f, new] += rest
    rows[old] -= 1
    rows[new] += 1
    if weighted:
        y = weights[at] * factors[high.shape[0]]
        h = np.int64(y)
        rest = np.int64((y - np.float64(h)) * 4294967296.0)
        weight_high[old] -= h
        weight_high[new] += h
        weight_low[old] -= rest
        weight_low[new] += rest


@compiled()
def judge(tiles, scan, centroids, thresholds, tile, origin, found, bound):  # type: ignore[no-untyped-def]
    """Scan one tile, of the block or gathered, and write its rows' labels and slack to found = (labels, slack).

    scan = (negative, squares, doubts, doubt, floor): see `scan_tile` for the first two, the squares lowered by half
    of doubts, (k4,): what rounding can do to a score through its centroid, doubt: through a row, by its square.
    """
    work, squares = np.empty(WORK, tiles.dtype), np.empty(TILE, tiles.dtype)
    scan_tile(tile, scan[0], scan[1], work)
    add_squares(tile, squares)
    if judge_tile(work, squares, scan, thresholds, found[0], found[1], bound):
        settle_rows(tiles, centroids, origin, found[0], found[1])


@compiled()
def means_of(high, low, rows, units, centroids):  # type: ignore[no-untyped-def]
    """Write the correctly rounded means, (k, d); high, low (d, k) with 0 <= low < 2**32; units (d,) exponents of low.

    Long division in digits of 32 bits: three of the sum, then three more of the quotient's fraction.
    """
    digits = np.empty(6, np.uint64)
    for f in range(high.shape[0]):
        for j in range(rows.shape[0]):
            n = np.uint64(rows[j])
            if n == 0:
                continue
            centroids[j, f] = quotient(high[f, j], low[f, j], n, units[f], digits)


@compiled()
def quotient(high, low, n, unit, digits):  # type: ignore[no-untyped-def]
    """Return (high * 2**32 + low) * 2**unit / n, correctly rounded, for 0 < n < 2**31."""
    negative = high < 0
    if negative:
        high = -high - (1 if low else 0)
        low = (np.int64(4294967296) - low) if low else np.int64(0)
    top = np.uint64(high)
    digits[0], digits[1], digits[2] = top >> np.uint64(32), top & np.uint64(0xFFFFFFFF), np.uint64(low)
    digits[3] = digits[4] = digits[5] = np.uint64(0)
    rest = np.uint64(0)
    for i in range(6):
        value = (rest << np.uint64(32)) | digits[i]
        digits[i] = value // n
        rest = value - digits[i] * n
    lead = 0
    while lead < 6 and digits[lead] == 0:
        lead += 1
    if lead == 6:
        return 0.0
    mantissa = digits[lead]
    used = lead
    sticky = rest != 0
    for i in range(lead + 1, 6):
        if mantissa < np.uint64(4294967296):
            mantissa = (mantissa << np.uint64(32)) | digits[i]
            used = i
        elif i > used + 1 and digits[i] != 0:
            sticky = True
    # Two digits hold 33 to 64 bits: take bits of the next one until the top bit is set, so that rounding sees them.
    power = unit + 32 * (2 - used)
    if used < 5:
        extra = digits[used + 1]
        left = np.uint64(0)
        while mantissa < np.uint64(0x8000000000000000) and left < 32:
            left += np.uint64(1)
            mantissa = (mantissa << np.uint64(1)) | ((extra >> (np.uint64(32) - left)) & np.uint64(1))
        power -= np.int64(left)
        sticky = sticky or (extra & ((np.uint64(1) << (np.uint64(32) - left)) - np.uint64(1))) != 0
    if sticky:
        mantissa |= np.uint64(1)
    result = math.ldexp(np.float64(mantissa), int(power))
    return -result if negative else result
