"""The compiled loops of seeding: which rows a new choice is closer to, what they cost, and which of them are drawn.

A row's id is first_row + kept[i], or first_row + i where kept is (0,); `where` is (kept, first_row).
"""

import numpy as np

from kmeans_dask.kernels import borrowing, compiled, limbs_of_cost
from kmeans_dask.rivals import narrow, room_for, sq_distances_to
from kmeans_dask.scans import AT_ONCE, BEST, LABEL, SECOND, WORK, scan_lanes, settle
from kmeans_dask.tiles import TILE

# Of so many candidates, distances to all rows of a tile cost less than to scan them and to settle rows; of wider rows,
# whose lanes leave the cache each time, fewer.
_FEW, _FEW_WIDE = 8, 2


@compiled()
def take_closer(tiles, n_rows, balls, scan, centroids, offset, state):  # type: ignore[no-untyped-def]
    """Give each row the nearest of these centroids, numbered from offset, where that is closer than what it has.

    centroids (k, d) float64, scan of them, balls = (centres, radii) of the tiles: in. state = (labels (n_rows,) int32,
    sq_distances (n_rows,) float64, farthest (n_tiles,): the largest of each tile): in and out. A centroid is passed
    over where no row of the tile's ball can be as close to it as the farthest row is to its own, or as to another.
    """
    labels, sq_distances, farthest = state
    room = room_to_improve(tiles, scan, centroids)
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        if rows <= 0 or farthest[t] == 0.0:
            continue
        held = labels[first : first + rows], sq_distances[first : first + rows]
        ball = balls[0][t], balls[1][t], farthest[t]
        farthest[t] = improve(tiles[t], ball, scan, centroids, offset, room, held)


@compiled()
def room_to_improve(tiles, scan, centroids):  # type: ignore[no-untyped-def]
    """Return the work arrays of `improve`: of `within_reach`, of `narrow`, of `propose` and its results."""
    reach, local = room_for(scan, centroids)
    return reach, local, (np.empty(WORK + TILE, tiles.dtype), np.empty(TILE), np.empty(TILE, np.int64))


@borrowing()
def improve(tile, ball, scan, centroids, offset, room, held):  # type: ignore[no-untyped-def]
    """Give the rows in a tile's first lanes what `take_closer` gives them; return the largest squared distance left.

    ball = (centre, radius, largest squared distance) of the rows: in. held = (labels, squared distances): in and out.
    """
    columns, to_centre, found = room[0]
    sq_distances_to(ball[0], columns, to_centre)
    n = within_reach(ball, least(to_centre), to_centre, found)
    return take_nearest(tile, n, scan, centroids, offset, room, held) if n > 0 else ball[2]


@borrowing()
def take_nearest(tile, n, scan, centroids, offset, room, held):  # type: ignore[no-untyped-def]
    """Do what `improve` does, given the n centroids that are in question."""
    (_, _, found), local, (work, new, nearest) = room
    if n <= (_FEW if tile.shape[0] <= AT_ONCE else _FEW_WIDE):
        for i in range(n):
            distances_to(tile, centroids[found[i]], new)
            take_where_closer(np.int32(found[i] + offset), new, held)
    else:
        n4 = narrow(found, n, scan, local)
        near = local[0][:n4], local[1][:n4], scan[2]
        propose(tile, held[0].shape[0], near, centroids, found[:n], held[1], work, new, nearest)
        keep_closer(nearest, new, offset, held)
    return largest(held[1])


@borrowing(fastmath={"nnan", "nsz"})  # so that it vectorises: no distance is NaN
def largest(values):  # type: ignore[no-untyped-def]
    """Return the largest of some numbers, (n,), or 0."""
    most = 0.0
    for value in values:
        most = value if value > most else most
    return most


@borrowing(fastmath={"nnan", "nsz"})
def least(values):  # type: ignore[no-untyped-def]
    """Return the least of some numbers, (n,)."""
    found = np.inf
    for value in values:
        found = value if value < found else found
    return found


@borrowing()
def within_reach(ball, nearest, to_centre, found):  # type: ignore[no-untyped-def]
    """Write to found, in order, which points may be closer to a row of a ball than its own; return how many.

    ball: see `improve`; to_centre (m,): the points' squared distances to its centre, nearest: the least of them.
    """
    _, radius, farthest = ball
    limit = min(np.sqrt(farthest) + radius, np.sqrt(nearest) + 2.0 * radius)
    limit = limit * limit * (1.0 + 2.0**-30) + 2.0**-900
    n = np.uint64(0)
    for j in range(to_centre.shape[0]):
        found[n] = j  # overwritten unless it is within reach: a branch would be guessed wrong
        n += np.uint64(to_centre[j] <= limit)
    return np.int64(n)


@borrowing()
def propose(tile, rows, scan, centroids, candidates, sq_distances, work, new, nearest):  # type: ignore[no-untyped-def]
    """Write which of the candidates (n,) among the centroids is nearest to each row, and its squared distance.

    Where even the scan's lower bound exceeds sq_distances, (rows,), the distance is infinite instead.
    """
    number = tile.dtype.type
    doubts, squares = scan[2][0], work[WORK:]
    doubt, floor = number(scan[2][1]), number(scan[2][2])
    more, less = number(1) + doubt, number(1) - doubt
    scan_lanes(tile, scan, work, squares)
    for r in range(rows):
        nearest[r] = candidates[int(work[LABEL + r])]
    for r in range(rows):
        near = work[BEST + r] + squares[r] * less - floor
        far = work[SECOND + r] + squares[r] * less - floor
        highest = work[BEST + r] + doubts[nearest[r]] + squares[r] * more + floor
        new[r] = np.inf if np.float64(near) > sq_distances[r] else 0.0
        work[r] = number(1) if far - highest > doubt * far else number(0)
    for r in range(rows):
        if new[r] == 0.0:
            if work[r] == number(0):
                nearest[r] = settle(tile, r, centroids, candidates, nearest[r])
            for f in range(centroids.shape[1]):
                difference = np.float64(tile[f, r]) - centroids[nearest[r], f]
                new[r] += difference * difference


@borrowing()
def distances_to(tile, centroid, sq_distances):  # type: ignore[no-untyped-def]
    """Write the canonical squared distances of a tile's rows to one centroid, (d,)."""
    d = centroid.shape[0]
    for r in range(TILE):
        sq_distances[r] = 0.0
    for f in range(0, d - 3, 4):  # four at once, added one after the other: the totals are written less often
        c0, c1, c2, c3 = centroid[f], centroid[f + 1], centroid[f + 2], centroid[f + 3]
        x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        for r in range(TILE):
            d0, d1 = np.float64(x0[r]) - c0, np.float64(x1[r]) - c1
            d2, d3 = np.float64(x2[r]) - c2, np.float64(x3[r]) - c3
            sq_distances[r] = (((sq_distances[r] + d0 * d0) + d1 * d1) + d2 * d2) + d3 * d3
    for f in range(d // 4 * 4, d):
        c, x = centroid[f], tile[f]
        for r in range(TILE):
            difference = np.float64(x[r]) - c
            sq_distances[r] += difference * difference


@borrowing()
def keep_closer(nearest, new, offset, held):  # type: ignore[no-untyped-def]
    """Take the new label (plus offset) and squared distance where it is strictly closer than the one that is held."""
    labels, sq_distances = held
    for r in range(labels.shape[0]):
        closer = new[r] < sq_distances[r]
        sq_distances[r] = new[r] if closer else sq_distances[r]
        labels[r] = np.int32(nearest[r] + offset) if closer else labels[r]


@borrowing()
def take_where_closer(label, new, held):  # type: ignore[no-untyped-def]
    """Take a label and new squared distances, (128,), where these are strictly closer than what is held, (rows,)."""
    labels, sq_distances = held
    for r in range(labels.shape[0]):
        closer = new[r] < sq_distances[r]
        sq_distances[r] = new[r] if closer else sq_distances[r]
        labels[r] = label if closer else labels[r]


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
            high, middle, low = limbs_of_cost((weights[i] * values[i] if weighted else values[i]) * factor)
            limbs[0, at] += high
            limbs[1, at] += middle
            limbs[2, at] += low
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
