"""Rows of one or two features in the order of a curve through the cells of a grid (D. Hilbert, 1891).

Cells are smaller where rows are dense: a stretch of a feature with four times the rows has twice the cells, which makes
cells small where it counts most (P. Zador, Development and evaluation of procedures for quantizing multivariate
distributions, 1964). More features are left to `ordering`: cells that are small along all of them are too many.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask.kernels import borrowing, compiled, write_tiles
from kmeans_dask.tiles import TILE

MOST_FEATURES = 2
_ROWS_OF_CELL = 4  # on average
_MOST_BITS = 16  # of a cell's number
_BINS = 4096  # of equal width along a feature; rows are assigned to them, and they to cells
_STRETCH = 32  # of these bins, whose rows are counted together
_SAMPLE_ROWS = 64 * TILE
_CROWDED = 8  # what part of all rows may lie in one cell


def sort_along(tiles: npt.NDArray[Any], n_rows: int, n_features: int, was: npt.NDArray[np.uint32]) -> bool:
    """Bring the rows of tiles (n_tiles, d4, 128) into the order of the curve, in place.

    was, at least (n_rows,): out, where each row was. Return whether that was done: it is not where too many rows lie in
    one cell.
    """
    bits = min(int(np.log2(n_rows / _ROWS_OF_CELL + 1)), _MOST_BITS) // n_features
    return bool(deal_cells(tiles, n_rows, curve_of(bits, n_features), bits, n_features, was))


@compiled()
def curve_of(bits, n_features):  # type: ignore[no-untyped-def]
    """Return the place on the curve of each cell, (2 ** (n_features * bits),) uint16.

    The number of a cell is made of its place along each feature, in so many bits each.
    """
    curve = np.arange(1 << (n_features * bits)).astype(np.uint16)
    if n_features == 1:
        return curve
    side = 1 << bits
    for cell in range(curve.shape[0]):
        x, y, place, half = cell >> bits, cell & (side - 1), 0, side >> 1
        while half > 0:
            right, up = (x & half) > 0, (y & half) > 0
            place += half * half * ((3 * right) ^ up)
            if not up:  # a quarter of the curve is turned
                if right:
                    x, y = side - 1 - x, side - 1 - y
                x, y = y, x
            half >>= 1
        curve[cell] = place
    return curve


@compiled()
def fit_grid(tiles, n_rows, bits, lows, steps, places):  # type: ignore[no-untyped-def]
    """Fit a grid to a sample of rows: lows, steps (d,) of the bins along each feature; of each its cell, (d, bins)."""
    n = min(_SAMPLE_ROWS, n_rows)
    values, roots = np.empty(n, tiles.dtype), np.empty(_BINS // _STRETCH)
    for f in range(lows.shape[0]):
        for i in range(n):
            at = (2 * i + 1) * n_rows // (2 * n)
            values[i] = tiles[at // TILE, f, at % TILE]
        values.sort()
        low, high = np.float64(values[n // 64]), np.float64(values[n - 1 - n // 64])
        margin = (high - low) / 2.0  # what lies beyond is in the last bins
        low, high = max(np.float64(values[0]), low - margin), min(np.float64(values[n - 1]), high + margin)
        lows[f], steps[f] = low, _BINS / (high - low) if high > low else 0.0
        steps[f] = steps[f] if steps[f] < np.inf else 0.0  # of the smallest numbers
        roots[:] = 0.0
        for i in range(n):
            roots[bin_of(values[i], lows[f], steps[f]) // _STRETCH] += 1.0
        roots[:] = np.sqrt(roots)
        before, unit = 0.0, (1 << bits) / (roots.sum() * _STRETCH)
        for b in range(_BINS):
            root = roots[b // _STRETCH]
            places[f, b] = min(int((before + root / 2.0) * unit), (1 << bits) - 1)
            before += root


@borrowing(inline="always")
def bin_of(x, low, step):  # type: ignore[no-untyped-def]
    """Return the bin of a value; of NaN, the first."""
    at = (x - low) * step
    at = at if at > np.float32(0.0) else np.float32(0.0)
    return np.int32(at if at < np.float32(_BINS - 1) else np.float32(_BINS - 1))


@compiled()
def deal_cells(tiles, n_rows, curve, bits, n_features, was):  # type: ignore[no-untyped-def]
    """Do what `sort_along` does, with cells of so many bits along each feature."""
    lows, steps = np.empty(n_features, tiles.dtype), np.empty(n_features, tiles.dtype)
    places = np.empty((n_features, _BINS), np.uint16)
    fit_grid(tiles, n_rows, bits, lows, steps, places)
    keys, cells = np.empty(n_rows, np.uint16), np.empty(TILE, np.int32)
    ends = np.zeros(curve.shape[0] + 1, np.int64)
    for t in range(tiles.shape[0]):
        cells[:] = 0
        for f in range(n_features):
            x, low, step, place = tiles[t, f], lows[f], steps[f], places[f]
            for r in range(TILE):
                cells[r] = cells[r] << bits | place[bin_of(x[r], low, step)]
        for r in range(min(TILE, n_rows - t * TILE)):
            key = curve[cells[r]]
            keys[t * TILE + r] = key
            ends[np.int64(key) + 1] += 1
    if ends.max() * _CROWDED > n_rows:
        return False
    for c in range(curve.shape[0]):
        ends[c + 1] += ends[c]
    rows = np.empty((n_rows, n_features), tiles.dtype)
    for t in range(tiles.shape[0]):
        for r in range(min(TILE, n_rows - t * TILE)):
            at = t * TILE + r
            to = ends[keys[at]]
            ends[keys[at]] += 1
            was[to] = at
            for f in range(n_features):
                rows[to, f] = tiles[t, f, r]
    write_tiles(rows, tiles)
    return True
