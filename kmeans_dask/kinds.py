"""The compiled loops over equal rows: rows in, the number of each one's kind out, and kinds back to rows.

Rows are seen as unsigned integers: those of one kind are equal bit by bit.
"""

import numpy as np

from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.tiles import TILE

_AT_ONCE = 64  # rows whose kinds are fetched from memory together
_MARK_BITS = 16
_MARK = (1 << _MARK_BITS) - 1


@borrowing()
def write_hashes(bits, n_features, hashes):  # type: ignore[no-untyped-def]
    """Write the hash of each row of a tile, (d4, 128), of which the first bits are the best.

    A multiplication carries upwards only: numbers that differ in their sign or exponent would have few hashes.
    """
    for r in range(TILE):
        hashes[r] = 0
    for f in range(n_features):
        for r in range(TILE):
            mixed = (hashes[r] ^ np.uint64(bits[f, r])) * np.uint64(0x9E3779B97F4A7C15)
            hashes[r] = mixed ^ (mixed >> np.uint64(32))


@compiled()
def number_kinds(rows, most, kinds, firsts):  # type: ignore[no-untyped-def]
    """Number the different rows (n, d), as unsigned integers; return how many they are, or 0 if more than `most`.

    kinds (n,): out, the number of each row; firsts (most,): out, the first row of each kind.
    """
    n_rows, n_bits = rows.shape[0], 9
    while (n_rows >> n_bits) > 0:
        n_bits += 1
    # Of each slot the first row of a kind and, in the lower bits, some of its hash; -1 for none.
    slots, hashes, n = np.full(2 << n_bits, -1, np.int64), np.empty(_AT_ONCE + 1, np.uint64), 0
    for start in range(0, n_rows, _AT_ONCE):
        stop = min(start + _AT_ONCE, n_rows)
        ask_for_kinds(rows, start, stop, slots, n_bits, hashes)
        for r in range(start, stop):
            if r > 0 and is_row(rows[r], rows[r - 1]):
                kinds[r] = kinds[r - 1]
                continue
            hashed = hashes[r - start]
            slot, mark = np.int64(hashed >> np.uint64(63 - n_bits)), np.int64(hashed & np.uint64(_MARK))
            while slots[slot] >= 0:
                first = slots[slot] >> _MARK_BITS
                if slots[slot] & _MARK == mark and is_row(rows[r], rows[first]):
                    break
                slot = (slot + 1) & ((2 << n_bits) - 1)
            if slots[slot] >= 0:
                kinds[r] = kinds[slots[slot] >> _MARK_BITS]
                continue
            if n == most:
                return 0
            slots[slot], firsts[n], kinds[r] = r << _MARK_BITS | mark, r, n
            n += 1
    return n


@borrowing()
def ask_for_kinds(rows, start, stop, slots, n_bits, hashes):  # type: ignore[no-untyped-def]
    """Write the hashes of some rows, and read what is to be read of the rows they may be: all at once, not in turn."""
    for r in range(start, stop):
        hashes[r - start] = hash_of(rows[r])
    seen = np.uint64(0)
    for i in range(stop - start):
        first = slots[np.int64(hashes[i] >> np.uint64(63 - n_bits))] >> _MARK_BITS
        seen |= np.uint64(rows[max(first, 0), 0])
    hashes[_AT_ONCE] = seen  # or nothing would be read


@borrowing()
def hash_of(row):  # type: ignore[no-untyped-def]
    """Return the hash of a row, (d,), see `write_hashes`: every other feature by itself, two chains side by side."""
    even, odd = np.uint64(0), np.uint64(0)
    factor, half = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    for f in range(0, row.shape[0] - 1, 2):
        even = (even ^ np.uint64(row[f])) * factor
        odd = (odd ^ np.uint64(row[f + 1])) * factor
        even ^= even >> half
        odd ^= odd >> half
    if row.shape[0] % 2 > 0:
        even = (even ^ np.uint64(row[row.shape[0] - 1])) * factor
        even ^= even >> half
    both = (even ^ (odd + factor)) * factor  # the same in both must not cancel
    both = (both ^ (both >> half) ^ odd) * factor
    return both ^ (both >> half)


@borrowing()
def is_row(row, other):  # type: ignore[no-untyped-def]
    """Whether a row, (d,), is the other one."""
    for f in range(row.shape[0]):  # noqa: SIM110 - numba compiles no generator
        if row[f] != other[f]:
            return False
    return True


@compiled()
def repeat_kinds(distinct, places, copies, was, tiles):  # type: ignore[no-untyped-def]
    """Write as tiles (n_tiles, d4, 128) each row of other tiles, (m, d4, 128), as often as there are rows of its kind.

    places (n_rows,): where the row of each row's kind is among those; copies (n_kinds,): how many there are of each.
    was (n_rows,): which row each is now, out.
    """
    ends = np.zeros(copies.shape[0] + 1, np.int64)
    for i in range(copies.shape[0]):
        ends[i + 1] = ends[i] + copies[i]
    for row in range(places.shape[0]):
        i = places[row]
        was[ends[i]] = row
        ends[i] += 1
    sources, i = np.empty(TILE, np.int64), 0
    for t in range(tiles.shape[0]):
        n = min(TILE, places.shape[0] - t * TILE)
        for r in range(n):
            while ends[i] <= t * TILE + r:
                i += 1
            sources[r] = i
        for f in range(tiles.shape[1]):
            for r in range(n):
                tiles[t, f, r] = distinct[sources[r] // TILE, f, sources[r] % TILE]
