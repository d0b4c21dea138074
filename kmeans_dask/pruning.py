"""The compiled loop of a pass: which tiles and rows may have another nearest centroid by now, scanned and moved."""

import numpy as np

from kmeans_dask.kernels import TILE, borrowing, compiled
from kmeans_dask.ledgers import count_copies, move_rows, move_tile, room_for_moves
from kmeans_dask.rivals import narrow, rivals, room_for
from kmeans_dask.scans import FEW, judge, room_for_rows

_PATIENCE = 8  # for how many looks at a tile not to look for rivals after there were too many


@borrowing()
def open_rows(thresholds, labels, slack, which):  # type: ignore[no-untyped-def]
    """Write which rows must be scanned, those whose centroids may have moved past their slack; return how many."""
    n_open = 0
    for r in range(
        labels.shape[0]
    ):  # NaN, beyond float32, and -inf, where there is no label (-1), are always open
        which[r] = 0 if thresholds[labels[r]] < slack[r] else 1
        n_open += which[r]
    if n_open == 0:
        return 0
    count = np.uint64(0)
    for r in range(labels.shape[0]):
        is_open = which[r]
        which[count] = r  # overwritten unless it is open: a branch would be guessed wrong
        count += np.uint64(is_open)
    return n_open


@borrowing()
def least_slack(thresholds, labels, slack):  # type: ignore[no-untyped-def]
    """Return by how much thresholds may rise before a row of a tile must be looked at again."""
    least = np.inf
    for r in range(labels.shape[0]):
        least = min(least, np.float64(slack[r]) - np.float64(thresholds[labels[r]]))
    return least


@borrowing()
def gap_of(step, labels, slack):  # type: ignore[no-untyped-def]
    """Return the drift at which the first of these rows must be looked at again, rounded down."""
    least = step[1] + least_slack(step[0], labels, slack)
    return least - abs(least) * 2.0**-40


@borrowing(inline="always")
def rows_to_look_at(t, first, stop, step, state, which):  # type: ignore[no-untyped-def]
    """Write which rows of a tile may have another nearest centroid than in the last pass; return how many."""
    thresholds, drift, fresh = step
    labels, slack, owners, gaps = state[:4]
    if fresh or (owners[t] >= 0 and not thresholds[owners[t]] < gaps[t]):
        for r in range(stop - first):
            which[r] = r
        return stop - first
    if owners[t] >= 0 or drift < gaps[t]:
        return 0
    count = open_rows(thresholds, labels[first:stop], slack[first:stop], which)
    if count == 0:
        gaps[t] = gap_of(step, labels[first:stop], slack[first:stop])
    return count


@borrowing()
def begin_rows(ledger, lanes, places, t, tile_sums, state, rows_found):  # type: ignore[no-untyped-def]
    """Note the first labels and slack of a tile's rows, and add the rows to the sums."""
    labels, slack, owners, gaps = state[:4]
    first, n = places[0], places.shape[0]
    most, n_most = rows_found[0][n // 2], 0
    for r in range(n):
        n_most += rows_found[0][r] == most
    whole = 2 * n_most > n  # all go to one cluster first, so that only the others have to be moved
    if whole:
        move_tile(t, tile_sums, ledger[2], count_copies(ledger[4], first, first + n), -1, most)
    which, old, new = ledger[3]
    count = 0
    for r in range(n):
        label = rows_found[0][r]
        slack[first + r], labels[first + r] = rows_found[1][r], label
        which[count], old[count], new[count] = r, most if whole else -1, label
        count += not (whole and label == most)
    move_rows(ledger, lanes, places, count)
    reach_rows(state[4], state[5], rows_found, n)
    owners[t], gaps[t] = -1, -np.inf


@borrowing(inline="always")
def reach_rows(radii, least, rows_found, n):  # type: ignore[no-untyped-def]
    """Widen the radii of clusters, of which none is below the least, to the first n scanned rows."""
    labels, distances = rows_found[0], rows_found[2]
    n_beyond = 0
    for r in range(n):
        n_beyond += distances[r] > least
    if n_beyond == 0:
        return
    for r in range(n):
        if not distances[r] <= radii[labels[r]]:
            radii[labels[r]] = distances[r]


@borrowing(inline="always")
def count_moves(ledger, places, m):  # type: ignore[no-untyped-def]
    """Return how many rows the first m moves are of."""
    which, copies = ledger[3][0], ledger[4]
    if copies.shape[0] == 0:
        return m
    n = 0
    for i in range(m):
        n += copies[places[which[i]]]
    return n


@borrowing(inline="always")
def keep_rows(ledger, lanes, state, rows_found, places):  # type: ignore[no-untyped-def]
    """Note the labels and slack of scanned rows, and move those whose label changed; return how many did."""
    labels, slack = state[0], state[1]
    which, old, new = ledger[3]
    changed = 0
    for r in range(places.shape[0]):
        at, label = places[r], rows_found[0][r]
        slack[at] = rows_found[1][r]
        which[changed], old[changed], new[changed] = r, labels[at], label
        changed += labels[at] != label
        labels[at] = label
    reach_rows(state[4], state[5], rows_found, places.shape[0])
    move_rows(ledger, lanes, places, changed)
    return count_moves(ledger, places, changed)


@borrowing()
def own(ledger, lanes, places, t, label, lead, farthest, tile_sums, step, state):  # type: ignore[no-untyped-def]
    """Give a whole tile to one centroid, nearer by `lead` than any other; return how many labels changed.

    farthest: how far its rows are from that centroid, at most.
    """
    labels, _, owners, gaps, radii, _ = state
    if not farthest <= radii[label]:
        radii[label] = farthest
    first, stop = places[0], places[0] + places.shape[0]
    old = np.int32(-1) if step[2] else owners[t]
    threshold = np.float64(step[0][label])
    reached = threshold + lead
    # The last term covers what float32 rounds off the smallest thresholds.
    owners[t], gaps[t] = label, reached - (reached + threshold) * 2.0**-21 - 2.0**-140
    if old == label:
        return 0
    if step[2] or old >= 0:
        n = count_copies(ledger[4], first, stop)
        move_tile(t, tile_sums, ledger[2], n, old, label)
        labels[first:stop] = label
        return n
    which, olds, news = ledger[3]
    changed = 0
    for r in range(stop - first):
        which[changed], olds[changed], news[changed] = r, labels[first + r], label
        changed += labels[first + r] != label
    move_rows(ledger, lanes, places, changed)
    labels[first:stop] = label
    return count_moves(ledger, places, changed)


@borrowing()
def gather_lanes(tile, which, lanes, filled):  # type: ignore[no-untyped-def]
    """Copy the chosen rows of a tile (d4, 128) to lanes (d4, width), from lane `filled` on."""
    for f in range(0, tile.shape[0], 4):
        x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        y0, y1, y2, y3 = lanes[f], lanes[f + 1], lanes[f + 2], lanes[f + 3]
        for i in range(which.shape[0]):
            r, lane = np.uint64(which[i]), np.uint64(filled + i)  # unsigned: no look for negative ones
            y0[lane], y1[lane], y2[lane], y3[lane] = x0[r], x1[r], x2[r], x3[r]


@borrowing()
def cost_of_scan(d4, k):  # type: ignore[no-untyped-def]
    """Return about what a row of a tile costs to scan against k centroids, in ns."""
    return 7.0 + (0.1 + 0.025 * d4) * k


@borrowing()
def ways(n, count, k, d4):  # type: ignore[no-untyped-def]
    """Return about what it costs, in ns, to scan a tile: all its rows against n rivals or against all centroids.

    And the same of `count` rows, gathered: those against all share their tiles with rows of others.
    """
    gathered = count * (8.0 + 1.3 * d4)  # much of it waits for memory
    far_whole, far_few = TILE * cost_of_scan(d4, k), gathered + count * cost_of_scan(d4, k)
    if n == 0:
        return np.inf, np.inf, far_whole, far_few
    narrowed = (4.0 + 0.05 * d4) * n
    few = -(-count // FEW) * (250.0 + 25.0 * min(d4, 128) + (4.0 + 1.25 * d4) * n)
    return narrowed + TILE * cost_of_scan(d4, n), narrowed + few + gathered, far_whole, far_few


@borrowing()
def relabel_few(ledger, tiles, t, which, rivals_scan, few, rows_found, state):  # type: ignore[no-untyped-def]
    """Gather chosen rows of a tile and scan them against its rivals; return how many labels changed."""
    near, centroids, thresholds, candidates, bound = rivals_scan
    lanes, places = few
    changed = 0
    for i in range(0, which.shape[0], FEW):
        n = min(FEW, which.shape[0] - i)
        gather_lanes(tiles[t], which[i : i + n], lanes, 0)
        for r in range(n):
            places[r] = t * TILE + which[i + r]
        judge(lanes, n, near, centroids, thresholds, candidates, bound, rows_found)
        changed += keep_rows(ledger, lanes, state, rows_found, places[:n])
    return changed


@borrowing(inline="always")
def relabel_later(ledger, tiles, t, which, far_scan, gathered, n_pending, rows_found, state):  # type: ignore[no-untyped-def]
    """Gather chosen rows of a tile behind those of others, and scan them against all centroids where they fill a tile.

    Return how many rows are gathered now, and how many labels changed.
    """
    scan, centroids, thresholds, every = far_scan
    pending, places = gathered
    changed, count = 0, which.shape[0]
    while count > 0:
        n = min(count, TILE - n_pending)
        some = which[count - n : count]
        gather_lanes(tiles[t], some, pending, n_pending)
        for i in range(n):
            places[n_pending + i] = t * TILE + some[i]
        count, n_pending = count - n, n_pending + n
        if n_pending == TILE:
            judge(pending, TILE, scan, centroids, thresholds, every, np.inf, rows_found)
            changed += keep_rows(ledger, pending, state, rows_found, places)
            n_pending = 0
    return n_pending, changed


@compiled()
def relabel_rows(block, balls, tile_sums, scan, centroids, step, factors, state, totals):  # type: ignore[no-untyped-def]
    """Bring labels, slack and totals from the last pass to these centroids; return how many labels changed.

    block = (tiles, n_rows, weights, copies), balls = (centres, radii), tile_sums = (high, low), scan: see
    `scans.judge`: in. step = (thresholds (k,) float32, drift, fresh), factors (d + 1,): in. totals: see `ledgers`, from
    zero when fresh. state = (labels (n_rows,) int32, slack (n_rows,) float32, owners (n_tiles,) int32, gaps (n_tiles,)
    float64, radii (k,) float64: how far the rows of each cluster are from its centroid, at most): in and out.
    A row is looked at when the threshold of its cluster, see `bounds`, reaches its slack; an owned tile likewise, as a
    whole. gaps: the threshold, or for tiles without an owner the drift, at which a tile must be looked at. owners: the
    centroid nearest to all rows, or -1, or less where rivals were found to be too many, and are not looked for again
    the next times.
    """
    tiles, _, weights, copies = block
    d4, dtype = tiles.shape[1], tiles.dtype
    state = (*state, np.float32(state[4].min() * (1.0 - 2.0**-20)))
    ledger = (weights, factors, totals, room_for_moves(), copies)
    reach, local = room_for(scan, centroids)
    room = (
        (np.arange(centroids.shape[0]), np.empty(TILE + 1, np.int64), np.empty(TILE, np.int64)),
        reach, local, room_for_rows(tiles),
        (np.zeros((d4, FEW), dtype), np.empty(FEW, np.int64)), (np.zeros((d4, TILE), dtype), np.empty(TILE, np.int64)),
    )  # fmt: skip
    return relabel_tiles(block, balls, tile_sums, scan, centroids, step, ledger, state, room)


@borrowing()
def relabel_tiles(block, balls, tile_sums, scan, centroids, step, ledger, state, room):  # type: ignore[no-untyped-def]
    """Do what `relabel_rows` does.

    room = (all centroids, which rows, all places of a tile; of `room_for`; of `room_for_rows`; a few lanes and their
    places; and of lanes gathered from several tiles).
    """
    tiles, n_rows, _, copies = block
    thresholds, _, fresh = step
    owners, gaps = state[2:4]
    k = centroids.shape[0]
    (every, which, whole), (columns, sq_distances, found), local, rows_found, few, gathered = room
    changed, n_pending = 0, 0
    for t in range(tiles.shape[0]):
        first = t * TILE
        stop = min(first + TILE, n_rows)
        count = rows_to_look_at(t, first, stop, step, state, which) if stop > first else 0
        if count == 0:
            continue
        n_whole = stop - first
        for r in range(n_whole):
            whole[r] = first + r
        rows = whole[:n_whole]
        n, bound = 0, np.inf
        if fresh or owners[t] >= -1:
            n, bound = rivals(balls[0][t], balls[1][t], columns, centroids, sq_distances, found)
        if n == 1:
            label = np.int32(found[0])
            farthest = (np.sqrt(sq_distances[label]) + balls[1][t]) * (1.0 + 2.0**-30) + 2.0**-500
            changed += own(ledger, tiles[t], rows, t, label, bound, farthest, tile_sums, step, state)
            continue
        near_whole, near_few, far_whole, far_few = ways(n, count, k, tiles.shape[1])
        is_near = min(near_whole, near_few) < min(far_whole, far_few)
        n4 = narrow(found, n if is_near else 0, scan, local)
        near = local[0][:n4], local[1][:n4], scan[2]
        if fresh or min(near_whole, far_whole) <= min(near_few, far_few):
            if is_near:
                judge(tiles[t], n_whole, near, centroids, thresholds, found[:n], bound, rows_found)
            else:
                judge(tiles[t], n_whole, scan, centroids, thresholds, every, np.inf, rows_found)
            if fresh:
                begin_rows(ledger, tiles[t], rows, t, tile_sums, state, rows_found)
                changed += count_copies(copies, first, stop)
                continue
            changed += keep_rows(ledger, tiles[t], state, rows_found, rows)
        elif is_near:
            rivals_scan = (near, centroids, thresholds, found[:n], bound)
            changed += relabel_few(ledger, tiles, t, which[:count], rivals_scan, few, rows_found, state)
        else:
            far_scan = (scan, centroids, thresholds, every)
            n_pending, n_changed = relabel_later(
                ledger, tiles, t, which[:count], far_scan, gathered, n_pending, rows_found, state
            )
            changed += n_changed
        owners[t] = -1 if is_near else (owners[t] + 1 if owners[t] < -1 else -1 - _PATIENCE)
        gaps[t] = -np.inf
    if n_pending:
        pending, places = gathered
        judge(pending, n_pending, scan, centroids, thresholds, every, np.inf, rows_found)
        changed += keep_rows(ledger, pending, state, rows_found, places[:n_pending])
    return changed
