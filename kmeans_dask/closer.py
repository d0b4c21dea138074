"""Which rows new choices are closer to, when there are many of both: by the choices that rows have, not tile by tile.

The rows of one choice lie nearer to each other than those of most tiles, so that fewer new choices come into question.
"""

import numpy as np

from kmeans_dask.draw_kernels import largest, room_to_improve, take_closer, take_nearest, within_reach
from kmeans_dask.gain_kernels import limits_of_rows, room_for_scores, rows_below, score_four
from kmeans_dask.grouping import STEPS, sort_by
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.rivals import ball_of
from kmeans_dask.tiles import TILE

_MANY = 256  # new choices; of fewer, most tiles rule out what there is
_ROWS_EACH = 16  # of a choice, for which it is worth to look at all new ones
_FAR = 2.5  # times the usual squared distance to a choice: such rows are taken together, whatever choice they have


@compiled()
def take_closest(tiles, n_rows, balls, scan, choices, offset, state):  # type: ignore[no-untyped-def]
    """Do what `draw_kernels.take_closer` does for the choices, (m, d), from offset on, in the way that may be fastest.

    scan: of those. All choices are rows. With a single one before, to group rows by what they have rules nothing out.
    """
    if offset > 1 and choices.shape[0] - offset >= _MANY and n_rows >= offset * _ROWS_EACH:
        take_closer_by_choice(tiles, n_rows, scan, choices, offset, state)
    else:
        take_closer(tiles, n_rows, balls, scan, choices[offset:], offset, state)


@compiled()
def take_closer_by_choice(tiles, n_rows, scan, choices, offset, state):  # type: ignore[no-untyped-def]
    """Do what `take_closest` does, for rows that have one of the choices before offset."""
    labels, sq_distances, farthest = state
    centroids = choices[offset:]
    order, starts = by_choice(labels, sq_distances, offset)
    room, group = room_to_improve(tiles, scan, centroids), room_for_group(tiles, centroids)
    near, reaching, some = room_for_reach(tiles, scan)
    for g in range(offset + 1):
        if g % TILE == 0 and g < offset:
            reach(choices[g : min(g + TILE, offset)], sq_distances, order, starts[g:], scan, near, reaching)
        if g == offset:  # far rows, of any choice
            near[g % TILE, : centroids.shape[0]] = True
        m = listed(near[g % TILE, : centroids.shape[0]], some)
        for first in range(starts[g], starts[g + 1] if m > 0 else starts[g], TILE):
            rows = order[first : min(first + TILE, starts[g + 1])]
            radius, highest = hold(tiles, rows, state, group)
            n = within_some((group[1], radius, highest), centroids, some[:m], room[0])
            if n > 0:
                held = group[2][: rows.shape[0]], group[3][: rows.shape[0]]
                take_nearest(group[0], n, scan, centroids, offset, room, held)
                let_go(rows, state, group)
    for t in range(tiles.shape[0]):
        if t * TILE < n_rows:
            farthest[t] = sq_distances[t * TILE : min((t + 1) * TILE, n_rows)].max()


@compiled()
def room_for_group(tiles, centroids):  # type: ignore[no-untyped-def]
    """Return the room for up to 128 rows: lanes, a ball's centre, their labels and squared distances."""
    return (
        np.zeros(tiles.shape[1:], tiles.dtype),
        np.empty(centroids.shape[1]),
        np.empty(TILE, np.int32),
        np.empty(TILE),
    )


@compiled()
def room_for_reach(tiles, scan):  # type: ignore[no-untyped-def]
    """Return the room of `reach`: which centroids are near each of 128 choices; lanes, limits, scores; and a list."""
    number, k4 = tiles.dtype, scan[1].shape[0]
    lanes = np.zeros(tiles.shape[1:], number), np.empty(TILE), np.empty(TILE, number)
    return np.empty((TILE, k4), np.bool_), (*lanes, room_for_scores(tiles, scan)), np.empty(k4 + 1, np.int64)


@borrowing()
def hold(tiles, rows, state, group):  # type: ignore[no-untyped-def]
    """Gather some rows, their labels and squared distances; return a ball's radius and the largest of the distances."""
    lanes, centre, labels, sq_distances = group
    gather(tiles, rows, lanes)
    for i in range(rows.shape[0]):
        labels[i], sq_distances[i] = state[0][rows[i]], state[1][rows[i]]
    return ball_of(lanes, rows.shape[0], centre), largest(sq_distances[: rows.shape[0]])


@borrowing()
def let_go(rows, state, group):  # type: ignore[no-untyped-def]
    """Write back what became of gathered rows."""
    for i in range(rows.shape[0]):
        state[0][rows[i]], state[1][rows[i]] = group[2][i], group[3][i]


@borrowing()
def reach(choices, sq_distances, order, starts, scan, near, room):  # type: ignore[no-untyped-def]
    """Write which centroids of a scan may be closer to a row of up to 128 choices, (128, k4), than its own choice is.

    Those are no farther from the choice than twice its farthest row is. starts: of each choice's rows in the order.
    """
    lanes, limits_squared, limits, scores = room
    for g in range(choices.shape[0]):
        highest = 0.0
        for i in range(starts[g], starts[g + 1]):
            highest = max(highest, sq_distances[order[i]])
        limits_squared[g] = 4.0 * highest * (1.0 + 2.0**-30) + 2.0**-900
        for f in range(choices.shape[1]):
            lanes[f, g] = choices[g, f]
        for j in range(near.shape[1]):
            near[g, j] = False
    n = choices.shape[0]
    limits_of_rows(lanes, scan[2], limits_squared[:n], scores[0], limits)
    for j in range(0, near.shape[1], 4):
        score_four(lanes, scan, j, scores)
        for q in range(4):
            m = rows_below(scores[1][q], limits, n, scores[2])
            for i in range(m):
                near[scores[2][i], j + q] = True


@borrowing()
def listed(near, some):  # type: ignore[no-untyped-def]
    """Write which are near; return how many."""
    n = np.uint64(0)
    for j in range(near.shape[0]):
        some[n] = j  # overwritten unless it is near
        n += np.uint64(near[j])
    return np.int64(n)


@borrowing()
def within_some(ball, centroids, some, room):  # type: ignore[no-untyped-def]
    """Write which of some centroids, (m,), may be closer to a row of a ball than its own choice; return how many."""
    _, to_centre, found = room
    least = np.inf
    for i in range(some.shape[0]):
        total = 0.0
        for f in range(centroids.shape[1]):
            difference = ball[0][f] - centroids[some[i], f]
            total += difference * difference
        to_centre[i] = total
        least = min(least, total)
    n = within_reach(ball, least, to_centre[: some.shape[0]], found)
    for i in range(n):
        found[i] = some[found[i]]
    return n


@compiled()
def by_choice(labels, sq_distances, n_choices):  # type: ignore[no-untyped-def]
    """Return the rows in the order of their choices, (n_rows,), far ones last, and where those of each start."""
    limits = np.full(n_choices, np.inf)
    for _ in range(2):  # again without the far rows, which may be many
        mean_below(labels, sq_distances, limits)
    groups, starts = np.empty(labels.shape[0], np.int32), np.zeros(n_choices + 2, np.int64)
    for i in range(labels.shape[0]):
        j = labels[i]
        groups[i] = n_choices if sq_distances[i] > _FAR * limits[j] else j
        starts[groups[i] + 1] += 1
    for g in range(n_choices + 1):
        starts[g + 1] += starts[g]
    order, at = np.empty(labels.shape[0], np.int64), starts.copy()
    for i in range(labels.shape[0]):
        order[at[groups[i]]] = i
        at[groups[i]] += 1
    nearest_first(sq_distances, order, starts[:-1])
    return order, starts


@compiled()
def nearest_first(sq_distances, order, starts):  # type: ignore[no-untyped-def]
    """Sort rows of the same choice, from one start to the next, by about how far they are from it."""
    most = 0
    for g in range(starts.shape[0] - 1):
        most = max(most, starts[g + 1] - starts[g])
    keys, before, room = np.empty(most), np.empty(most, order.dtype), np.empty(STEPS + 1, np.int64)
    for g in range(starts.shape[0] - 1):
        some = order[starts[g] : starts[g + 1]]
        n = some.shape[0]
        if n > TILE:
            for i in range(n):
                before[i], keys[i] = some[i], np.sqrt(sq_distances[some[i]])
            sort_by(keys, before[:n], some, room)


@compiled()
def mean_below(labels, sq_distances, limits):  # type: ignore[no-untyped-def]
    """Lower each choice's limit, (n_choices,), to the mean of its squared distances up to the limit."""
    totals, counts = np.zeros(limits.shape[0]), np.zeros(limits.shape[0])
    for i in range(labels.shape[0]):
        if sq_distances[i] <= limits[labels[i]]:
            totals[labels[i]] += sq_distances[i]
            counts[labels[i]] += 1.0
    for j in range(limits.shape[0]):
        limits[j] = totals[j] / max(counts[j], 1.0)


@borrowing()
def gather(tiles, rows, lanes):  # type: ignore[no-untyped-def]
    """Write up to 128 of the rows to the first of the lanes, (d4, 128)."""
    for i in range(rows.shape[0]):
        t, r = rows[i] // TILE, rows[i] % TILE
        for f in range(tiles.shape[1]):
            lanes[f, i] = tiles[t, f, r]
