"""A packed block in, the same rows with near ones side by side out: so that most tiles lie in one cluster.

Rows of one or two features follow a curve (`curves`). Others are split by the nearest of 16 rows of theirs, and each
part again while that brings rows nearer to each other.
The first split writes rows as pages, each of 128 rows of one part, over tiles that have been read; a part's pages are
read into the processor's cache, split there, and written over as tiles. So beside the tiles it takes room for the
largest part, and for 4,096 rows: fresh memory can cost more than all the rest, where a machine has given back what it
had free.
No result depends on the order of rows: sums are exact, and whatever names a row does so by its row id.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import curves
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.scans import LABEL, WORK, scan_tile
from kmeans_dask.tiles import TILE

Tiles = npt.NDArray[Any]
Order = npt.NDArray[np.uint32]
_PIVOTS = 16
_LEVELS = 3  # after the first; more would make parts of less than a tile
_LEAF_ROWS = 2 * TILE
LEAST_ROWS = 8 * TILE
_MOST_FEATURES = 1024
_SAMPLE_ROWS = 8 * TILE
_FITTING = 3
_LEFT = 0.75  # a split is worth its time when it leaves less than this of the rows' spread


def worth_ordering(n_rows: int, n_features: int) -> bool:
    """Whether blocks of this shape are ordered: not few rows, nor so wide ones that gathering them costs too much."""
    return n_rows >= LEAST_ROWS and n_features <= _MOST_FEATURES


def order_tiles(tiles: Tiles, n_rows: int, n_features: int) -> Order:
    """Bring near rows of tiles (n_tiles, d4, 128) together, in place; return where each row was, (n_rows,)."""
    was = np.empty(len(tiles) * TILE, np.uint32)
    if n_features > curves.MOST_FEATURES or not curves.sort_along(tiles, n_rows, n_features, was):
        sort_pages(tiles, was, *deal_rows(tiles, n_rows, was))
    return was[:n_rows]


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
def deal_rows(tiles, n_rows, was):  # type: ignore[no-untyped-def]
    """Write the rows of tiles (n_tiles, d4, 128) over them as pages (128, d4) of rows nearest to the same of 16 pivots.

    was (n_tiles * 128,): out, where the rows of each page were. Return the part of each page, (n_pages,); of each part
    two pages that were begun, (16, 2, 128, d4), where their rows were, (16, 2, 128), and counts (2, 16): of the part's
    rows, and of its pages, after which rows are left in the page begun last.
    """
    n_tiles, d4, _ = tiles.shape
    negative, squares = pivots_of_tiles(tiles, n_rows)
    pages, work, to = tiles.reshape(n_tiles, TILE, d4), np.empty(WORK, tiles.dtype), np.empty(TILE, np.int64)
    # Of each part two pages, written in turn: one tile at most fills one of them.
    begun, begun_was = np.empty((_PIVOTS, 2, TILE, d4), tiles.dtype), np.empty((_PIVOTS, 2, TILE), np.uint32)
    rows, ids = begun.reshape(_PIVOTS * 2 * TILE, d4), begun_was.reshape(_PIVOTS * 2 * TILE)
    parts, n_pages, counts = np.empty(n_tiles, np.uint8), 0, np.zeros((2, _PIVOTS), np.int64)
    for t in range(n_tiles):
        scan_tile(tiles[t].reshape(-1), negative, squares, work)
        n = min(TILE, n_rows - t * TILE)
        for r in range(n):
            part = int(work[LABEL + r])
            to[r] = part * 2 * TILE + counts[0, part] % (2 * TILE)
            ids[to[r]] = t * TILE + r
            counts[0, part] += 1
        place(tiles[t], to[:n], rows)
        for part in range(_PIVOTS):
            if counts[0, part] // TILE > counts[1, part]:
                full = counts[1, part] % 2
                pages[n_pages], parts[n_pages] = begun[part, full], part
                was[n_pages * TILE : (n_pages + 1) * TILE] = begun_was[part, full]
                counts[1, part] += 1
                n_pages += 1
    return parts[:n_pages], begun, begun_was, counts


@compiled()
def pivots_of_tiles(tiles, n_rows):  # type: ignore[no-untyped-def]
    """Return what `scan_tile` needs of 16 pivots of the rows of tiles (n_tiles, d4, 128)."""
    d4 = tiles.shape[1]
    n = min(_SAMPLE_ROWS, n_rows // TILE * TILE)
    sample, pivots = np.empty((n, d4), tiles.dtype), np.empty((_PIVOTS, d4), tiles.dtype)
    negative, squares = np.zeros_like(pivots), np.zeros(_PIVOTS, tiles.dtype)  # of equal rows, as they are
    for i in range(n):
        at = (2 * i + 1) * n_rows // (2 * n)
        for f in range(d4):
            sample[i, f] = tiles[at // TILE, f, at % TILE]
    pivots_of(sample, np.arange(n).astype(np.uint32), n, pivots, negative, squares)
    return negative, squares


@borrowing()
def place(tile, to, rows):  # type: ignore[no-untyped-def]
    """Write the rows of a tile (d4, 128), of some of its first lanes, to these places among rows (n, d4)."""
    for f in range(0, tile.shape[0], 4):
        x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        for r in range(to.shape[0]):
            row = rows[np.uint64(to[r]), f : f + 4]
            row[0], row[1], row[2], row[3] = x0[r], x1[r], x2[r], x3[r]


@compiled()
def sort_pages(tiles, was, parts, begun, begun_was, counts):  # type: ignore[no-untyped-def]
    """Write the rows of pages, see `deal_rows`, over them as tiles (n_tiles, d4, 128) of near rows.

    was (n_tiles * 128,): in, where the rows of pages were; out, where those of tiles were. The others: what `deal_rows`
    returned.
    """
    n_tiles, d4, _ = tiles.shape
    pages = tiles.reshape(n_tiles, TILE, d4)
    room = TILE + counts[0].max()  # for a part behind rows of the one before that fill no tile
    rows, ids = np.empty((room, d4), tiles.dtype), np.empty(room, np.uint32)
    order, other, keys = np.empty(room, np.uint32), np.empty(room, np.uint32), np.empty(room, np.uint8)
    # Tiles without a page, the last one first: it is taken last, as it may have fewer rows.
    free, n_free, n_left = n_tiles - 1 - np.arange(n_tiles), n_tiles - parts.shape[0], 0
    for part in range(_PIVOTS):
        n = n_left
        for page in range(parts.shape[0]):
            if parts[page] == part:
                rows[n : n + TILE], ids[n : n + TILE] = pages[page], was[page * TILE : (page + 1) * TILE]
                free[n_free] = page
                n, n_free = n + TILE, n_free + 1
        n_rest, last = counts[0, part] % TILE, counts[1, part] % 2
        rows[n : n + n_rest], ids[n : n + n_rest] = begun[part, last, :n_rest], begun_was[part, last, :n_rest]
        n += n_rest
        order[:n] = np.arange(n)
        order_rows(rows, order, n_left, n, other, keys)
        for first in range(0, n - TILE + 1, TILE):
            n_free -= 1
            write_tile(
                rows, ids, order[first : first + TILE], tiles[free[n_free]], was[free[n_free] * TILE :]
            )
        n_left = n % TILE
        left = order[n - n_left : n].copy()
        rows[:n_left], ids[:n_left] = rows[left], ids[left]
    if n_left > 0:
        tiles[-1] = 0
        write_tile(rows, ids, np.arange(n_left).astype(np.uint32), tiles[-1], was[(n_tiles - 1) * TILE :])


@borrowing()
def write_tile(rows, ids, order, tile, was):  # type: ignore[no-untyped-def]
    """Write up to 128 of the rows, those in this order, to a tile (d4, 128), and their ids."""
    gathered(rows, order, tile)
    for r in range(order.shape[0]):
        was[r] = ids[order[r]]


@compiled()
def order_rows(rows, order, first, stop, other, keys):  # type: ignore[no-untyped-def]
    """Bring a stretch of the order of rows (n, d4), in place, to where near rows follow each other.

    other, keys: work, as long as the order.
    """
    parts = np.array([first, stop])
    for _ in range(_LEVELS):
        parts, done = split(rows, order, parts, other, keys)
        order[first:stop] = other[first:stop]
        if done == 0:
            break


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
