"""The compiled loops over tiles: nearest centroids, exact sums, canonical distances.

Tiles are (n_tiles, d4, 128), feature-major: the vector lanes are rows, d4 is the number of features rounded up to 4.
Rows from n_rows on are padding: never counted, summed or returned. `centroids` are (k, d) float64.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.types import unliteral

from kmeans_dask.kernel_cache import KernelCache
from kmeans_dask.tiles import TILE

_COLUMNS_AT_ONCE = 32
_WHOLE = 1.5 * 2.0**52  # a sum of it and a whole number has that in its lower bits
_WHOLE_BITS = np.float64(_WHOLE).view(np.int64)
_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(*, counts: bool = True, **options: object) -> Callable[[_F], _F]:
    """Return numba's decorator for a kernel that releases the GIL and is cached on disk.

    counts: whether it counts references to arrays. Said for every kernel: numba would else take its caller's word.
    """
    njit: Any = numba.njit
    decorator = njit(nogil=True, error_model="numpy", _nrt=counts, no_cfunc_wrapper=True, **options)

    def decorated(kernel: _F) -> _F:
        dispatcher = decorator(kernel)
        if dispatcher is not kernel:  # NUMBA_DISABLE_JIT
            dispatcher._cache = KernelCache(kernel)
            dispatcher.get_call_template = partial(_call_template, dispatcher.get_call_template)
        return cast("_F", dispatcher)

    return decorated


def _call_template(of_types: Callable[..., Any], args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
    """Return how a kernel is called by another: a number that its caller writes out makes no kernel of its own."""
    return of_types(tuple(map(unliteral, args)), {name: unliteral(kind) for name, kind in kws.items()})


def borrowing(**options: object) -> Callable[[_F], _F]:
    """Return the decorator for a kernel that counts no references: each slice would cost an atomic addition.

    The arrays it is given belong to its caller. So it must make none, nor copy one into a slice of another, both of
    which numba refuses to compile, nor return one, alone or in a tuple, which numba does not always notice. Nor may it
    ask one for its sum or its largest value: numba compiles that only where another kernel has asked before.
    """
    return compiled(counts=False, **options)


@borrowing()
def as_integer(whole):  # type: ignore[no-untyped-def]
    """Return a whole number below 2**51 as int64: as fast as a conversion is only with AVX-512."""
    return np.float64(whole + _WHOLE).view(np.int64) - _WHOLE_BITS


@borrowing()
def limbs_of(y):  # type: ignore[no-untyped-def]
    """Return what a scaled addend adds to two accumulators, see `sums`."""
    high = np.trunc(y)
    return as_integer(high), as_integer(np.trunc((y - high) * 4294967296.0))


@borrowing()
def limbs_of_cost(y):  # type: ignore[no-untyped-def]
    """Return what a scaled cost adds to three accumulators."""
    high = np.trunc(y)
    y = (y - high) * 4294967296.0
    middle = np.trunc(y)
    return as_integer(high), as_integer(middle), as_integer(np.trunc((y - middle) * 4294967296.0))


@compiled()
def distances_of_rows(tiles, n_rows, columns, labels, sq_distances):  # type: ignore[no-untyped-def]
    """Write each row's canonical squared distance to its centroid, (n_rows,) float64; columns is (d, k)."""
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        if rows <= 0:
            continue
        label, alike = labels[first], True
        for r in range(rows):
            sq_distances[first + r] = 0.0
            alike &= labels[first + r] == label
        for f in range(columns.shape[0]):
            if alike:  # most tiles of an ordered block: no gathering
                c = columns[f, label]
                for r in range(rows):
                    difference = np.float64(tiles[t, f, r]) - c
                    sq_distances[first + r] += difference * difference
            else:
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
                label = labels[first + r]
                h, rest = limbs_of(x * factor)
                high[f, label] += h
                low[f, label] += rest


@compiled()
def add_values(values, labels, factor, high, low):  # type: ignore[no-untyped-def]
    """Add each value (n,) to its cluster's accumulators, high and low (k,) int64."""
    for i in range(values.shape[0]):
        h, rest = limbs_of(values[i] * factor)
        high[labels[i]] += h
        low[labels[i]] += rest


@compiled()
def total_of(values, weights, factor):  # type: ignore[no-untyped-def]
    """Return the three accumulators of sum(weight * value), values (n,) float64."""
    high, middle, low = np.int64(0), np.int64(0), np.int64(0)
    weighted = weights.shape[0] > 0
    for i in range(values.shape[0]):
        h, m, rest = limbs_of_cost((weights[i] * values[i] if weighted else values[i]) * factor)
        high += h
        middle += m
        low += rest
    return high, middle, low


@compiled()
def total_of_copies(values, copies, factor):  # type: ignore[no-untyped-def]
    """Return the three accumulators of sum(copies * value), values (n,) float64, copies (n,) int32."""
    high, middle, low = np.int64(0), np.int64(0), np.int64(0)
    for i in range(values.shape[0]):
        h, m, rest = limbs_of_cost(values[i] * factor)
        high += h * copies[i]
        middle += m * copies[i]
        low += rest * copies[i]
    return high, middle, low


@compiled()
def sums_of_columns(rows, extremes, totals, counts):  # type: ignore[no-untyped-def]
    """Write of the columns of rows (n, d), less NaN: lowest and highest (d, 2), accumulators (d, 3), counts (d,).

    Each sum's exponent is that of its largest magnitude, see `sums.exponent`; columns with infinities have none.
    """
    n, d = rows.shape
    values = np.empty((_COLUMNS_AT_ONCE, n + 1))
    for start in range(0, d, _COLUMNS_AT_ONCE):
        width = min(_COLUMNS_AT_ONCE, d - start)
        counts[start : start + width] = 0
        for r in range(n):
            for f in range(width):
                x = np.float64(rows[r, start + f])
                values[f, counts[start + f]] = x  # overwritten if it is NaN
                counts[start + f] += x == x
        for f in range(width):
            some = values[f, : counts[start + f]]
            lowest, highest = np.inf, -np.inf
            for x in some:
                lowest, highest = min(lowest, x), max(highest, x)
            extremes[start + f, 0], extremes[start + f, 1] = lowest, highest
            bound = max(abs(lowest), abs(highest))
            exponent = max(math.frexp(bound)[1], -980) if 0.0 < bound < np.inf else -980
            factor = math.ldexp(1.0, 31 - exponent) if bound < np.inf else 0.0
            high, middle, low = total_of(some, some[:0], factor)
            totals[start + f, 0], totals[start + f, 1], totals[start + f, 2] = high, middle, low


@borrowing()
def plain_sums(rows, lowest, highest, totals):  # type: ignore[no-untyped-def]
    """Lower and raise extremes by the columns of rows (n, d), and add up what they hold, with rounding, (d,) each."""
    for r in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            x = np.float64(rows[r, f])
            totals[f] += x
            lowest[f] = x if x < lowest[f] else lowest[f]
            highest[f] = x if x > highest[f] else highest[f]


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


@borrowing()
def pack_column(values, shift, feature, tiles):  # type: ignore[no-untyped-def]
    """Store values (n,) less shift in one feature's lanes."""
    number = tiles.dtype.type
    for t in range(tiles.shape[0]):
        first, x = t * TILE, tiles[t, feature]
        for r in range(min(TILE, values.shape[0] - first)):
            x[r] = number(np.float64(values[first + r]) - shift)


@borrowing()
def pack_rows(rows, shifts, tiles, extremes, work):  # type: ignore[no-untyped-def]
    """Store rows (n, d) less shifts (d,), and widen extremes by them; work: see `widen`."""
    number, d = tiles.dtype.type, rows.shape[1]
    for t in range(tiles.shape[0]):
        tile, some = tiles[t], rows[t * TILE : (t + 1) * TILE]
        n = some.shape[0]
        for f in range(0, d - 3, 4):
            s0, s1, s2, s3 = shifts[f], shifts[f + 1], shifts[f + 2], shifts[f + 3]
            x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
            for r in range(n):
                row = some[r]
                x0[r] = number(np.float64(row[f]) - s0)
                x1[r] = number(np.float64(row[f + 1]) - s1)
                x2[r] = number(np.float64(row[f + 2]) - s2)
                x3[r] = number(np.float64(row[f + 3]) - s3)
        for f in range(d // 4 * 4, d):
            shift, x = shifts[f], tile[f]
            for r in range(n):
                x[r] = number(np.float64(some[r, f]) - shift)
        widen(tile, n, extremes, work)


@borrowing()
def write_tiles(rows, tiles):  # type: ignore[no-untyped-def]
    """Write rows (n, d) to the lanes of tiles (n_tiles, d4, 128)."""
    for t in range(tiles.shape[0]):
        some = rows[t * TILE : (t + 1) * TILE]
        for f in range(rows.shape[1]):
            for r in range(some.shape[0]):
                tiles[t, f, r] = some[r, f]


@borrowing()
def add_extremes(tiles, n_rows, extremes, work):  # type: ignore[no-untyped-def]
    """Widen extremes by all rows of tiles (n_tiles, d4, 128); work: see `widen`."""
    for t in range(tiles.shape[0]):
        widen(tiles[t], min(TILE, n_rows - t * TILE), extremes, work)


@borrowing()
def widen(tile, n, extremes, work):  # type: ignore[no-untyped-def]
    """Lower and raise the extremes of each lane, (2, d, 128), by the first n of a tile's; NaN counts for nothing.

    work (2, 128): where they are put first, or they would be stored lane by lane, only those that change: slowly.
    """
    for f in range(extremes.shape[1]):
        x, low, high, lower, higher = tile[f], extremes[0, f], extremes[1, f], work[0], work[1]
        for r in range(n):
            y, a, b = x[r], low[r], high[r]
            lower[r] = y if y < a else a
            higher[r] = y if y > b else b
        for r in range(n):
            low[r], high[r] = lower[r], higher[r]


@compiled()
def add_column(tiles, n_rows, feature, center, squared, factor):  # type: ignore[no-untyped-def]
    """Return (count, high, low) of sum(x - center), or of its squares, over one feature's values that are not NaN."""
    count, high, low = 0, np.int64(0), np.int64(0)
    for t in range(tiles.shape[0]):
        for r in range(min(TILE, n_rows - t * TILE)):
            x = np.float64(tiles[t, feature, r]) - center
            if not np.isnan(x):
                h, rest = limbs_of((x * x if squared else x) * factor)
                high += h
                low += rest
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


@compiled()
def count_open(thresholds, labels, slack):  # type: ignore[no-untyped-def]
    """Return how many rows of a tile must be scanned: those whose centroids may have moved past their slack."""
    count = 0
    for r in range(labels.shape[0]):
        count += not (thresholds[labels[r]] < slack[r])  # beyond float32 slack is NaN: always open
    return count


@compiled()
def explained(sums, weights, centroids):  # type: ignore[no-untyped-def]
    """Return the sum of 2 c.S - W |c|^2 over clusters: sums (d, k) and weights (k,) of their rows, centroids (k, d)."""
    total = 0.0
    for f in range(sums.shape[0]):
        of_feature = 0.0
        for j in range(sums.shape[1]):
            c = centroids[j, f]
            of_feature += c * (2.0 * sums[f, j] - c * weights[j])
        total += of_feature
    return total


@compiled()
def round_totals(sums, rows, weights, units, weight_unit, rounded, rounded_weights):  # type: ignore[no-untyped-def]
    """Write each cluster's sum, (d, k), and weight, (k,), rounded to float64.

    sums (3, d, k), weights (3, k) or, where rows (k,) are, (3, 0): limbs; units (d,), weight_unit: their exponents.
    """
    for f in range(rounded.shape[0]):
        for j in range(rounded.shape[1]):
            total = sums[0, f, j] * 2.0**64 + sums[1, f, j] * 2.0**32 + sums[2, f, j]
            rounded[f, j] = math.ldexp(total, int(units[f]))
    for j in range(rows.shape[0]):
        rounded_weights[j] = rows[j]
    for j in range(weights.shape[1]):
        total = weights[0, j] * 2.0**64 + weights[1, j] * 2.0**32 + weights[2, j]
        rounded_weights[j] = math.ldexp(total, int(weight_unit))


@compiled()
def is_exact_in_float32(rows, shift, largest):  # type: ignore[no-untyped-def]
    """Whether float32 holds each value less its feature's shift (d,) exactly, none above the largest; rows (n, d)."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            y = np.float64(rows[i, f]) - shift[f]
            if not abs(y) <= largest or np.float64(np.float32(y)) != y:
                return False
    return True


@compiled()
def corner_distance(lowest, highest, centroids):  # type: ignore[no-untyped-def]
    """Return the squared distance, or more, of any row from any centroid, (k, d): rows lie in [lowest, highest]."""
    total = 0.0
    for f in range(lowest.shape[0]):
        below, above = highest[f] - centroids[:, f].min(), centroids[:, f].max() - lowest[f]
        reach = below if below > above or below != below else above  # NaN stays
        total += reach * reach
    return total


@compiled()
def means_of(sums, rows, before, units, shifts, wanted, centroids):  # type: ignore[no-untyped-def]
    """Write the correctly rounded means, (k, d), of the wanted clusters, (k,) bool, that have rows.

    sums (3, d, k): limbs, units (d,): the exponents of the last. rows (k,) int64, times 2**shifts, (k,) int64: what
    sums are divided by. before = (sums, rows): of which the centroids already are the means, with rows in each; or
    empty.
    """
    digits = np.empty(6, np.uint64)
    sums_before, rows_before = before
    for j in range(rows.shape[0]):
        n = np.uint64(rows[j])
        if n == 0 or not wanted[j] or _is_same(sums, rows, sums_before, rows_before, j):
            continue
        for f in range(sums.shape[1]):
            high = (sums[0, f, j] << 32) + sums[1, f, j]
            centroids[j, f] = quotient(high, sums[2, f, j], n, units[f] - shifts[j], digits)


@compiled()
def _is_same(sums, rows, sums_before, rows_before, j):  # type: ignore[no-untyped-def]
    if rows_before.shape[0] == 0 or rows[j] != rows_before[j]:
        return False
    for f in range(sums.shape[1]):
        for i in range(3):
            if sums[i, f, j] != sums_before[i, f, j]:
                return False
    return True


@compiled()
def quick_quotient(high, low, n):  # type: ignore[no-untyped-def]
    """Return (high + low * 2**-32) / n, correctly rounded, or NaN where a second division does not decide it.

    The remainder of the first one is exact, since halves of its quotient times n are (T. Dekker, 1971); the error of
    the second is less than 2**-51 of it.
    """
    x, m = np.float64(high), np.float64(n)
    if not (abs(x) < 2.0**62 and m < 2.0**26):
        return np.nan
    rest = np.float64(high - np.int64(x)) + np.float64(low) * 2.0**-32
    q = x / m
    scaled = q * 134217729.0
    upper = scaled - (scaled - q)
    product = q * m
    error = (upper * m - product) + (q - upper) * m
    more = ((x - product) - error + rest) / m
    total = q + more
    left, doubt = (q - total) + more, abs(more) * 2.0**-51
    return total if total + (left + doubt) == total and total + (left - doubt) == total else np.nan


@compiled()
def quotient(high, low, n, unit, digits):  # type: ignore[no-untyped-def]
    """Return (high * 2**32 + low) * 2**unit / n, correctly rounded, for 0 < n < 2**31; digits (6,): room."""
    quick = quick_quotient(high, low, n)
    result = math.ldexp(quick, int(unit) + 32)
    return result if abs(result) > 2.0**-960 else slow_quotient(high, low, n, unit, digits)


@compiled()
def slow_quotient(high, low, n, unit, digits):  # type: ignore[no-untyped-def]
    """Return the same by long division in digits of 32 bits: three of the sum, then three of the fraction."""
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
