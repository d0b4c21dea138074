"""The compiled loop of a pass: which tiles and rows may have another nearest centroid by now, scanned and moved."""

import numpy as np

from kmeans_dask.costs import (
    ALL_WHOLE,
    GROUPED,
    RIVALS_FEW,
    RIVALS_WHOLE,
    cost_in_groups,
    cost_of_rivals,
    way_of,
)
from kmeans_dask.grouping import relabel_groups, room_for_groups
from kmeans_dask.keeping import begin_rows, keep_rows, own
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.ledgers import count_copies, room_for_moves
from kmeans_dask.radii import count_owned
from kmeans_dask.rivals import narrow, reach_of, rivals, room_for
from kmeans_dask.scans import FEW, judge, room_for_rows
from kmeans_dask.tiles import TILE

_PATIENCE = 8  # for how many looks at a tile not to look for rivals after there were too many


@borrowing()
def open_rows(thresholds, labels, slack, which):  # type: ignore[no-untyped-def]
    """Write which rows must be scanned, those whose centroids may have moved past their slack; return how many."""
    n_open = 0
    # NaN, beyond float32, and -inf, where there is no label (-1), are always open.
    for r in range(labels.shape[0]):
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
def tiles_to_look_at(some, step, state, which):  # type: ignore[no-untyped-def]
    """Write which of some tiles, (first, stop), may have a row with another nearest centroid; return how many."""
    thresholds, drift, fresh = step
    owners, gaps = state[2], state[3]
    count = np.uint64(0)
    for t in range(*some):
        which[count] = t  # overwritten unless it is looked at: a branch would be guessed wrong
        of_owner = np.float64(thresholds[max(owners[t], 0)])
        count += np.uint64(fresh or not (of_owner if owners[t] >= 0 else drift) < gaps[t])
    return np.int64(count)


@borrowing(inline="always")
def rows_to_look_at(t, first, stop, step, state, which):  # type: ignore[no-untyped-def]
    """Write which rows of a tile that is looked at may have another nearest centroid; return how many."""
    labels, slack, owners, gaps = state[:4]
    if step[2] or owners[t] >= 0:
        for r in range(stop - first):
            which[r] = r
        return stop - first
    count = open_rows(step[0], labels[first:stop], slack[first:stop], which)
    if count == 0:
        gaps[t] = gap_of(step, labels[first:stop], slack[first:stop])
    return count


@borrowing()
def gather_lanes(tile, which, lanes, filled):  # type: ignore[no-untyped-def]
    """Copy the chosen rows of a tile (d4, 128) to lanes (d4, width), from lane `filled` on."""
    for f in range(0, tile.shape[0], 4):
        x0, x1, x2, x3 = tile[f], tile[f + 1], tile[f + 2], tile[f + 3]
        y0, y1, y2, y3 = lanes[f], lanes[f + 1], lanes[f + 2], lanes[f + 3]
        for i in range(which.shape[0]):
            r, lane = np.uint64(which[i]), np.uint64(filled + i)  # unsigned: no look for negative ones
            y0[lane], y1[lane], y2[lane], y3[lane] = x0[r], x1[r], x2[r], x3[r]


@borrowing(inline="always")
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
    float64, found: see `radii`): in and out.
    A row is looked at when the threshold of its cluster, see `bounds`, reaches its slack; an owned tile likewise, as a
    whole. gaps: the threshold, or for tiles without an owner the drift, at which a tile must be looked at. owners: the
    centroid nearest to all rows, or -1, or less where rivals were found to be too many, and are not looked for again
    the next times; below k also when fresh.
    """
    tiles, n_rows, weights, copies = block
    d4, dtype = tiles.shape[1], tiles.dtype
    ledger = (weights, factors, totals, room_for_moves(centroids.shape[1]), copies)
    reach, local = room_for(scan, centroids)
    room = (
        (np.arange(centroids.shape[0]), np.empty(TILE + 1, np.int64), np.empty(TILE, np.int64),
         np.empty(tiles.shape[0], np.int64)),
        reach, local, room_for_rows(tiles),
        (np.zeros((d4, FEW), dtype), np.empty(FEW, np.int64)), (np.zeros((d4, TILE), dtype), np.empty(TILE, np.int64)),
        room_for_groups(tiles, centroids.shape[0]),
    )  # fmt: skip
    changed = relabel_block(block, balls, tile_sums, scan, centroids, step, ledger, state, room)
    count_owned(state[2], n_rows, copies, state[4])
    return changed


@borrowing()
def relabel_block(block, balls, tile_sums, scan, centroids, step, ledger, state, room):  # type: ignore[no-untyped-def]
    """Do what `relabel_rows` does.

    room = (all centroids, which rows, all places of a tile, which tiles; of `room_for`; of `room_for_rows`; a few lanes
    and their places; lanes gathered from several tiles; of `room_for_groups`).
    """
    n_tiles = block[0].shape[0]
    (every, _, _, _), reach, local, rows_found, few, gathered, groups = room
    far_scan, grouping = (scan, centroids, step[0], every), not step[2] and groups[0][0].shape[0] > 0
    at_once = groups[0][0].shape[0] // TILE if grouping else n_tiles
    changed, n_pending = 0, 0
    for first in range(0, n_tiles, max(at_once, 1)):
        some = (first, min(first + at_once, n_tiles)), n_pending, grouping
        n_changed, n_pending, n_chosen = relabel_tiles(
            some, block, balls, tile_sums, far_scan, step, ledger, state, room
        )
        changed += n_changed
        if n_chosen > 0:
            n_pending, n_changed = relabel_groups(
                ledger, block[0], n_chosen, far_scan, (reach, local), groups, few[0], (gathered, n_pending),
                rows_found, state,
            )  # fmt: skip
            changed += n_changed
    if n_pending == 0:
        return changed
    pending, places = gathered
    if n_pending <= FEW:
        lanes = few[0]
        for f in range(lanes.shape[0]):
            for r in range(n_pending):
                lanes[f, r] = pending[f, r]
        judge(lanes, n_pending, scan, centroids, step[0], every, np.inf, rows_found)
    else:
        judge(pending, n_pending, scan, centroids, step[0], every, np.inf, rows_found)
    return changed + keep_rows(ledger, pending, state, rows_found, places[:n_pending])


@borrowing(inline="always")
def relabel_tiles(some, block, balls, tile_sums, far_scan, step, ledger, state, room):  # type: ignore[no-untyped-def]
    """Relabel the rows of some tiles, but for those that are gathered behind others', and those to be grouped.

    some = ((first, stop), how many rows are gathered, whether rows may be grouped). Return how many labels changed, and
    how many rows are gathered and to be grouped.
    """
    n_pending, grouping = some[1:]
    tiles, n_rows, _, copies = block
    scan, centroids, thresholds, every = far_scan
    fresh, owners, gaps = step[2], state[2], state[3]
    k, d4 = centroids.shape[0], tiles.shape[1]
    (_, which, whole, looked_at), (columns, sq_distances, found), local, rows_found, few, gathered, groups = (
        room
    )
    changed, n_chosen = 0, 0
    for i in range(tiles_to_look_at(some[0], step, state, looked_at)):
        t = looked_at[i]
        first = t * TILE
        stop = min(first + TILE, n_rows)
        count = rows_to_look_at(t, first, stop, step, state, which) if stop > first else 0
        if count == 0:
            continue
        for r in range(stop - first):
            whole[r] = first + r
        rows = whole[: stop - first]
        n, bound = 0, np.inf
        looks = owners[t] >= -1 and not (grouping and count * cost_in_groups(d4, k) < cost_of_rivals(d4, k))
        if fresh or looks:
            n, bound = rivals(balls[0][t], balls[1][t], columns, centroids, sq_distances, found)
        if n == 1:
            label = np.int32(found[0])
            farthest = reach_of(sq_distances[label], balls[1][t])
            changed += own(ledger, tiles[t], rows, t, label, bound, farthest, tile_sums, step, state)
            continue
        way = way_of(n, count, k, d4, fresh, grouping)
        is_near = way in (RIVALS_WHOLE, RIVALS_FEW)
        owners[t] = -1 if is_near else (-1 - _PATIENCE if looks else min(owners[t] + 1, -1))
        gaps[t] = -np.inf
        if way == GROUPED:
            n_chosen = choose(first, which[:count], n_chosen, groups[0][0])
            continue
        n4 = narrow(found, n if is_near else 0, scan, local)
        near = local[0][:n4], local[1][:n4], scan[2]
        if way == RIVALS_WHOLE:
            judge(tiles[t], stop - first, near, centroids, thresholds, found[:n], bound, rows_found)
        elif way == ALL_WHOLE:
            judge(tiles[t], stop - first, scan, centroids, thresholds, every, np.inf, rows_found)
        elif way == RIVALS_FEW:
            rivals_scan = (near, centroids, thresholds, found[:n], bound)
            changed += relabel_few(ledger, tiles, t, which[:count], rivals_scan, few, rows_found, state)
        else:
            n_pending, n = relabel_later(
                ledger, tiles, t, which[:count], far_scan, gathered, n_pending, rows_found, state
            )
            changed += n
        if way in (RIVALS_WHOLE, ALL_WHOLE):
            if fresh:
                begin_rows(ledger, tiles[t], rows, t, tile_sums, state, rows_found)
                changed += count_copies(copies, first, stop)
            else:
                changed += keep_rows(ledger, tiles[t], state, rows_found, rows)
    return changed, n_pending, n_chosen


@borrowing(inline="always")
def choose(first, which, n_chosen, chosen):  # type: ignore[no-untyped-def]
    """Write the places of a tile's rows behind those that are chosen; return how many are then."""
    for i in range(which.shape[0]):
        chosen[n_chosen + i] = first + which[i]
    return n_chosen + which.shape[0]
