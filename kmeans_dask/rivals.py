"""Which centroids can be nearest to the rows of a tile: those that a ball around it does not rule out.

A centroid b is out of the question for all rows of a ball (m, r) when that lies on the side of a, the centroid nearest
to m: |m - b|^2 - |m - a|^2 > 2 r |a - b|. What is left are rivals; of one, the tile is owned.
"""

import numpy as np

from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.scans import judge, room_for_rows
from kmeans_dask.tiles import TILE

KEPT = 0.1  # a centroid stays a rival unless it is farther by this share of the radius: else rows come back at once


@compiled()
def balls_of(tiles, n_rows, centres, radii):  # type: ignore[no-untyped-def]
    """Write a ball around each tile's rows: centres (n_tiles, d) float64, radii (n_tiles,), rounded up."""
    for t in range(tiles.shape[0]):
        radii[t] = ball_of(tiles[t], min(TILE, n_rows - t * TILE), centres[t])


# Any centre will do, and what rounding does to the radius is allowed for.
@compiled(fastmath={"reassoc", "contract"})
def ball_of(lanes, n_rows, centre):  # type: ignore[no-untyped-def]
    """Write the centre (d,) of a ball around the rows in the first lanes; return its radius, rounded up."""
    sq_distances = np.zeros(TILE)
    if n_rows <= 0:
        centre[:] = 0.0
        return 0.0
    for f in range(centre.shape[0]):
        x = lanes[f, :n_rows]
        total = 0.0
        for r in range(n_rows):
            total += x[r]
        middle = total / n_rows
        centre[f] = middle
        for r in range(n_rows):
            difference = np.float64(x[r]) - middle
            sq_distances[r] += difference * difference
    return root_above(sq_distances[:n_rows].max())


@compiled()
def root_above(x):  # type: ignore[no-untyped-def]
    """Return the square root of a sum of squares, above all rounding; 2**-500 covers squares that underflow."""
    return np.sqrt(x) * (1.0 + 2.0**-30) + (2.0**-500 if x > 0.0 else 0.0)


@borrowing()
def reach_of(sq_distance, radius):  # type: ignore[no-untyped-def]
    """Return how far the rows of a ball are, at most, from a point so far from its centre, above all rounding."""
    return (np.sqrt(sq_distance) + radius) * (1.0 + 2.0**-30) + 2.0**-500


@borrowing()
def sq_distances_to(centre, columns, sq_distances):  # type: ignore[no-untyped-def]
    """Write the squared distances (k,) of a point to the columns (d, k)."""
    k = columns.shape[1]
    for j in range(k):
        sq_distances[j] = 0.0
    for f in range(columns.shape[0]):
        m = centre[f]
        for j in range(k):
            difference = m - columns[f, j]
            sq_distances[j] += difference * difference


@borrowing()
def nearest_to(centre, columns, sq_distances):  # type: ignore[no-untyped-def]
    """Do what `sq_distances_to` does; return the nearest."""
    sq_distances_to(centre, columns, sq_distances)
    nearest = 0
    for j in range(1, columns.shape[1]):
        nearest = j if sq_distances[j] < sq_distances[nearest] else nearest
    return nearest


@borrowing(fastmath={"reassoc", "contract"})  # what rounding does to it is far less than the margins
def apart(a, b):  # type: ignore[no-untyped-def]
    """Return the distance between two points, (d,)."""
    total = 0.0
    for f in range(a.shape[0]):
        difference = a[f] - b[f]
        total += difference * difference
    return np.sqrt(total)


@borrowing()
def rivals(centre, radius, columns, centroids, sq_distances, found):  # type: ignore[no-untyped-def]
    """Write to found which centroids may be nearest to a row of a ball, in order; return how many, and a bound.

    One: the tile is owned, and the bound is by how much its rows are nearer to it than to any other. More: every other
    centroid's squared distance exceeds that of the nearest by at least the bound. None: half of all are left, or more.
    columns (d, k) and centroids (k, d) float64: in; sq_distances (k,), found (k,) int64: work.
    """
    k = columns.shape[1]
    a = nearest_to(centre, columns, sq_distances)
    near = np.sqrt(sq_distances[a])
    limit = near + 2.0 * radius * (1.0 + KEPT)
    limit = limit * limit * (1.0 + 2.0**-30) + 2.0**-900
    n, most, owned = 0, max(k // 2, 2), True
    beyond = least = bound = np.inf
    for j in range(k):
        if j == a:
            found[n] = j
            n += 1
            continue
        if sq_distances[j] > limit:
            beyond = min(beyond, sq_distances[j])
            continue
        if n == most:
            return 0, 0.0
        across = near + np.sqrt(sq_distances[j]) + 2.0 * radius
        excess = sq_distances[j] - sq_distances[a] - 2.0 * radius * apart(centroids[a], centroids[j])
        excess -= across * across * 2.0**-30 + 2.0**-900
        least = min(least, excess / max(across, 2.0**-900))
        owned = owned and excess > 0.0
        if excess > KEPT * radius * across:
            bound = min(bound, excess)
        else:
            found[n] = j
            n += 1
    if beyond < np.inf:
        far = np.sqrt(beyond)
        across = near + far + 2.0 * radius
        excess = (near + far) * (far - near - 2.0 * radius) - across * across * 2.0**-30 - 2.0**-900
        least, bound = min(least, excess / max(across, 2.0**-900)), min(bound, excess)
        owned = owned and excess > 0.0
    if owned:
        found[0] = a
        return 1, least
    if bound <= 0.0:
        return 0, 0.0
    return n, bound


@borrowing()
def narrow(found, n, scan, local):  # type: ignore[no-untyped-def]
    """Write n rivals to local = (negative, squares), as `judge` scans them; return how many it must be given."""
    negative, squares = local
    n4 = (n + 3) // 4 * 4
    for i in range(n):
        to, row = negative[i], scan[0][found[i]]
        for f in range(to.shape[0]):
            to[f] = row[f]
        squares[i] = scan[1][found[i]]
    for i in range(n, n4):
        negative[i, :] = 0
        squares[i] = np.inf
    return n4


@compiled()
def room_for(scan, centroids):  # type: ignore[no-untyped-def]
    """Return the work arrays of `rivals` and `narrow`: columns, squared distances, found; local."""
    k = centroids.shape[0]
    return (centroids.T.copy(), np.empty(k), np.empty(k, np.int64)), (
        np.empty_like(scan[0]),
        np.empty_like(scan[1]),
    )


@compiled()
def label_rows(tiles, n_rows, balls, scan, centroids, labels):  # type: ignore[no-untyped-def]
    """Write each row's label, (n_rows,) int32, exactly as `settle` defines it; balls = (centres, radii)."""
    k = centroids.shape[0]
    whole = np.zeros(k, np.float32), np.arange(k)
    reach, local = room_for(scan, centroids)
    label_tiles(tiles, n_rows, balls, scan, centroids, labels, (whole, reach, local, room_for_rows(tiles)))


@borrowing()
def label_tiles(tiles, n_rows, balls, scan, centroids, labels, room):  # type: ignore[no-untyped-def]
    """Write what `label_rows` writes; room = (no thresholds and all centroids, of `room_for`, of rows)."""
    (thresholds, every), (columns, sq_distances, found), local, rows_found = room
    for t in range(tiles.shape[0]):
        first = t * TILE
        stop = min(first + TILE, n_rows)
        if stop <= first:
            continue
        n, bound = rivals(balls[0][t], balls[1][t], columns, centroids, sq_distances, found)
        if n == 1:
            labels[first:stop] = found[0]
            continue
        if n == 0:
            judge(tiles[t], stop - first, scan, centroids, thresholds, every, np.inf, rows_found)
        else:
            n4 = narrow(found, n, scan, local)
            near = local[0][:n4], local[1][:n4], scan[2]
            judge(tiles[t], stop - first, near, centroids, thresholds, found[:n], bound, rows_found)
        for r in range(stop - first):
            labels[first + r] = rows_found[0][r]
