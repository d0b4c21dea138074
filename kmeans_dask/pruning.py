"""The compiled loops of a pass: which centroids a tile can be nearest to, and which of its rows to look at again.

Every tile lies in a ball, `balls_of`. A centroid b is out of the question for all its rows when the ball lies on the
side of a, the centroid nearest to its centre: |m - b|^2 - |m - a|^2 > 2 r |a - b|. A tile with one centroid left is
owned: its sums move as one. What is left of the others are rivals, and its rows are scanned against those alone.
"""

import numpy as np

from kmeans_dask.kernels import TILE, compiled, count_open, judge, move_row

_KEPT = 0.1  # a centroid stays a rival unless it is farther by this share of the radius: else rows come back at once


@compiled()
def balls_of(tiles, n_rows, centres, radii):  # type: ignore[no-untyped-def]
    """Write a ball around each tile's rows: centres (n_tiles, d) float64, radii (n_tiles,), rounded up."""
    sq_distances = np.empty(TILE)
    for t in range(tiles.shape[0]):
        rows = min(TILE, n_rows - t * TILE)
        sq_distances[:] = 0.0
        for f in range(centres.shape[1]):
            lowest = highest = np.float64(tiles[t, f, 0])
            for r in range(rows):
                x = np.float64(tiles[t, f, r])
                lowest, highest = min(lowest, x), max(highest, x)
            centre = 0.5 * lowest + 0.5 * highest
            centres[t, f] = centre
            for r in range(rows):
                difference = np.float64(tiles[t, f, r]) - centre
                sq_distances[r] += difference * difference
        farthest = 0.0
        for r in range(rows):
            farthest = max(farthest, sq_distances[r])
        radii[t] = root_above(farthest)


@compiled()
def root_above(x):  # type: ignore[no-untyped-def]
    """Return the square root of a sum of squares, above all rounding; 2**-500 covers squares that underflow."""
    return np.sqrt(x) * (1.0 + 2.0**-30) + (2.0**-500 if x > 0.0 else 0.0)


@compiled()
def sums_of_tiles(tiles, n_rows, weights, factors, high, low):  # type: ignore[no-untyped-def]
    """Write each tile's sums, high and low (n_tiles, d + 1) int64, of its values and, last, of its weights, if any."""
    weighted = weights.shape[0] > 0
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
                y = x * factor
                h = np.int64(y)
                total_high += h
                total_low += np.int64((y - np.float64(h)) * 4294967296.0)
            high[t, f], low[t, f] = total_high, total_low
        high[t, d] = low[t, d] = 0
        if weighted:
            for r in range(rows):
                y = weights[first + r] * factors[d]
                h = np.int64(y)
                high[t, d] += h
                low[t, d] += np.int64((y - np.float64(h)) * 4294967296.0)


@compiled()
def nearest_to(centre, columns, sq_distances):  # type: ignore[no-untyped-def]
    """Write the squared distances (k,) of a point to the columns (d, k); return the nearest."""
    k = columns.shape[1]
    for j in range(k):
        sq_distances[j] = 0.0
    for f in range(columns.shape[0]):
        m = centre[f]
        for j in range(k):
            difference = m - columns[f, j]
            sq_distances[j] += difference * difference
    nearest = 0
    for j in range(1, k):
        nearest = j if sq_distances[j] < sq_distances[nearest] else nearest
    return nearest


@compiled()
def apart(centroids, a, b):  # type: ignore[no-untyped-def]
    """Return the distance between two centroids."""
    total = 0.0
    for f in range(centroids.shape[1]):
        difference = centroids[a, f] - centroids[b, f]
        total += difference * difference
    return np.sqrt(total)


@compiled()
def rivals(centre, radius, columns, centroids, sq_distances, found):  # type: ignore[no-untyped-def]
    """Write to found which centroids may be nearest to a row of a ball, in order; return how many, and a bound.

    One: the tile is owned, and the bound is by how much its rows are nearer to it than to any other. More: every other
    centroid's squared distance exceeds that of the nearest by at least the bound. None: half of all are left, or more.
    columns (d, k) and centroids (k, d) float64: in; sq_distances (k,), found (k,) int64: work.
    """
    k = columns.shape[1]
    a = nearest_to(centre, columns, sq_distances)
    near = np.sqrt(sq_distances[a])
    limit = near + 2.0 * radius * (1.0 + _KEPT)
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
        excess = sq_distances[j] - sq_distances[a] - 2.0 * radius * apart(centroids, a, j)
        excess -= across * across * 2.0**-30 + 2.0**-900
        least = min(least, excess / max(across, 2.0**-900))
        owned = owned and excess > 0.0
        if excess > _KEPT * radius * across:
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


@compiled()
def narrow(found, n, scan, centroids, thresholds, local):  # type: ignore[no-untyped-def]
    """Copy what `judge` needs of n rivals to local = (negative, squares, doubts, centroids, thresholds); return n4."""
    negative, squares, doubts, near_centroids, near_thresholds = local
    n4 = (n + 3) // 4 * 4
    for i in range(n):
        j = found[i]
        for f in range(negative.shape[1]):
            negative[i, f] = scan[0][j, f]
        for f in range(centroids.shape[1]):
            near_centroids[i, f] = centroids[j, f]
        squares[i], doubts[i], near_thresholds[i] = scan[1][j], scan[2][j], thresholds[j]
    for i in range(n, n4):
        negative[i, :] = 0
        squares[i], doubts[i], near_thresholds[i] = np.inf, 0, 0
    return n4


@compiled()
def local_arrays(scan, centroids):  # type: ignore[no-untyped-def]
    """Return room for `narrow`."""
    k4, d4 = scan[0].shape
    return (
        np.empty((k4, d4), scan[0].dtype), np.empty(k4, scan[0].dtype), np.empty(k4, scan[0].dtype),
        np.empty(centroids.shape), np.empty(k4, np.float32),
    )  # fmt: skip


@compiled()
def judge_narrow(tiles, tile, scan, local, n, n4, bound, origin, found, rows_found):  # type: ignore[no-untyped-def]
    """Scan a tile against n rivals: labels, of all centroids, and slack to rows_found."""
    near_scan = (local[0][:n4], local[1][:n4], local[2][:n4], scan[3], scan[4])
    judge(tiles, near_scan, local[3][:n], local[4], tile, origin, rows_found, bound)
    labels = rows_found[0]
    for r in range(origin.shape[0]):
        labels[r] = found[labels[r]]


@compiled()
def label_rows(tiles, n_rows, balls, scan, centroids, labels):  # type: ignore[no-untyped-def]
    """Write each row's label, (n_rows,) int32, exactly as `settle` defines it; balls = (centres, radii)."""
    rows_found = (np.empty(TILE, np.int32), np.empty(TILE, np.float32))
    thresholds, lanes = np.zeros(scan[0].shape[0], np.float32), np.arange(TILE)
    k = centroids.shape[0]
    columns, sq_distances, found = centroids.T.copy(), np.empty(k), np.empty(k, np.int64)
    local = local_arrays(scan, centroids)
    for t in range(tiles.shape[0]):
        first = t * TILE
        stop = min(first + TILE, n_rows)
        if stop <= first:
            continue
        n, bound = rivals(balls[0][t], balls[1][t], columns, centroids, sq_distances, found)
        if n == 1:
            labels[first:stop] = found[0]
            continue
        origin, tile = lanes[: stop - first] + first, tiles[t].reshape(-1)
        if n == 0:
            judge(tiles, scan, centroids, thresholds, tile, origin, rows_found, np.inf)
        else:
            n4 = narrow(found, n, scan, centroids, thresholds, local)
            judge_narrow(tiles, tile, scan, local, n, n4, bound, origin, found, rows_found)
        labels[first:stop] = rows_found[0][: stop - first]


@compiled()
def move_tile(t, tile_sums, totals, n, old, new):  # type: ignore[no-untyped-def]
    """Take the n rows of a tile from a cluster's sums to another's; old -1: from none."""
    tile_high, tile_low = tile_sums
    high, low, rows, weight_high, weight_low = totals
    d = high.shape[0]
    for f in range(d):
        high[f, new] += tile_high[t, f]
        low[f, new] += tile_low[t, f]
        if old >= 0:
            high[f, old] -= tile_high[t, f]
            low[f, old] -= tile_low[t, f]
    rows[new] += n
    if old >= 0:
        rows[old] -= n
    if weight_high.shape[0] > 0:
        weight_high[new] += tile_high[t, d]
        weight_low[new] += tile_low[t, d]
        if old >= 0:
            weight_high[old] -= tile_high[t, d]
            weight_low[old] -= tile_low[t, d]


@compiled()
def keep_rows(block, factors, state, totals, rows_found, origin):  # type: ignore[no-untyped-def]
    """Note scanned rows' labels and slack, and move those whose label changed; return how many did."""
    labels, slack = state[0], state[1]
    changed = 0
    for r in range(origin.shape[0]):
        at, label = origin[r], rows_found[0][r]
        slack[at] = rows_found[1][r]
        if labels[at] != label:
            move_row(block, factors, totals, at, labels[at], label)
            labels[at] = label
            changed += 1
    return changed


@compiled()
def decide_row(tiles, at, near_centroids, bound, found, thresholds, row):  # type: ignore[no-untyped-def]
    """Return a row's label among n rivals, canonically, and its slack; row (d,): work."""
    t, r = at // TILE, at % TILE
    for f in range(row.shape[0]):
        row[f] = tiles[t, f, r]
    nearest, near, far = 0, np.inf, np.inf
    for i in range(near_centroids.shape[0]):
        total = 0.0
        for f in range(row.shape[0]):
            difference = row[f] - near_centroids[i, f]
            total += difference * difference
        if total < near:
            nearest, near, far = i, total, near
        elif total < far:
            far = total
    far = min(far, near + bound, 2.0**124)
    threshold = thresholds[found[nearest]]
    gap = np.sqrt(far) * (1.0 - 2.0**-20) - np.sqrt(near) * (1.0 + 2.0**-20)
    reached = np.float32(threshold + np.float32(gap))
    lowered = reached - (abs(reached) + threshold) * np.float32(2.0**-21) - np.float32(2.0**-140)
    return np.int32(found[nearest]), lowered


@compiled()
def least_slack(thresholds, labels, slack):  # type: ignore[no-untyped-def]
    """Return by how much thresholds may rise before a row of a tile must be looked at again."""
    least = np.inf
    for r in range(labels.shape[0]):
        least = min(least, np.float64(slack[r]) - np.float64(thresholds[labels[r]]))
    return least


@compiled()
def rows_to_look_at(t, first, stop, step, state):  # type: ignore[no-untyped-def]
    """Return how many rows of a tile may have another nearest centroid than in the last pass; 0 of a closed one."""
    thresholds, drift, _, fresh = step
    labels, slack, owners, gaps = state
    if fresh:
        return stop - first
    if owners[t] >= 0:
        return 0 if thresholds[owners[t]] < gaps[t] else stop - first
    if drift < gaps[t]:
        return 0
    count = count_open(thresholds, labels[first:stop], slack[first:stop])
    if count == 0:
        least = drift + least_slack(thresholds, labels[first:stop], slack[first:stop])
        gaps[t] = least - abs(least) * 2.0**-40
    return count


@compiled()
def own(block, t, label, lead, tile_sums, step, state, totals):  # type: ignore[no-untyped-def]
    """Give a whole tile to one centroid, nearer by `lead` than any other; return how many labels changed."""
    thresholds, _, factors, fresh = step
    labels, _, owners, gaps = state
    first = t * TILE
    stop = min(first + TILE, block[1])
    old = np.int32(-1) if fresh else owners[t]
    reached = np.float64(thresholds[label]) + lead
    owners[t], gaps[t] = label, reached - (reached + np.float64(thresholds[label])) * 2.0**-21
    if old == label:
        return 0
    changed = 0
    if fresh or old >= 0:
        move_tile(t, tile_sums, totals, stop - first, old, label)
        labels[first:stop] = label
        return stop - first
    for at in range(first, stop):
        if labels[at] != label:
            move_row(block, factors, totals, at, labels[at], label)
            labels[at] = label
            changed += 1
    return changed


@compiled()
def decide_rows(block, t, near_centroids, bound, found, step, state, totals, row):  # type: ignore[no-untyped-def]
    """Decide a tile's open rows among its rivals, one by one; return how many labels changed."""
    thresholds, _, factors, _ = step
    labels, slack = state[0], state[1]
    changed = 0
    for at in range(t * TILE, min((t + 1) * TILE, block[1])):
        if not (thresholds[labels[at]] < slack[at]):
            label, slack[at] = decide_row(block[0], at, near_centroids, bound, found, thresholds, row)
            if labels[at] != label:
                move_row(block, factors, totals, at, labels[at], label)
                labels[at] = label
                changed += 1
    return changed


@compiled()
def scan_pending(block, scan, centroids, step, state, totals, pending, filled):  # type: ignore[no-untyped-def]
    """Scan gathered rows, pending = (tile (d4, 128), origin (128,)), against all; return how many labels changed."""
    rows_found = (np.empty(TILE, np.int32), np.empty(TILE, np.float32))
    origin = pending[1][:filled]
    judge(block[0], scan, centroids, step[0], pending[0].reshape(-1), origin, rows_found, np.inf)
    return keep_rows(block, step[2], state, totals, rows_found, origin)


@compiled()
def gather_pending(block, t, scan, centroids, step, state, totals, pending, filled):  # type: ignore[no-untyped-def]
    """Gather a tile's open rows and scan them whenever 128 are there; return labels changed, rows left pending."""
    tiles, thresholds = block[0], step[0]
    changed = 0
    for at in range(t * TILE, min((t + 1) * TILE, block[1])):
        if not (thresholds[state[0][at]] < state[1][at]):
            for f in range(tiles.shape[1]):
                pending[0][f, filled] = tiles[t, f, at % TILE]
            pending[1][filled] = at
            filled += 1
            if filled == TILE:
                changed += scan_pending(block, scan, centroids, step, state, totals, pending, filled)
                filled = 0
    return changed, filled


@compiled()
def relabel_rows(block, balls, tile_sums, scan, centroids, step, state, totals):  # type: ignore[no-untyped-def]
    """Bring labels, slack and totals from the last pass to these centroids; return how many labels changed.

    block = (tiles, n_rows, weights), balls = (centres, radii), tile_sums = (high, low): in.
    step = (thresholds (k,) float32, drift, factors, fresh): in. totals: in and out, from zero when fresh.
    state = (labels (n_rows,) int32, slack (n_rows,) float32, owners (n_tiles,) int32, gaps (n_tiles,) float64): in and
    out. A row is looked at when the movement of its centroid plus the largest of the others' since its last scan
    reaches its slack; an owned tile likewise, as a whole. gaps: the threshold, or for tiles without an owner the drift,
    the largest rise of any threshold, at which a tile must be looked at.
    """
    tiles, n_rows = block[0], block[1]
    thresholds, _, factors, fresh = step
    labels, _, owners, gaps = state
    k, d4 = centroids.shape[0], tiles.shape[1]
    rows_found = (np.empty(TILE, np.int32), np.empty(TILE, np.float32))
    columns, sq_distances, found = centroids.T.copy(), np.empty(k), np.empty(k, np.int64)
    local, row = local_arrays(scan, centroids), np.empty(centroids.shape[1])
    lanes, pending = np.arange(TILE), (np.zeros((d4, TILE), tiles.dtype), np.empty(TILE, np.int64))
    scan_cost = scan[0].shape[0] * d4 * 0.025
    whole_from = TILE * scan_cost / (scan_cost + 4.0 * d4)
    filled = changed = 0
    for t in range(tiles.shape[0]):
        first = t * TILE
        stop = min(first + TILE, n_rows)
        count = rows_to_look_at(t, first, stop, step, state) if stop > first else 0
        if count == 0:
            continue
        n, bound = rivals(balls[0][t], balls[1][t], columns, centroids, sq_distances, found)
        if n == 1:
            changed += own(block, t, np.int32(found[0]), bound, tile_sums, step, state, totals)
            continue
        if fresh:
            # All its rows go to one centroid first, so that only the others' have to be moved.
            labels[first:stop] = np.int32(found[0]) if n else np.int32(0)
            move_tile(t, tile_sums, totals, stop - first, -1, labels[first])
        every = fresh or owners[t] >= 0
        owners[t], gaps[t] = -1, -np.inf
        rows = lanes[: stop - first] + first
        if n:
            n4 = narrow(found, n, scan, centroids, thresholds, local)
            if every or count * (20.0 + n * d4) > TILE * (12.0 + 0.09 * n4 * d4):
                judge_narrow(tiles, tiles[t].reshape(-1), scan, local, n, n4, bound, rows, found, rows_found)
                changed += keep_rows(block, factors, state, totals, rows_found, rows)
            else:
                changed += decide_rows(block, t, local[3][:n], bound, found, step, state, totals, row)
        elif every or count > whole_from:
            judge(tiles, scan, centroids, thresholds, tiles[t].reshape(-1), rows, rows_found, np.inf)
            changed += keep_rows(block, factors, state, totals, rows_found, rows)
        else:
            more, filled = gather_pending(block, t, scan, centroids, step, state, totals, pending, filled)
            changed += more
    if filled:
        changed += scan_pending(block, scan, centroids, step, state, totals, pending, filled)
    return changed
