"""Which rows new choices are closer to, when there are many of both: by the choices that rows have, not tile by tile.

The rows of one choice lie nearer to each other than those of most tiles, so that fewer new choices come into question.
"""

import numpy as np

from kmeans_dask.draw_kernels import improve, room_to_improve, take_closer
from kmeans_dask.kernels import TILE, compiled
from kmeans_dask.rivals import ball_of

_MANY = 256  # new choices; of fewer, most tiles rule out what there is
_ROWS_EACH = 16  # of a choice, for which it is worth to look at all new ones
_FAR = 2.5  # times the usual squared distance to a choice: such rows are taken together, whatever choice they have


@compiled()
def take_closest(tiles, n_rows, balls, scan, centroids, offset, state):  # type: ignore[no-untyped-def]
    """Do what `draw_kernels.take_closer` does, in whichever way is likely to be faster."""
    if offset > 1 and centroids.shape[0] >= _MANY and n_rows >= offset * _ROWS_EACH:
        take_closer_by_choice(tiles, n_rows, scan, centroids, offset, state)
    else:
        take_closer(tiles, n_rows, balls, scan, centroids, offset, state)


@compiled()
def take_closer_by_choice(tiles, n_rows, scan, centroids, offset, state):  # type: ignore[no-untyped-def]
    """Do what `draw_kernels.take_closer` does, for rows that have one of the choices before offset."""
    labels, sq_distances, farthest = state
    order, starts = by_choice(labels, sq_distances, offset)
    room = room_to_improve(tiles, scan, centroids)
    lanes, centre = np.zeros(tiles.shape[1:], tiles.dtype), np.empty(centroids.shape[1])
    held_labels, held_sq_distances = np.empty(TILE, np.int32), np.empty(TILE)
    for g in range(starts.shape[0] - 1):
        for first in range(starts[g], starts[g + 1], TILE):
            rows = order[first : min(first + TILE, starts[g + 1])]
            n = rows.shape[0]
            gather(tiles, rows, lanes)
            for i in range(n):
                held_labels[i], held_sq_distances[i] = labels[rows[i]], sq_distances[rows[i]]
            ball = centre, ball_of(lanes, n, centre), held_sq_distances[:n].max()
            improve(lanes, ball, scan, centroids, offset, room, (held_labels[:n], held_sq_distances[:n]))
            for i in range(n):
                labels[rows[i]], sq_distances[rows[i]] = held_labels[i], held_sq_distances[i]
    for t in range(tiles.shape[0]):
        if t * TILE < n_rows:
            farthest[t] = sq_distances[t * TILE : min((t + 1) * TILE, n_rows)].max()


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
    return order, starts


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


@compiled()
def gather(tiles, rows, lanes):  # type: ignore[no-untyped-def]
    """Write up to 128 of the rows to the first of the lanes, (d4, 128)."""
    for i in range(rows.shape[0]):
        t, r = rows[i] // TILE, rows[i] % TILE
        for f in range(tiles.shape[1]):
            lanes[f, i] = tiles[t, f, r]
