"""The compiled loops over equal rows: rows of a block in, the number of each one's kind out, and kinds back to rows.

bits (n_tiles, d4, 128): tiles as unsigned integers; rows of one kind are equal bit by bit.
"""

import numpy as np

from kmeans_dask.kernels import TILE, borrowing, compiled


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
def number_kinds(bits, n_rows, n_features, most, kinds, rows):  # type: ignore[no-untyped-def]
    """Number the different rows of tiles (n_tiles, d4, 128); return how many they are, or 0 if more than `most`.

    kinds (n_rows,): out, the number of each row; rows (n_rows, d4): out, the first of them one of each kind.
    """
    n_bits = 9
    while n_rows >> (n_bits - 1) > 0:
        n_bits += 1
    # Of each slot the kind, -1 for none, and some of the bits of its hash.
    slots, marks = np.full(1 << n_bits, -1, np.int32), np.empty(1 << n_bits, np.uint16)
    hashes, n = np.empty(TILE, np.uint64), 0
    for t in range(bits.shape[0]):
        write_hashes(bits[t], n_features, hashes)
        for r in range(min(TILE, n_rows - t * TILE)):
            slot = np.int64(hashes[r] >> np.uint64(64 - n_bits))
            mark = np.uint16(hashes[r] >> np.uint64(16))
            while slots[slot] >= 0 and not (
                marks[slot] == mark and is_row(bits[t], n_features, r, rows[slots[slot]])
            ):
                slot = (slot + 1) & ((1 << n_bits) - 1)
            if slots[slot] < 0:
                if n == most:
                    return 0
                slots[slot], marks[slot] = n, mark
                for f in range(bits.shape[1]):
                    rows[n, f] = bits[t, f, r]
                n += 1
            kinds[t * TILE + r] = slots[slot]
    return n


@borrowing()
def is_row(bits, n_features, r, row):  # type: ignore[no-untyped-def]
    """Whether a row of a tile, (d4, 128), is this one, (d4,)."""
    for f in range(n_features):  # noqa: SIM110 - numba compiles no generator
        if bits[f, r] != row[f]:
            return False
    return True


@compiled()
def repeat_kinds(distinct, which, kinds, copies, was, tiles):  # type: ignore[no-untyped-def]
    """Write as tiles (n_tiles, d4, 128) each row of other tiles, (m, d4, 128), as often as there are rows of its kind.

    which (n_kinds,): the kind of each of those rows; kinds (n_rows,): of each row. copies (n_kinds,) int32, from zero:
    how often each was written, and was (n_rows,): which row each is now, out.
    """
    now, ends = np.empty(which.shape[0], np.uint32), np.zeros(which.shape[0] + 1, np.int64)
    for i in range(which.shape[0]):
        now[which[i]] = i
    for kind in kinds:
        copies[now[kind]] += 1
    for i in range(which.shape[0]):
        ends[i + 1] = ends[i] + copies[i]
    for row in range(kinds.shape[0]):
        i = now[kinds[row]]
        was[ends[i]] = row
        ends[i] += 1
    sources, i = np.empty(TILE, np.int64), 0
    for t in range(tiles.shape[0]):
        n = min(TILE, kinds.shape[0] - t * TILE)
        for r in range(n):
            while ends[i] <= t * TILE + r:
                i += 1
            sources[r] = i
        for f in range(tiles.shape[1]):
            for r in range(n):
                tiles[t, f, r] = distinct[sources[r] // TILE, f, sources[r] % TILE]
