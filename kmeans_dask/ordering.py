"""A packed block in, the same rows with near ones side by side out: so that most tiles lie in one cluster.

Rows are split by the nearest of 16 rows of theirs, and each part again while that brings rows nearer to each other.
Neighbouring tiles are then dealt over the block, so that any run of tiles is a fair sample and threads get equal work.
No result depends on the order of rows: sums are exact, and whatever names a row does so by its row id.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask.kernels import TILE, WORK, compiled, scan_tile

Rows = npt.NDArray[Any]
Order = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]
_PIVOTS = 16
_LEVELS = 4  # more would make parts of less than a tile
_LEAF_ROWS = 2 * TILE
LEAST_ROWS = 32 * TILE
_MOST_FEATURES = 1024
_DEALT = 64
_SAMPLE_ROWS = 8 * TILE
_FITTING = 4
_LEFT = 0.75  # a split is worth its time when it leaves less than this of the rows' spread


def worth_ordering(n_rows: int, n_features: int) -> bool:
    """Whether blocks of this shape are ordered: not few rows, nor so wide ones that gathering them costs too much."""
    return n_rows >= LEAST_ROWS and n_features <= _MOST_FEATURES


def nearness_order(rows: Rows) -> tuple[Order, Places]:
    """Return the order of rows (n, d4) in which near ones follow each other, and the place of each of its tiles."""
    n_rows = len(rows)
    order, other = np.arange(n_rows, dtype=np.uint32), np.empty(n_rows, np.uint32)
    starts = np.array([0, n_rows])
    for level in range(_LEVELS):
        next_starts = np.empty((len(starts) - 1) * _PIVOTS + 1, np.int64)
        if not split(rows, order, starts, other, next_starts, level == 0):
            break
        order, other = other, order
        starts = next_starts[np.flatnonzero(np.diff(next_starts, append=n_rows + 1))]
    return order, _dealt(n_rows)


def _dealt(n_rows: int) -> Places:
    """Return the place of each tile when whole tiles are dealt to 64 hands, which then lie one after another."""
    n_whole = n_rows // TILE
    dealt = np.concatenate([np.arange(hand, n_whole, _DEALT) for hand in range(_DEALT)])
    places = np.empty(-(-n_rows // TILE), np.int64)
    places[dealt] = np.arange(n_whole)
    places[n_whole:] = n_whole
    return places


@compiled()
def rows_of(tiles, rows):  # type: ignore[no-untyped-def]
    """Write the rows (n, d4) of tiles (n_tiles, d4, 128)."""
    for t in range(tiles.shape[0]):
        first = t * TILE
        for begin in range(0, tiles.shape[1], 16):  # a cache line of each row at a time
            for r in range(min(TILE, rows.shape[0] - first)):
                for f in range(begin, min(begin + 16, tiles.shape[1])):
                    rows[first + r, f] = tiles[t, f, r]


@compiled()
def gather_ids(order, places, ids):  # type: ignore[no-untyped-def]
    """Write order (n,) as `gather_tiles` lays the rows out."""
    for i in range(places.shape[0]):
        first, to = i * TILE, places[i] * TILE
        for r in range(min(TILE, order.shape[0] - first)):
            ids[to + r] = order[first + r]


@compiled()
def gathered(rows, order, tile):  # type: ignore[no-untyped-def]
    """Write up to 128 of the rows, those in this order, to a tile (d4, 128)."""
    for first in range(0, rows.shape[1], 16):  # a cache line of each row at a time
        for r in range(order.shape[0]):
            row = order[r]
            for f in range(first, min(first + 16, rows.shape[1])):
                tile[f, r] = rows[row, f]


@compiled()
def gather_tiles(rows, order, places, tiles):  # type: ignore[no-untyped-def]
    """Write the rows in this order, (n,), as tiles (n_tiles, d4, 128), the i-th at places[i]."""
    for i in range(tiles.shape[0]):
        gathered(rows, order[i * TILE : min((i + 1) * TILE, order.shape[0])], tiles[places[i]])


@compiled()
def chain(pivots, negative, squares):  # type: ignore[no-untyped-def]
    """Order pivots (16, d4), each followed by the nearest one left, and write what `scan_tile` needs of them."""
    n, d4 = pivots.shape
    for p in range(1, n):
        nearest, least = p, np.inf
        for q in range(p, n):
            distance = 0.0
            for f in range(d4):
                difference = np.float64(pivots[q, f]) - np.float64(pivots[p - 1, f])
                distance += difference * difference
            if distance < least:
                nearest, least = q, distance
        for f in range(d4):
            x = pivots[nearest, f]
            pivots[nearest, f] = pivots[p, f]
            pivots[p, f] = x
    for p in range(n):
        square = pivots.dtype.type(0)
        for f in range(d4):
            square += pivots[p, f] * pivots[p, f]
            negative[p, f] = -(pivots[p, f] + pivots[p, f])
        squares[p] = square


@compiled()
def starts_of(starts, first):  # type: ignore[no-untyped-def]
    """Turn counts of parts, (16,), into where each starts, from first on."""
    at = first
    for p in range(starts.shape[0]):
        count = starts[p]
        starts[p] = at
        at += count


@compiled()
def pivots_of(rows, order, pivots, negative, squares):  # type: ignore[no-untyped-def]
    """Fit pivots (16, d4) to a sample of the rows in this order; return the share of its spread that they leave."""
    d4 = rows.shape[1]
    n = max(TILE, min(_SAMPLE_ROWS, order.shape[0] // 8) // TILE * TILE)
    tiles, work = np.empty((n // TILE, d4, TILE), rows.dtype), np.empty(WORK, rows.dtype)
    sample = np.empty(n, order.dtype)
    for i in range(n):
        sample[i] = order[(2 * i + 1) * order.shape[0] // (2 * n)]
    for t in range(n // TILE):
        gathered(rows, sample[t * TILE : (t + 1) * TILE], tiles[t])
    for p in range(_PIVOTS):
        for f in range(d4):
            pivots[p, f] = rows[sample[(2 * p + 1) * n // (2 * _PIVOTS)], f]
    for _ in range(_FITTING):
        chain(pivots, negative, squares)
        left = fit_once(tiles, negative, squares, work, pivots)
    chain(pivots, negative, squares)
    return left


@compiled()
def fit_once(tiles, negative, squares, work, pivots):  # type: ignore[no-untyped-def]
    """Move each pivot to the mean of the rows nearest to it; return the share of the rows' spread that is left."""
    n_tiles, d4, _ = tiles.shape
    sums, counts, mean = np.zeros((_PIVOTS, d4)), np.zeros(_PIVOTS), np.zeros(d4)
    total = 0.0
    for t in range(n_tiles):
        scan_tile(tiles[t].reshape(-1), negative, squares, work)
        for r in range(TILE):
            counts[int(work[6 * TILE + r])] += 1.0
        for f in range(d4):
            for r in range(TILE):
                x = np.float64(tiles[t, f, r])
                sums[int(work[6 * TILE + r]), f] += x
                mean[f] += x
                total += x * x
    n = n_tiles * TILE
    left = total
    for f in range(d4):
        total -= mean[f] * mean[f] / n
    for p in range(_PIVOTS):
        if counts[p] > 0.0:
            for f in range(d4):
                left -= sums[p, f] * sums[p, f] / counts[p]
                pivots[p, f] = sums[p, f] / counts[p]
    return left / total if total > 0.0 else 1.0


@compiled()
def split(rows, order, starts, out, out_starts, always):  # type: ignore[no-untyped-def]
    """Split each part of order, from one start to the next, by the nearest of 16 pivots; return how many were.

    rows (n, d4), order (n,) uint32, starts (m + 1,): in; out (n,), out_starts (16 m + 1,): out.
    """
    d4 = rows.shape[1]
    tile, work = np.zeros((d4, TILE), rows.dtype), np.empty(WORK, rows.dtype)
    pivots = np.empty((_PIVOTS, d4), rows.dtype)
    negative, squares = np.empty_like(pivots), np.empty(_PIVOTS, rows.dtype)
    keys = np.empty(rows.shape[0], np.uint8)
    done = 0
    for g in range(starts.shape[0] - 1):
        a, b = starts[g], starts[g + 1]
        parts = out_starts[g * _PIVOTS : (g + 1) * _PIVOTS]
        wanted = b - a > _LEAF_ROWS and (
            pivots_of(rows, order[a:b], pivots, negative, squares) < _LEFT or always
        )
        if not wanted:
            out[a:b] = order[a:b]
            parts[0] = a
            parts[1:] = b
            continue
        done += 1
        parts[:] = 0
        for first in range(a, b, TILE):
            n = min(TILE, b - first)
            gathered(rows, order[first : first + n], tile)
            scan_tile(tile.reshape(-1), negative, squares, work)
            for r in range(n):
                key = np.uint8(work[6 * TILE + r])
                keys[first + r] = key
                parts[key] += 1
        starts_of(parts, a)
        at = parts.copy()
        for i in range(a, b):
            key = keys[i]
            out[at[key]] = order[i]
            at[key] += 1
    out_starts[out_starts.shape[0] - 1] = order.shape[0]
    return done
