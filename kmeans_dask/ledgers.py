"""The exact sums of each cluster, kept up to date as rows and whole tiles go from one to another.

totals = (high, low (k, d), rows (k,), high, low of the weights, (k,) or (0,)), all int64: see `sums`.
ledger = (weights (n_rows,) or (0,), factors (d + 1,), totals, moves, copies (n_rows,) or (0,): see `blocks.Block`);
moves: room for the rows of a tile that go from one cluster to another, their lanes, (128,) int64, their clusters
before, -1 for none, and after, (128,) int32; and room for what they add to sums: scaled values of some rows, one row
after the other, (n,) float64, n at least d, and their limbs, (2, n + 24) int64.
"""

import numpy as np

from kmeans_dask.kernels import borrowing, compiled, limbs_of
from kmeans_dask.tiles import TILE

_WIDE = 256  # features from which rows of a tile are moved feature by feature: one row's values lie far apart
_NARROW, _WORTH_SHARING = 8, 32  # of fewer features, or fewer values in all, rows are moved one by one
_AT_ONCE = 512  # else so many values together
_APART = 24  # by how many more their high and low limbs lie apart: not by 4096 bytes, which a processor takes for alike


@compiled()
def sums_of_tiles(tiles, n_rows, weights, copies, factors, high, low):  # type: ignore[no-untyped-def]
    """Write each tile's sums, high and low (n_tiles, d + 1) int64, of its values and, last, of its weights, if any."""
    weighted, repeated = weights.shape[0] > 0, copies.shape[0] > 0
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
                h, rest = limbs_of(x * factor)
                count = copies[first + r] if repeated else 1
                total_high += h * count
                total_low += rest * count
            high[t, f], low[t, f] = total_high, total_low
        high[t, d] = low[t, d] = 0
        if weighted:
            for r in range(rows):
                h, rest = limbs_of(weights[first + r] * factors[d])
                high[t, d] += h
                low[t, d] += rest


@borrowing()
def count_copies(copies, first, stop):  # type: ignore[no-untyped-def]
    """Return how many rows some packed ones stand for."""
    if copies.shape[0] == 0:
        return stop - first
    n = 0
    for at in range(first, stop):
        n += copies[at]
    return n


@borrowing()
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


@borrowing(inline="always")
def move_row(ledger, lanes, r, at, old, new):  # type: ignore[no-untyped-def]
    """Take the row of lane r, the block's row `at`, from a cluster's sums to another's; old -1: from none."""
    weights, factors, (high, low, _, _, _), _, copies = ledger
    weighted = weights.shape[0] > 0
    count = copies[at] if copies.shape[0] > 0 else 1
    for f in range(high.shape[1]):
        x = np.float64(lanes[f, r])
        if weighted:
            x = weights[at] * x
        h, rest = limbs_of(x * factors[f])
        h, rest = h * count, rest * count
        high[new, f] += h
        low[new, f] += rest
        if old >= 0:
            high[old, f] -= h
            low[old, f] -= rest
    count_row(ledger, at, old, new)


@borrowing(inline="always")
def count_row(ledger, at, old, new):  # type: ignore[no-untyped-def]
    """Count the block's row `at`, and its weight, where it goes, and no longer where it was; old -1: nowhere."""
    weights, factors, (_, _, rows, weight_high, weight_low), _, copies = ledger
    count = copies[at] if copies.shape[0] > 0 else 1
    rows[new] += count
    if old >= 0:
        rows[old] -= count
    if weights.shape[0] > 0:
        h, rest = limbs_of(weights[at] * factors[factors.shape[0] - 1])
        weight_high[new] += h
        weight_low[new] += rest
        if old >= 0:
            weight_high[old] -= h
            weight_low[old] -= rest


@compiled()
def room_for_moves(n_features):  # type: ignore[no-untyped-def]
    """Return the room for moves: lanes, clusters before and after; and scaled values of rows, and their limbs."""
    size = max(_AT_ONCE, n_features)
    return (
        np.empty(TILE, np.int64), np.empty(TILE, np.int32), np.empty(TILE, np.int32),
        np.empty(size), np.empty((2, size + _APART), np.int64),
    )  # fmt: skip


@borrowing()
def move_rows(ledger, lanes, places, m):  # type: ignore[no-untyped-def]
    """Make the first m moves; places: of all lanes, (d4, width), in the block."""
    weights, factors, totals, (which, old, new, _, _), copies = ledger
    d = totals[0].shape[1]
    if copies.shape[0] == 0 and d >= _WIDE and m > 0:
        move_wide_rows(weights, factors, totals, (which[:m], old[:m], new[:m]), lanes, places)
        return
    if d < _NARROW or m * d < _WORTH_SHARING:
        for i in range(m):
            move_row(ledger, lanes, which[i], places[which[i]], old[i], new[i])
    else:
        move_many_rows(ledger, lanes, places, m)


@borrowing()
def move_many_rows(ledger, lanes, places, m):  # type: ignore[no-untyped-def]
    """Do what `move_rows` does, some rows after the others: scaled, split into limbs, and added, all of them."""
    weights, factors, totals, (which, old, new, values, limbs), copies = ledger
    d = totals[0].shape[1]
    at_once = values.shape[0] // d
    for first in range(0, m, at_once):
        n = min(at_once, m - first)
        some = which[first : first + n]
        scale_rows(lanes, some, places, weights, factors, values)
        split_values(values[: n * d], 1.0, limbs)
        if copies.shape[0] > 0:
            repeat_rows(limbs, some, places, copies, d)
        for i in range(n):
            before, after = old[first + i], new[first + i]
            add_row(totals, limbs[0, i * d : (i + 1) * d], limbs[1, i * d : (i + 1) * d], after)
            if before >= 0:
                take_row(totals, limbs[0, i * d : (i + 1) * d], limbs[1, i * d : (i + 1) * d], before)
            count_row(ledger, places[some[i]], before, after)


@borrowing()
def scale_rows(lanes, some, places, weights, factors, values):  # type: ignore[no-untyped-def]
    """Write weight * value * factor of the rows of some lanes, (m,) int64, to the first m * d of the values."""
    d = factors.shape[0] - 1
    if weights.shape[0] > 0:
        for i in range(some.shape[0]):
            weight = weights[places[some[i]]]
            for f in range(d):
                values[i * d + f] = weight * np.float64(lanes[f, some[i]]) * factors[f]
        return
    for f in range(0, d - 3, 4):
        x0, x1, x2, x3 = lanes[f], lanes[f + 1], lanes[f + 2], lanes[f + 3]
        s0, s1, s2, s3 = factors[f], factors[f + 1], factors[f + 2], factors[f + 3]
        for i in range(some.shape[0]):
            r, at = np.uint64(some[i]), np.uint64(i * d + f)  # unsigned: no look for negative ones
            values[at] = np.float64(x0[r]) * s0
            values[at + np.uint64(1)] = np.float64(x1[r]) * s1
            values[at + np.uint64(2)] = np.float64(x2[r]) * s2
            values[at + np.uint64(3)] = np.float64(x3[r]) * s3
    for f in range(d // 4 * 4, d):
        x, factor = lanes[f], factors[f]
        for i in range(some.shape[0]):
            values[np.uint64(i * d + f)] = np.float64(x[np.uint64(some[i])]) * factor


@borrowing()
def repeat_rows(limbs, some, places, copies, d):  # type: ignore[no-untyped-def]
    """Multiply the limbs, (2, n), of the rows of some lanes, (m,) int64, by how many rows each stands for."""
    for i in range(some.shape[0]):
        count = np.int64(copies[places[some[i]]])
        for at in range(i * d, (i + 1) * d):
            limbs[0, at] *= count
            limbs[1, at] *= count


@borrowing(inline="always")
def add_row(totals, high, low, cluster):  # type: ignore[no-untyped-def]
    """Add the limbs of a row, (d,) each, to the sums of a cluster."""
    of_high, of_low = totals[0][cluster], totals[1][cluster]
    for f in range(high.shape[0]):  # one after the other: fewer arrays that may overlap
        of_high[f] += high[f]
    for f in range(high.shape[0]):
        of_low[f] += low[f]


@borrowing(inline="always")
def take_row(totals, high, low, cluster):  # type: ignore[no-untyped-def]
    """Take the limbs of a row from the sums of a cluster."""
    of_high, of_low = totals[0][cluster], totals[1][cluster]
    for f in range(high.shape[0]):
        of_high[f] -= high[f]
    for f in range(high.shape[0]):
        of_low[f] -= low[f]


@compiled()
def move_wide_rows(weights, factors, totals, moves, lanes, places):  # type: ignore[no-untyped-def]
    """Move rows feature by feature: those of one cluster after another, so that each cluster is added to once."""
    which, old, new = moves
    high, low, rows, weight_high, weight_low = totals
    m, d, weighted = which.shape[0], high.shape[1], weights.shape[0] > 0
    order, starts, names = grouped(new)
    which, away = which[order], grouped(old[order])
    values, limbs, weight_of = np.empty(m), np.empty((2, m), np.int64), np.ones(m)
    if weighted:
        for i in range(m):
            weight_of[i] = weights[places[which[i]]]
    for f in range(d):
        x = lanes[f]
        for i in range(m):
            values[i] = weight_of[i] * np.float64(x[which[i]])
        split_values(values, factors[f], limbs)
        add_runs(limbs, starts, names, f, high, low)
        take_groups(limbs, away, f, high, low)
    if weighted:
        split_values(weight_of, factors[d], limbs)
        columns = weight_high.reshape(-1, 1), weight_low.reshape(-1, 1)
        add_runs(limbs, starts, names, 0, columns[0], columns[1])
        take_groups(limbs, away, 0, columns[0], columns[1])
    for i in range(m):
        rows[new[i]] += 1
        if old[i] >= 0:
            rows[old[i]] -= 1


@compiled()
def grouped(clusters):  # type: ignore[no-untyped-def]
    """Return an order by clusters, (m,), where each of n begins in it and the last ends, (n + 1,), and their names.

    Those of cluster -1, of none, are left out.
    """
    order = np.argsort(clusters)
    starts, names, n = np.empty(order.shape[0] + 1, np.int64), np.empty(order.shape[0], np.int64), 0
    for p in range(order.shape[0]):
        cluster = clusters[order[p]]
        if cluster >= 0 and (n == 0 or cluster != names[n - 1]):
            starts[n], names[n] = p, cluster
            n += 1
    starts[n] = order.shape[0]
    return order, starts[: n + 1], names[:n]


@borrowing()
def split_values(values, factor, limbs):  # type: ignore[no-untyped-def]
    """Write what values, (m,), add to sums, (2, m)."""
    for i in range(values.shape[0]):
        limbs[0, i], limbs[1, i] = limbs_of(values[i] * factor)


@borrowing()
def add_runs(limbs, starts, names, f, high, low):  # type: ignore[no-untyped-def]
    """Add limbs, (2, m), in runs of one cluster each, to the sums of one column."""
    for g in range(names.shape[0]):
        h, rest = np.int64(0), np.int64(0)
        for i in range(starts[g], starts[g + 1]):
            h += limbs[0, i]
            rest += limbs[1, i]
        high[names[g], f] += h
        low[names[g], f] += rest


@borrowing()
def take_groups(limbs, groups, f, high, low):  # type: ignore[no-untyped-def]
    """Take limbs, (2, m), of some groups of them from the sums of one column."""
    order, starts, names = groups
    for g in range(names.shape[0]):
        h, rest = np.int64(0), np.int64(0)
        for p in range(starts[g], starts[g + 1]):
            h += limbs[0, order[p]]
            rest += limbs[1, order[p]]
        high[names[g], f] -= h
        low[names[g], f] -= rest
