"""Rows whose tile leaves many centroids in question, scanned in groups of one cluster instead.

A row no farther than r from its centroid a can be nearest to b only if |a - b| <= 2 r. The rows of one cluster, nearest
first, lie nearer to its centroid than those of such a tile to their middle, so fewer centroids come into question. The
farthest are tried once more, by balls around rows that lie in the same direction.
"""

import numpy as np

from kmeans_dask.costs import groups_pay_off
from kmeans_dask.keeping import keep_rows, lowered
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.ordering import gathered
from kmeans_dask.rivals import KEPT, ball_of, narrow, nearest_to, reach_of, rivals, root_above
from kmeans_dask.scans import FEW, judge
from kmeans_dask.tiles import TILE

_SLAB, _SLAB_BYTES = 2048, 2**22  # of rows of a cluster, taken together while they are in the cache
_MOST = 2**20  # rows at a time
_ROWS_EACH = 512  # of a cluster, at a time
_LEAST = 16  # rows of a cluster, for which it is worth to look at all centroids
_LEAST_OF_BALL = 64  # rows, for which it is worth to look for rivals
STEPS = 256  # of keys that rows are sorted by


@compiled()
def room_for_groups(tiles, n_clusters):  # type: ignore[no-untyped-def]
    """Return the room for rows to be grouped: chosen ones, the same by cluster, ends; a slab of them; and a group."""
    n_tiles, d4, _ = tiles.shape
    n = 0
    if groups_pay_off(d4, n_clusters):
        n = min(n_tiles * TILE, min(n_clusters * _ROWS_EACH, _MOST) + TILE)
    chosen = np.empty(n, np.uint32), np.empty(n, np.uint32), np.empty(n_clusters + 1, np.int64)
    m = min(n, max(TILE, min(_SLAB, _SLAB_BYTES // (d4 * tiles.itemsize))))
    slab = np.empty((m, d4), tiles.dtype), np.empty(m), np.empty(m, np.uint32), np.empty(m, np.uint32)
    lanes, places = np.zeros((d4, TILE if n else 0), tiles.dtype), np.empty(TILE, np.int64)
    return (
        chosen,
        slab,
        (np.empty(STEPS + 1, np.int64), np.empty(m)),
        (lanes, places, np.empty(TILE), np.empty(d4)),
    )


@borrowing()
def by_cluster(labels, chosen, order, ends):  # type: ignore[no-untyped-def]
    """Write the chosen rows by their labels, those without one (-1) first, and where the rows of each end, (k + 1,)."""
    ends[:] = 0
    for i in range(chosen.shape[0]):
        ends[labels[chosen[i]] + 1] += 1
    before = 0
    for j in range(ends.shape[0]):
        count = ends[j]
        ends[j] = before
        before += count
    for i in range(chosen.shape[0]):
        j = labels[chosen[i]] + 1
        order[ends[j]] = chosen[i]
        ends[j] += 1


@borrowing()
def copy_rows(tiles, places, rows):  # type: ignore[no-untyped-def]
    """Copy those rows of tiles (n_tiles, d4, 128), (n,), to rows (n, d4)."""
    for i in range(places.shape[0]):
        at = np.int64(places[i])
        tile, r, row = tiles[at // TILE], at % TILE, rows[i]
        for f in range(tile.shape[0]):
            row[f] = tile[f, r]


@borrowing(fastmath={"reassoc", "contract"})  # what rounding does to it is far less than the margins
def distances_from(centroid, rows, distances):  # type: ignore[no-untyped-def]
    """Write how far rows (n, d4) are from a centroid, (d,), rounded up."""
    for i in range(distances.shape[0]):
        total, row = 0.0, rows[i]
        for f in range(centroid.shape[0]):
            difference = row[f] - centroid[f]
            total += difference * difference
        distances[i] = root_above(total)


@borrowing(fastmath={"reassoc", "contract"})  # any order will do
def ways_along(centroid, rows, some, ways):  # type: ignore[no-untyped-def]
    """Write how far some of the rows (n, d4) lie along the way from a centroid, (d,), to the last of them."""
    last = rows[some[some.shape[0] - 1]]
    for i in range(some.shape[0]):
        total, row = 0.0, rows[some[i]]
        for f in range(centroid.shape[0]):
            total += row[f] * (last[f] - centroid[f])
        ways[i] = total


@borrowing()
def sort_by(keys, some, order, starts):  # type: ignore[no-untyped-def]
    """Write some rows in about the order of their keys, (n,) each, which are lost; starts: work."""
    lowest, highest = np.inf, -np.inf
    for i in range(some.shape[0]):
        lowest, highest = min(lowest, keys[i]), max(highest, keys[i])
    step = STEPS / (highest - lowest) if 0.0 < highest - lowest < np.inf else 0.0
    starts[:] = 0
    for i in range(some.shape[0]):
        key = (keys[i] - lowest) * step
        keys[i] = key if 0.0 <= key < STEPS else STEPS - 1.0  # of NaN too
        starts[int(keys[i]) + 1] += 1
    for j in range(STEPS):
        starts[j + 1] += starts[j]
    for i in range(some.shape[0]):
        j = int(keys[i])
        order[starts[j]] = some[i]
        starts[j] += 1


@borrowing()
def within(sq_distances, radius, found):  # type: ignore[no-untyped-def]
    """Write which centroids may be nearest to rows within a radius of one, in order; how many, and how far others are.

    sq_distances (k,): of the centroids from that one.
    """
    reach = 2.0 * radius * (1.0 + KEPT)
    limit = reach * reach * (1.0 + 2.0**-30) + 2.0**-900
    n, beyond = 0, np.inf
    for j in range(sq_distances.shape[0]):
        is_near = sq_distances[j] <= limit
        found[n] = j  # overwritten unless it is near
        n += is_near
        beyond = min(beyond, np.inf if is_near else sq_distances[j])
    return n, np.sqrt(beyond)


@borrowing()
def allow_for_others(n, far, distances, thresholds, rows_found):  # type: ignore[no-untyped-def]
    """Lower the slack of n scanned rows, no farther from a centroid than distances, by centroids not scanned.

    far: how far from that one these are, at least.
    """
    labels, slack, nearest = rows_found[:3]
    for r in range(n):
        gap = far - distances[r] - np.float64(nearest[r])
        threshold = np.float64(thresholds[labels[r]])
        reached = gap + threshold
        allowed = np.float32(lowered(reached, far + abs(reached) + threshold))
        slack[r] = allowed if allowed < slack[r] else slack[r]


@borrowing()
def name_owner(n, label, lead, farthest, thresholds, rows_found):  # type: ignore[no-untyped-def]
    """Write what is found of n rows, nearer by lead to one centroid than to any other, and at most that far from it."""
    labels, slack, distances = rows_found[:3]
    threshold = np.float64(thresholds[label])
    reached = threshold + lead
    allowed = np.float32(lowered(reached, reached + threshold))
    farthest = np.float32(farthest * (1.0 + 2.0**-20) + 2.0**-140)
    for r in range(n):
        labels[r], slack[r], distances[r] = label, allowed, farthest


@borrowing(inline="always")
def relabel_groups(ledger, tiles, n_chosen, far_scan, near_room, groups, few, waiting, rows_found, state):  # type: ignore[no-untyped-def]
    """Scan the chosen rows in groups of one cluster; return how many wait to be scanned, and how many labels changed.

    Those wait, behind others, that do not fill a group, or that too many centroids may be nearest to.
    """
    centroids = far_scan[1]
    (chosen, ordered, ends), (rows, distances, order, rest), (starts, keys), group = groups
    pending, n_pending = waiting
    by_cluster(state[0], chosen[:n_chosen], ordered, ends)
    changed, first = 0, 0
    for g in range(ends.shape[0]):
        centroid = centroids[max(g - 1, 0)]
        while first < ends[g]:
            places = ordered[first : min(first + rows.shape[0], ends[g])]
            n, done = places.shape[0], 0
            first += n
            copy_rows(tiles, places, rows)
            if n >= _LEAST:
                distances_from(centroid, rows, distances[:n])
                for i in range(n):
                    rest[i], keys[i] = i, distances[i]
                sort_by(keys, rest[:n], order, starts)
                if g > 0:
                    slab = places, rows, distances, order[:n]
                    done, m = relabel_near(
                        ledger, slab, g - 1, far_scan, near_room, group, few, rows_found, state
                    )
                    changed += m
            else:
                for i in range(n):
                    order[i] = i
            left = order[done:n]
            if n - done >= _LEAST_OF_BALL:
                ways_along(centroid, rows, left, keys)
                sort_by(keys, left, rest, starts)
                left = rest[: n - done]
            slab = places, rows, distances, left
            n_pending, m = relabel_far(
                ledger, slab, far_scan, near_room, group, (pending, n_pending), rows_found, state
            )
            changed += m
    return n_pending, changed


@borrowing(inline="always")
def relabel_near(ledger, slab, a, far_scan, near_room, group, few, rows_found, state):  # type: ignore[no-untyped-def]
    """Scan the rows of cluster a, nearest first, while not too many centroids are in question.

    slab = (places, rows, distances, order); return how many were scanned, and how many labels changed.
    """
    scan, centroids, thresholds, _ = far_scan
    (columns, sq_distances, found), local = near_room
    places, rows, distances, order = slab
    lanes, at, far_off, _ = group
    nearest_to(centroids[a], columns, sq_distances)
    changed, done = 0, 0
    while order.shape[0] - done > 0:
        some = order[done : min(done + TILE, order.shape[0])]
        m, radius = some.shape[0], 0.0
        for r in range(m):
            at[r], far_off[r] = places[some[r]], distances[some[r]]
            radius = max(radius, far_off[r])
        n, far = within(sq_distances, radius, found)
        if 4 * n > centroids.shape[0]:
            break
        n4 = narrow(found, n, scan, local)
        near = local[0][:n4], local[1][:n4], scan[2]
        if m <= FEW:
            gathered(rows, some, few)
            judge(few, m, near, centroids, thresholds, found[:n], np.inf, rows_found)
        else:
            gathered(rows, some, lanes)
            judge(lanes, m, near, centroids, thresholds, found[:n], np.inf, rows_found)
        allow_for_others(m, far, far_off, thresholds, rows_found)
        changed += keep_rows(ledger, few if m <= FEW else lanes, state, rows_found, at[:m])
        done += m
    return done, changed


@borrowing(inline="always")
def relabel_far(ledger, slab, far_scan, near_room, group, waiting, rows_found, state):  # type: ignore[no-untyped-def]
    """Scan rows in this order by balls around them, or let them wait; return how many do, and how many labels changed.

    slab: see `relabel_near`.
    """
    scan, centroids, thresholds, every = far_scan
    (columns, sq_distances, found), local = near_room
    places, rows, _, order = slab
    lanes, at, _, centre = group
    (pending, pending_places), n_pending = waiting
    centre = centre[: centroids.shape[1]]
    changed = 0
    for first in range(0, order.shape[0], TILE):
        some = order[first : min(first + TILE, order.shape[0])]
        m, n = some.shape[0], 0
        if m >= _LEAST_OF_BALL:
            gathered(rows, some, lanes)
            radius = ball_of(lanes, m, centre)
            n, bound = rivals(centre, radius, columns, centroids, sq_distances, found)
        if n > 0:
            for r in range(m):
                at[r] = places[some[r]]
            if n == 1:
                farthest = reach_of(sq_distances[found[0]], radius)
                name_owner(m, np.int32(found[0]), bound, farthest, thresholds, rows_found)
            else:
                n4 = narrow(found, n, scan, local)
                near = local[0][:n4], local[1][:n4], scan[2]
                judge(lanes, m, near, centroids, thresholds, found[:n], bound, rows_found)
            changed += keep_rows(ledger, lanes, state, rows_found, at[:m])
            continue
        for r in range(m):
            row = rows[some[r]]
            for f in range(row.shape[0]):
                pending[f, n_pending] = row[f]
            pending_places[n_pending] = places[some[r]]
            n_pending += 1
            if n_pending == TILE:
                judge(pending, TILE, scan, centroids, thresholds, every, np.inf, rows_found)
                changed += keep_rows(ledger, pending, state, rows_found, pending_places)
                n_pending = 0
    return n_pending, changed
