"""A packed block in, the same rows with near ones side by side out: so that most tiles lie in one cluster.

Rows of one or two features follow a curve (`curves`). Others are split by the nearest of 16 rows of theirs, and each
part again while that brings rows nearer to each other.
The first split moves the rows themselves, so that the later ones find theirs in the processor's cache.
Neighbouring tiles are then dealt over the block, so that any run of tiles is a fair sample and threads get equal work.
No result depends on the order of rows: sums are exact, and whatever names a row does so by its row id.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import curves
from kmeans_dask.kernels import TILE, borrowing, compiled
from kmeans_dask.scans import LABEL, WORK, scan_tile

Tiles = npt.NDArray[Any]
Order = npt.NDArray[np.uint32]
_PIVOTS = 16
_LEVELS = 3  # after the first; more would make parts of less than a tile
_LEAF_ROWS = 2 * TILE
LEAST_ROWS = 8 * TILE
_MOST_FEATURES = 1024
_DEALT = 64
_SAMPLE_ROWS = 8 * TILE
_FITTING = 3
_LEFT = 0.75  # a split is worth its time when it leaves less than this of the rows' spread


def worth_ordering(n_rows: int, n_features: int) -> bool:
    """Whether blocks of this shape are ordered: not few rows, nor so wide ones that gathering them costs too much."""
    return n_rows >= LEAST_ROWS and n_features <= _MOST_FEATURES


def order_tiles(tiles: Tiles, n_rows: int, n_features: int) -> Order:
    """Bring near rows of tiles (n_tiles, d4, 128) together, in place; return where each row was, (n_rows,)."""
    rows, was = np.empty((n_rows, tiles.shape[1]), tiles.dtype), np.empty(n_rows, np.uint32)
    if n_features <= curves.MOST_FEATURES and curves.place_rows(tiles, n_features, rows, was):
        order = np.arange(n_rows, dtype=np.uint32)
    else:
        order = order_rows(rows, deal_rows(tiles, rows, was))
    now = np.empty(n_rows, np.uint32)
    gather_tiles(rows, order, was, _places(n_rows), tiles, now)
    return now


def _places(n_rows: int) -> npt.NDArray[np.int64]:
    """Return the place of each tile when whole tiles are dealt to 64 hands, which then lie one after another."""
    n_whole = n_rows // TILE
    dealt = np.concatenate([np.arange(hand, n_whole, _DEALT) for hand in range(_DEALT)])
    places = np.empty(-(-n_rows // TILE), np.int64)
    places[dealt] = np.arange(n_whole)
    places[n_whole:] = n_whole
    return places


@borrowing()
def gathered(rows, order, tile):  # type: ignore[no-untyped-def]
    """Write up to 128 of the rows, those in this order, to a tile (d4, 128)."""
    # The first features fetch a cache line of every row, all of them at once.
    for f in range(0, rows.shape[1], 4):
        x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        for r in range(order.shape[0]):
            row = rows[order[r], f : f + 4]
            x0[r], x1[r], x2[r], x3[r] = row[0], row[1], row[2], row[3]


@compiled()
def gather_tiles(rows, order, was, places, tiles, now):  # type: ignore[no-untyped-def]
    """Write the rows in this order, (n,), as tiles (n_tiles, d4, 128), the i-th at places[i], and their was to now."""
    for i in range(tiles.shape[0]):
        chosen = order[i * TILE : min((i + 1) * TILE, order.shape[0])]
        gathered(rows, chosen, tiles[places[i]])
        for r in range(chosen.shape[0]):
            now[places[i] * TILE + r] = was[chosen[r]]


@compiled()
def chain(pivots):  # type: ignore[no-untyped-def]
    """Order pivots (16, d4), each followed by the nearest one left."""
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


@compiled()
def write_pivots(pivots, negative, squares):  # type: ignore[no-untyped-def]
    """Write what `scan_tile` needs of pivots (16, d4)."""
    n, d4 = pivots.shape
    for p in range(n):
        square = pivots.dtype.type(0)
        for f in range(d4):
            square += pivots[p, f] * pivots[p, f]
            negative[p, f] = -(pivots[p, f] + pivots[p, f])
        squares[p] = square


@compiled()
def pivots_of(rows, order, n, pivots, negative, squares):  # type: ignore[no-untyped-def]
    """Fit pivots (16, d4) to n of the rows in this order; return the share of their spread that is left."""
    d4 = rows.shape[1]
    tiles, work = np.empty((n // TILE, d4, TILE), rows.dtype), np.empty(WORK, rows.dtype)
    sample = np.empty(n, order.dtype)
    for i in range(n):
        sample[i] = order[(2 * i + 1) * order.shape[0] // (2 * n)]
    for t in range(n // TILE):
        gathered(rows, sample[t * TILE : (t + 1) * TILE], tiles[t])
    for p in range(_PIVOTS):
        pivots[p] = rows[sample[(2 * p + 1) * n // (2 * _PIVOTS)]]
    squared, explained = 0.0, 0.0
    mean = np.zeros(d4)
    for i in range(n):
        for f in range(d4):
            x = np.float64(rows[sample[i], f])
            mean[f] += x
            squared += x * x
    for f in range(d4):
        explained += mean[f] * mean[f] / n
    spread = squared - explained
    if not spread > 0.0:
        return 1.0
    for _ in range(_FITTING):
        write_pivots(pivots, negative, squares)
        explained = fit_once(rows, sample, tiles, negative, squares, work, pivots)
    chain(pivots)
    write_pivots(pivots, negative, squares)
    return (squared - explained) / spread


@compiled()
def fit_once(rows, sample, tiles, negative, squares, work, pivots):  # type: ignore[no-untyped-def]
    """Move each pivot to the mean of the sampled rows nearest to it; return the sum of n |mean|^2 over the pivots."""
    d4 = rows.shape[1]
    sums, counts = np.zeros((_PIVOTS, d4)), np.zeros(_PIVOTS)
    for t in range(tiles.shape[0]):
        scan_tile(tiles[t].reshape(-1), negative, squares, work)
        for r in range(TILE):
            p, row = int(work[LABEL + r]), rows[sample[t * TILE + r]]
            counts[p] += 1.0
            for f in range(d4):
                sums[p, f] += row[f]
    explained = 0.0
    for p in range(_PIVOTS):
        if counts[p] > 0.0:
            for f in range(d4):
                explained += sums[p, f] * sums[p, f] / counts[p]
                pivots[p, f] = sums[p, f] / counts[p]
    return explained


@compiled()
def deal_rows(tiles, rows, was):  # type: ignore[no-untyped-def]
    """Write the rows of tiles by the nearest of 16 pivots, (n, d4), and where each was; return the parts' starts."""
    n_rows, d4 = rows.shape
    pivots, work = np.empty((_PIVOTS, d4), rows.dtype), np.empty(WORK, rows.dtype)
    negative, squares = np.empty_like(pivots), np.empty(_PIVOTS, rows.dtype)
    n = min(_SAMPLE_ROWS, n_rows // TILE * TILE)
    sample = np.empty((n, d4), rows.dtype)
    for i in range(n):
        at = (2 * i + 1) * n_rows // (2 * n)
        for f in range(d4):
            sample[i, f] = tiles[at // TILE, f, at % TILE]
    pivots_of(sample, np.arange(n).astype(np.uint32), n, pivots, negative, squares)
    keys, starts = np.empty(n_rows, np.uint8), np.zeros(_PIVOTS + 1, np.int64)
    for t in range(tiles.shape[0]):
        scan_tile(tiles[t].reshape(-1), negative, squares, work)
        for r in range(min(TILE, n_rows - t * TILE)):
            key = np.uint8(work[LABEL + r])
            keys[t * TILE + r] = key
            starts[key + 1] += 1
    for p in range(_PIVOTS):
        starts[p + 1] += starts[p]
    at_part = starts.copy()
    for t in range(tiles.shape[0]):
        first = t * TILE
        for r in range(min(TILE, n_rows - first)):
            to = at_part[keys[first + r]]
            at_part[keys[first + r]] += 1
            was[to] = first + r
            place(tiles[t], r, rows[to])
    return starts


@borrowing(inline="always")
def place(tile, r, row):  # type: ignore[no-untyped-def]
    """Write the row of lane r, (d4,)."""
    for f in range(row.shape[0]):
        row[f] = tile[f, r]


@compiled()
def order_rows(rows, starts):  # type: ignore[no-untyped-def]
    """Return an order of rows (n, d4) in which each part stays where it is and its near rows follow each other."""
    n_rows = rows.shape[0]
    order, other, keys = (
        np.arange(n_rows).astype(np.uint32),
        np.empty(n_rows, np.uint32),
        np.empty(n_rows, np.uint8),
    )
    for p in range(starts.shape[0] - 1):
        a, b = starts[p], starts[p + 1]
        parts = np.array([a, b])
        for _ in range(_LEVELS):
            parts, done = split(rows, order, parts, other, keys)
            order[a:b] = other[a:b]
            if done == 0:
                break
    return order


@compiled()
def split(rows, order, starts, out, keys):  # type: ignore[no-untyped-def]
    """Split each part of order, from one start to the next, by the nearest of 16 pivots where that is worth its time.

    rows (n, d4), order (n,) uint32, starts (m + 1,): in; out (n,): out, keys (n,) uint8: work. Return the new starts,
    and how many parts were split.
    """
    d4 = rows.shape[1]
    tile, work = np.zeros((d4, TILE), rows.dtype), np.empty(WORK, rows.dtype)
    pivots = np.empty((_PIVOTS, d4), rows.dtype)
    negative, squares = np.empty_like(pivots), np.empty(_PIVOTS, rows.dtype)
    found, n_found, done = np.empty((starts.shape[0] - 1) * _PIVOTS + 1, np.int64), 0, 0
    counts = np.empty(_PIVOTS, np.int64)
    for g in range(starts.shape[0] - 1):
        a, b = starts[g], starts[g + 1]
        n = max(TILE, min(_SAMPLE_ROWS, (b - a) // 8) // TILE * TILE)
        if b - a <= _LEAF_ROWS or pivots_of(rows, order[a:b], n, pivots, negative, squares) >= _LEFT:
            out[a:b] = order[a:b]
            found[n_found] = a
            n_found += 1
            continue
        done += 1
        counts[:] = 0
        for first in range(a, b, TILE):
            n = min(TILE, b - first)
            gathered(rows, order[first : first + n], tile)
            scan_tile(tile.reshape(-1), negative, squares, work)
            for r in range(n):
                key = np.uint8(work[LABEL + r])
                keys[first + r] = key
                counts[key] += 1
        at = a
        for p in range(_PIVOTS):
            if counts[p] > 0:
                found[n_found] = at
                n_found += 1
            at += counts[p]
            counts[p] = at - counts[p]
        for i in range(a, b):
            key = keys[i]
            out[counts[key]] = order[i]
            counts[key] += 1
    found[n_found] = starts[-1]
    return found[: n_found + 1].copy(), done
