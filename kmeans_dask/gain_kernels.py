"""The compiled loops of greedy k-means++: by how much rows drawn would lower the costs of all, and the best one taken.

As in a scan, scores with rounding only say which rows may be closer; their distances are the canonical ones.
"""

import numpy as np

from kmeans_dask.cost_kernels import carry_over, exceeds
from kmeans_dask.draw_kernels import distances_to
from kmeans_dask.kernels import borrowing, compiled, limbs_of_cost
from kmeans_dask.scans import AT_ONCE, add_features, begin_scores, squares_of_tile, write_scan
from kmeans_dask.tiles import TILE


@compiled()
def add_gains(tiles, n_rows, balls, scan, choices, weights, factor, state, limbs):  # type: ignore[no-untyped-def]
    """Add by how much each of the choices (m, d) would lower the rows' costs to limbs (3, m) int64, accumulators.

    balls = (centres, radii) of the tiles, scan of the choices, state = (sq_distances (n_rows,), farthest (n_tiles,):
    the largest of each tile).
    """
    reached = np.empty((tiles.shape[0], scan[1].shape[0]), np.bool_)
    unknown = np.empty((0, TILE), tiles.dtype)
    gain_of_each(tiles, n_rows, balls, scan, choices, weights, factor, (*state, unknown), limbs, reached)


@compiled()
def gain_of_each(tiles, n_rows, balls, scan, choices, weights, factor, state, limbs, reached):  # type: ignore[no-untyped-def]
    """Do what `add_gains` does; write which tiles, (n_tiles, k4), have rows that a choice may be closer to.

    state = (sq_distances, farthest, limits: see `lower_limits`, or (0, 128): found anew).
    """
    sq_distances, farthest, known = state
    room, of_tile = room_for_scores(tiles, scan), np.empty(TILE, tiles.dtype)
    reached[:] = False
    for t in range(tiles.shape[0]):
        first = t * TILE
        stop = min(first + TILE, n_rows)
        near = reached[t]
        if stop <= first or not any_within(balls[0][t], balls[1][t], farthest[t], choices, near):
            continue
        held, some = sq_distances[first:stop], weights[first:stop] if weights.shape[0] > 0 else weights
        limits = known[t] if known.shape[0] > 0 else of_tile
        if known.shape[0] == 0:
            limits_of_rows(tiles[t], scan[2], held, room[0], limits)
        for j in range(0, choices.shape[0], 4):
            if near[j] or near[j + 1] or near[j + 2] or near[j + 3]:
                score_four(tiles[t], scan, j, room)
            for q in range(4):
                if near[j + q]:
                    n = rows_below(room[1][q], limits, stop - first, room[2])
                    near[j + q] = n > 0
                    gain(tiles[t], room[2][:n], choices[j + q], held, some, factor, limbs[:, j + q])


@compiled()
def room_for_scores(tiles, scan):  # type: ignore[no-untyped-def]
    """Return the room for a tile's scores: work (4 * 128,), scores (4, 128), which rows (129,), zeros (k4,)."""
    number = tiles.dtype
    return (
        np.empty(4 * TILE, number),
        np.empty((4, TILE), number),
        np.empty(TILE + 1, np.int64),
        np.zeros_like(scan[1]),
    )


@borrowing()
def any_within(centre, radius, farthest, choices, near):  # type: ignore[no-untyped-def]
    """Write which of the choices, (m, d), may be closer to a row of a ball than it is to its own; whether any is.

    farthest: the largest squared distance that its rows have.
    """
    limit = np.sqrt(farthest) + radius
    limit = limit * limit * (1.0 + 2.0**-30) + 2.0**-900
    found = False
    for j in range(choices.shape[0]):
        away = 0.0
        for f in range(choices.shape[1]):
            difference = centre[f] - choices[j, f]
            away += difference * difference
        near[j] = not away > limit
        found |= near[j]
    return found


@compiled()
def lower_limits(tiles, n_rows, doubts, sq_distances, which, limits):  # type: ignore[no-untyped-def]
    """Write the highest score with which a row may be closer than the squared distance it has, (n_tiles, 128).

    which (n_tiles,): the tiles that this is done for; doubts: of any scan of as many features.
    """
    work = np.empty(TILE, tiles.dtype)
    for t in range(tiles.shape[0]):
        if which[t]:
            limits_of_rows(
                tiles[t], doubts, sq_distances[t * TILE : min((t + 1) * TILE, n_rows)], work, limits[t]
            )


@borrowing()
def limits_of_rows(tile, doubts, held, work, limits):  # type: ignore[no-untyped-def]
    """Write the limits, (128,), of a tile's rows; held (rows,): their squared distances; work (128,)."""
    _, doubt, floor = doubts
    squares_of_tile(tile.reshape(-1), work, limits)
    number = tile.dtype.type
    for r in range(held.shape[0]):
        limit = held[r] - np.float64(limits[r]) * (1.0 - doubt) + floor
        limits[r] = number(limit + (abs(limit) * doubt + floor))


@borrowing()
def score_four(tile, scan, j, room):  # type: ignore[no-untyped-def]
    """Write the scores of a tile's rows for four centroids from j on, added up as the scan does, up to rounding."""
    work, scores, _, nothing = room
    flat, of_all, d4 = tile.reshape(-1), scores.reshape(-1), tile.shape[0]
    some_features(flat, scan[0], scan[1], j, 0, min(AT_ONCE, d4), of_all)
    for first in range(AT_ONCE, d4, AT_ONCE):
        some_features(flat, scan[0], nothing, j, first, min(first + AT_ONCE, d4), work)
        for i in range(of_all.shape[0]):
            of_all[i] += work[i]


@borrowing(fastmath={"contract"})
def some_features(flat, negative, squares, j, first, stop, scores):  # type: ignore[no-untyped-def]
    """Write the scores for four centroids from j on, of some features alone, (4 * 128,)."""
    begin_scores(flat, TILE, negative, squares, j, first, scores)
    for f in range(first + 4, stop, 4):
        add_features(flat, TILE, negative, j, f, scores)


@borrowing()
def rows_below(scores, limits, rows, which):  # type: ignore[no-untyped-def]
    """Write which of the first rows of a tile do not score above their limits; return how many."""
    n = 0
    for r in range(rows):
        n += not scores[r] > limits[r]  # NaN, beyond float32, does not
    if n == 0:
        return 0
    count = np.uint64(0)
    for r in range(rows):
        which[count] = r  # overwritten if it does
        count += np.uint64(not scores[r] > limits[r])
    return n


@borrowing(inline="always")
def sq_distance_of(tile, r, choice):  # type: ignore[no-untyped-def]
    """Return the canonical squared distance of the row in lane r to a choice, (d,)."""
    total = 0.0
    for f in range(choice.shape[0]):
        difference = np.float64(tile[f, r]) - choice[f]
        total += difference * difference
    return total


@borrowing()
def gain(tile, which, choice, held, weights, factor, limbs):  # type: ignore[no-untyped-def]
    """Add what a choice, (d,), would take from the costs of some rows of a tile to limbs, (3,)."""
    for i in range(which.shape[0]):
        r = which[i]
        new = sq_distance_of(tile, r, choice)
        if new < held[r]:
            weight = weights[r] if weights.shape[0] > 0 else 1.0
            before, after = limbs_of_cost(weight * held[r] * factor), limbs_of_cost(weight * new * factor)
            limbs[0] += before[0] - after[0]
            limbs[1] += before[1] - after[1]
            limbs[2] += before[2] - after[2]


@compiled()
def take_best(tiles, n_rows, balls, weights, factor, rows, room, state):  # type: ignore[no-untyped-def]
    """Take the one of some rows, (m,), under which all cost least; return its place among them, the first of equals.

    room = (choices (m, d), a scan for them, limbs (3, m), which tiles (n_tiles, k4)). state = (sq_distances (n_rows,),
    farthest (n_tiles,): the largest of each tile, limits: see `lower_limits`, stale (n_tiles,): whether any of a tile
    has changed): in and out.
    """
    choices, scan, limbs, reached = room
    sq_distances, farthest, limits, stale = state
    for i in range(rows.shape[0]):
        for f in range(choices.shape[1]):
            choices[i, f] = tiles[rows[i] // TILE, f, rows[i] % TILE]
    write_scan(choices, scan[2][1], scan[0], scan[1], scan[2][0])
    limbs[:], reached[:] = 0, True
    if rows.shape[0] > 1:
        of_rows = sq_distances, farthest, limits
        gain_of_each(tiles, n_rows, balls, scan, choices, weights, factor, of_rows, limbs, reached)
    best, new = 0, np.empty(TILE)
    for j in range(rows.shape[0]):
        carry_over(limbs[:, j])
        if exceeds(limbs[:, j], limbs[:, best]):
            best = j
    for t in range(tiles.shape[0]):
        if reached[t, best]:
            held = sq_distances[t * TILE : min((t + 1) * TILE, n_rows)]
            distances_to(tiles[t], choices[best], new)
            for r in range(held.shape[0]):
                held[r] = min(held[r], new[r])
            farthest[t], stale[t] = held.max(), True
    lower_limits(tiles, n_rows, scan[2], sq_distances, reached[:, best], limits)
    return best
