"""The exact sums of each cluster, kept up to date as rows and whole tiles go from one to another.

totals = (high, low (k, d), rows (k,), high, low of the weights, (k,) or (0,)), all int64: see `sums`.
ledger = (weights (n_rows,) or (0,), factors (d + 1,), totals, moves); moves: room for the rows of a tile that go from
one cluster to another, their lanes, (128,) int64, and their clusters before, -1 for none, and after, (128,) int32.
"""

import numpy as np

from kmeans_dask.kernels import TILE, compiled

_WIDE = 256  # features from which rows of a tile are moved together: one row's values lie far apart


@compiled()
def sums_of_tiles(tiles, n_rows, weights, factors, high, low):  # type: ignore[no-untyped-def]
    """Write each tile's sums, high and low (n_tiles, d + 1) int64, of its values and, last, of its weights, if any."""
    weighted = weights.shape[0] > 0
    d = high.shape[1] - 1
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        for f in range(d):
            factor = factors[f]
            total_high, total_low = np.int64(0), np.int64(0)
            for r in range(rows):
                x = np.float64(tiles[t, f, r])
                if weighted:
                    x = weights[first + r] * x
                y = x * factor
                h = np.int64(y)
                total_high += h
                total_low += np.int64((y - np.float64(h)) * 4294967296.0)
            high[t, f], low[t, f] = total_high, total_low
        high[t, d] = low[t, d] = 0
        if weighted:
            for r in range(rows):
                y = weights[first + r] * factors[d]
                h = np.int64(y)
                high[t, d] += h
                low[t, d] += np.int64((y - np.float64(h)) * 4294967296.0)


@compiled()
def move_tile(t, tile_sums, totals, n, old, new):  # type: ignore[no-untyped-def]
    """Take the n rows of a tile from a cluster's sums to another's; old -1: from none."""
    tile_high, tile_low = tile_sums
    high, low, rows, weight_high, weight_low = totals
    d = high.shape[1]
    for f in range(d):
        high[new, f] += tile_high[t, f]
        low[new, f] += tile_low[t, f]
    rows[new] += n
    if weight_high.shape[0] > 0:
        weight_high[new] += tile_high[t, d]
        weight_low[new] += tile_low[t, d]
    if old < 0:
        return
    for f in range(d):
        high[old, f] -= tile_high[t, f]
        low[old, f] -= tile_low[t, f]
    rows[old] -= n
    if weight_high.shape[0] > 0:
        weight_high[old] -= tile_high[t, d]
        weight_low[old] -= tile_low[t, d]


@compiled()
def move_row(ledger, lanes, r, at, old, new):  # type: ignore[no-untyped-def]
    """Take the row of lane r, the block's row `at`, from a cluster's sums to another's; old -1: from none."""
    weights, factors, totals, _ = ledger
    high, low, rows, weight_high, weight_low = totals
    d = high.shape[1]
    weighted = weights.shape[0] > 0
    for f in range(d):
        x = np.float64(lanes[f, r])
        if weighted:
            x = weights[at] * x
        y = x * factors[f]
        h = np.int64(y)
        rest = np.int64((y - np.float64(h)) * 4294967296.0)
        high[new, f] += h
        low[new, f] += rest
        if old >= 0:
            high[old, f] -= h
            low[old, f] -= rest
    rows[new] += 1
    if old >= 0:
        rows[old] -= 1
    if weighted:
        y = weights[at] * factors[d]
        h = np.int64(y)
        rest = np.int64((y - np.float64(h)) * 4294967296.0)
        weight_high[new] += h
        weight_low[new] += rest
        if old >= 0:
            weight_high[old] -= h
            weight_low[old] -= rest


@compiled()
def room_for_moves():  # type: ignore[no-untyped-def]
    """Return the room for moves."""
    return np.empty(TILE, np.int64), np.empty(TILE, np.int32), np.empty(TILE, np.int32)


@compiled()
def move_rows(ledger, lanes, places, m):  # type: ignore[no-untyped-def]
    """Make the first m moves; places: of all lanes, (d4, width), in the block."""
    weights, factors, totals, (which, old, new) = ledger
    high, low, rows, weight_high, weight_low = totals
    d = high.shape[1]
    if d < _WIDE:
        for i in range(m):
            move_row(ledger, lanes, which[i], places[which[i]], old[i], new[i])
        return
    weighted = weights.shape[0] > 0
    for f in range(d + 1 if weighted else d):
        to_high, to_low = (high[:, f], low[:, f]) if f < d else (weight_high[::1], weight_low[::1])
        for i in range(m):
            x = np.float64(lanes[f, which[i]]) if f < d else 1.0
            if weighted:
                x = weights[places[which[i]]] * x
            y = x * factors[f]
            h = np.int64(y)
            rest = np.int64((y - np.float64(h)) * 4294967296.0)
            to_high[new[i]] += h
            to_low[new[i]] += rest
            if old[i] >= 0:
                to_high[old[i]] -= h
                to_low[old[i]] -= rest
    for i in range(m):
        rows[new[i]] += 1
        if old[i] >= 0:
            rows[old[i]] -= 1
