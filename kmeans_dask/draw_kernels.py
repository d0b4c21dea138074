"""The compiled loops of seeding: which rows a new choice is closer to, what they cost, and which of them are drawn.

A row's id is first_row + kept[i], or first_row + i where kept is (0,); `where` is (kept, first_row).
"""

import numpy as np

from kmeans_dask.kernels import TILE, WORK, add_squares, compiled, scan_tile, settle
from kmeans_dask.pruning import local_arrays, narrow, nearest_to

_BEST, _SECOND, _LABEL = 4 * TILE, 5 * TILE, 6 * TILE  # of `scan_tile`'s work
_FEW = 2


@compiled()
def take_closer(tiles, n_rows, balls, scan, centroids, offset, state):  # type: ignore[no-untyped-def]
    """Give each row the nearest of these centroids, numbered from offset, where that is closer than what it has.

    centroids (k, d) float64, scan of them, balls = (centres, radii) of the tiles: in. state = (labels (n_rows,) int32,
    sq_distances (n_rows,) float64, farthest (n_tiles,): the largest of each tile): in and out. A centroid is passed
    over where no row of the tile's ball can be as close to it as the farthest row is to its own, or as to another.
    """
    labels, sq_distances, farthest = state
    k = centroids.shape[0]
    columns, to_centre, found = centroids.T.copy(), np.empty(k), np.empty(k, np.int64)
    thresholds, local = np.zeros(scan[0].shape[0], np.float32), local_arrays(scan, centroids)
    new, nearest, work = np.empty(TILE), np.empty(TILE, np.int64), np.empty(WORK + TILE, tiles.dtype)
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        if rows <= 0 or farthest[t] == 0.0:
            continue
        held = labels[first : first + rows], sq_distances[first : first + rows]
        n = within_reach(balls[0][t], balls[1][t], farthest[t], columns, to_centre, found)
        if n <= _FEW:
            for i in range(n):
                nearest[:] = found[i]
                distances_to(tiles[t], rows, centroids[found[i]], new)
                keep_closer(nearest, new, offset, held)
        else:
            n4 = narrow(found, n, scan, centroids, thresholds, local)
            near_scan = (local[0][:n4], local[1][:n4], local[2][:n4], scan[3], scan[4])
            propose(tiles[t], rows, near_scan, local[3][:n], held[1], work, new, nearest)
            for r in range(rows):
                nearest[r] = found[nearest[r]]
            keep_closer(nearest, new, offset, held)
        if n:
            farthest[t] = held[1].max()


@compiled()
def within_reach(centre, radius, farthest, columns, to_centre, found):  # type: ignore[no-untyped-def]
    """Write to found, in order, which of the columns (d, k) may be closer to a row of a ball; return how many.

    farthest: the largest squared distance that its rows have. to_centre (k,): work.
    """
    nearest = nearest_to(centre, columns, to_centre)
    limit = min(np.sqrt(farthest) + radius, np.sqrt(to_centre[nearest]) + 2.0 * radius)
    limit = limit * limit * (1.0 + 2.0**-30) + 2.0**-900
    n = 0
    for j in range(columns.shape[1]):
        if to_centre[j] <= limit:
            found[n] = j
            n += 1
    return n


@compiled()
def propose(tile, rows, scan, centroids, sq_distances, work, new, nearest):  # type: ignore[no-untyped-def]
    """Write which of the centroids (k, d) is nearest to each row, and its canonical squared distance.

    Where even the scan's lower bound exceeds sq_distances, (rows,), the distance is infinite instead.
    """
    number = tile.dtype.type
    doubt, floor, squares = number(scan[3]), number(scan[4]), work[WORK:]
    more, less = number(1) + doubt, number(1) - doubt
    flat = tile.reshape(-1)
    scan_tile(flat, scan[0], scan[1], work)
    add_squares(flat, squares)
    for r in range(rows):
        nearest[r] = np.int64(work[_LABEL + r])
    for r in range(rows):
        near = work[_BEST + r] + squares[r] * less - floor
        far = work[_SECOND + r] + squares[r] * less - floor
        highest = work[_BEST + r] + scan[2][nearest[r]] + squares[r] * more + floor
        new[r] = np.inf if np.float64(near) > sq_distances[r] else 0.0
        work[r] = number(1) if far - highest > doubt * far else number(0)
    for r in range(rows):
        if new[r] == 0.0:
            if work[r] == number(0):
                nearest[r] = settle(tile, r, centroids, nearest[r])
            for f in range(centroids.shape[1]):
                difference = np.float64(tile[f, r]) - centroids[nearest[r], f]
                new[r] += difference * difference


@compiled()
def distances_to(tile, rows, centroid, sq_distances):  # type: ignore[no-untyped-def]
    """Write the canonical squared distances of a tile's rows to one centroid, (d,)."""
    sq_distances[:] = 0.0
    for f in range(centroid.shape[0]):
        c = centroid[f]
        for r in range(TILE):
            difference = np.float64(tile[f, r]) - c
            sq_distances[r] += difference * difference


@compiled()
def keep_closer(nearest, new, offset, held):  # type: ignore[no-untyped-def]
    """Take the new label (plus offset) and squared distance where it is strictly closer than the one that is held."""
    labels, sq_distances = held
    for r in range(labels.shape[0]):
        closer = new[r] < sq_distances[r]
        sq_distances[r] = new[r] if closer else sq_distances[r]
        labels[r] = np.int32(nearest[r] + offset) if closer else labels[r]


@compiled()
def add_costs(values, weights, factor, where, span, limbs):  # type: ignore[no-untyped-def]
    """Add each weight * value (n,) to its range of row ids, limbs (4, m) int64: three accumulators, and a count.

    span = (start, stop, shift): only ids from start up to stop count, in range (id >> shift) - (start >> shift).
    """
    kept, first_row = where
    start, stop, shift = span
    weighted = weights.shape[0] > 0
    for i in range(values.shape[0]):
        row_id = first_row + (np.int64(kept[i]) if kept.shape[0] > 0 else i)
        if start <= row_id < stop:
            at = (row_id >> shift) - (start >> shift)
            y = (weights[i] * values[i] if weighted else values[i]) * factor
            h = np.int64(y)
            y = (y - np.float64(h)) * 4294967296.0
            m = np.int64(y)
            limbs[0, at] += h
            limbs[1, at] += m
            limbs[2, at] += np.int64((y - np.float64(m)) * 4294967296.0)
            limbs[3, at] += 1


@compiled()
def draw_rows(sq_distances, weights, where, key, n, cost, drawn):  # type: ignore[no-untyped-def]
    """Write to drawn, (n_rows,) int64, the rows whose number, `randoms.uniforms`, * cost is below n * weight * value.

    Return how many there are; they are in the order of the rows.
    """
    kept, first_row = where
    weighted = weights.shape[0] > 0
    count = np.int64(0)
    for i in range(sq_distances.shape[0]):
        row_id = first_row + (np.int64(kept[i]) if kept.shape[0] > 0 else i)
        z = key + np.uint64(row_id) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        chance = sq_distances[i] * weights[i] if weighted else sq_distances[i]
        drawn[count] = i  # overwritten unless it is drawn: a branch would keep the loop from vectorising
        count += np.int64(np.float64(z >> np.uint64(11)) * 2.0**-53 * cost < n * chance)
    return count
