"""The compiled scan: rows against centroids, in float32 or float64, and what it leaves open decided exactly.

Rows lie in lanes, feature by feature: 128 of them, a tile, or 32 that were gathered from one, a few.
The scan only proposes: whatever its rounding, `settle` decides what it leaves open. So the compiler may fuse
multiply-adds in it, and nowhere else. One flat work array with constant offsets lets it vectorise without checks for
overlap: four scores of each row, then its best, second best and label.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.tiles import TILE

Kernel = Callable[..., Any]
FEW = 32
AT_ONCE = 256  # features of wide rows: what 128 rows hold of them stays in the cache
_MANY = 12  # of so many lanes, one that is left open is settled alone
BEST, SECOND, LABEL = 4 * TILE, 5 * TILE, 6 * TILE  # where in the work of `scan_tile`
WORK = 7 * TILE


@borrowing()
def write_scan(centroids, doubt, negative, squares, doubts):  # type: ignore[no-untyped-def]
    """Write centroids, (k, d) float64, as `judge` scans them; one beyond float32 leaves every row to `settle`."""
    k = centroids.shape[0]
    for j in range(k):
        sq_norm = 0.0
        for f in range(centroids.shape[1]):
            negative[j, f] = -2.0 * centroids[j, f]
            sq_norm += centroids[j, f] * centroids[j, f]
        squares[j], doubts[j] = sq_norm * (1.0 - doubt), sq_norm * (2.0 * doubt)
    squares[k:], doubts[k:] = np.inf, 0.0


@borrowing(inline="always", fastmath={"contract"})
def begin_scores(tile, width, negative, squares, j, f, work):  # type: ignore[no-untyped-def]
    """Write the scores of four centroids from j on, of four features from f on alone; tile (d4 * width,)."""
    g, h, i = f + 1, f + 2, f + 3
    q0, q1, q2, q3 = squares[j], squares[j + 1], squares[j + 2], squares[j + 3]
    a0, a1, a2, a3 = negative[j, f], negative[j, g], negative[j, h], negative[j, i]
    b0, b1, b2, b3 = negative[j + 1, f], negative[j + 1, g], negative[j + 1, h], negative[j + 1, i]
    c0, c1, c2, c3 = negative[j + 2, f], negative[j + 2, g], negative[j + 2, h], negative[j + 2, i]
    d0, d1, d2, d3 = negative[j + 3, f], negative[j + 3, g], negative[j + 3, h], negative[j + 3, i]
    x = tile[f * width : (f + 4) * width]
    for r in range(width):
        x0, x1, x2, x3 = x[r], x[width + r], x[2 * width + r], x[3 * width + r]
        work[r] = q0 + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
        work[width + r] = q1 + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        work[2 * width + r] = q2 + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
        work[3 * width + r] = q3 + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@borrowing(inline="always", fastmath={"contract"})
def add_features(tile, width, negative, j, f, work):  # type: ignore[no-untyped-def]
    """Add four features from f on to the scores of four centroids from j on."""
    g, h, i = f + 1, f + 2, f + 3
    a0, a1, a2, a3 = negative[j, f], negative[j, g], negative[j, h], negative[j, i]
    b0, b1, b2, b3 = negative[j + 1, f], negative[j + 1, g], negative[j + 1, h], negative[j + 1, i]
    c0, c1, c2, c3 = negative[j + 2, f], negative[j + 2, g], negative[j + 2, h], negative[j + 2, i]
    d0, d1, d2, d3 = negative[j + 3, f], negative[j + 3, g], negative[j + 3, h], negative[j + 3, i]
    x = tile[f * width : (f + 4) * width]
    for r in range(width):
        x0, x1, x2, x3 = x[r], x[width + r], x[2 * width + r], x[3 * width + r]
        work[r] = work[r] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
        work[width + r] = work[width + r] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
        work[2 * width + r] = work[2 * width + r] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
        work[3 * width + r] = work[3 * width + r] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@borrowing(inline="always")
def fold_scores(width, j, work):  # type: ignore[no-untyped-def]
    """Fold four scores into best, second best and label of each row; by selects, so that it vectorises."""
    best_at, second_at, label_at, number = 4 * width, 5 * width, 6 * width, work.dtype.type
    l0, l1, l2, l3 = number(j), number(j + 1), number(j + 2), number(j + 3)
    for r in range(width):
        best, second, label = work[best_at + r], work[second_at + r], work[label_at + r]
        s = work[r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l0 if s < best else label
        best = s if s < best else best
        s = work[width + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l1 if s < best else label
        best = s if s < best else best
        s = work[2 * width + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l2 if s < best else label
        best = s if s < best else best
        s = work[3 * width + r]
        rest = best if s < best else s
        second = rest if rest < second else second
        label = l3 if s < best else label
        best = s if s < best else best
        work[best_at + r] = best
        work[second_at + r] = second
        work[label_at + r] = label


@borrowing(inline="always")
def begin_folding(width, work):  # type: ignore[no-untyped-def]
    """Write the best and second best of no scores."""
    for r in range(width):
        work[4 * width + r] = np.inf
        work[5 * width + r] = np.inf
        work[6 * width + r] = 0


def scan_of_width(width: int) -> Kernel:
    """Return the scan of this many rows."""

    @borrowing(fastmath={"contract"})
    def scan(tile, negative, squares, work):  # type: ignore[no-untyped-def]
        """Find each row's best and second best centroid up to rounding.

        tile (d4 * width,), negative (k4, d4) = -2 * centroid, squares (k4,) = |centroid|^2, infinite for padding: in;
        work (7 * width,): out. The score |c|^2 - 2 x.c is the squared distance less |x|^2.
        """
        begin_folding(width, work)
        for j in range(0, negative.shape[0], 4):
            begin_scores(tile, width, negative, squares, j, 0, work)
            for f in range(4, negative.shape[1], 4):
                add_features(tile, width, negative, j, f, work)
            fold_scores(width, j, work)

    return scan


def wide_scan_of_width(width: int) -> Kernel:
    """Return the same for wide rows: some features at a time, while they are in the cache, and rounded less often."""

    @compiled(fastmath={"contract"})
    def scan(tile, negative, squares, work):  # type: ignore[no-untyped-def]
        k4, d4 = negative.shape
        scores, nothing = np.zeros((k4 // 4, 4 * width), work.dtype), np.zeros(k4, work.dtype)
        for first in range(0, d4, AT_ONCE):
            for j in range(0, k4, 4):
                begin_scores(tile, width, negative, nothing if first else squares, j, first, work)
                for f in range(first + 4, min(first + AT_ONCE, d4), 4):
                    add_features(tile, width, negative, j, f, work)
                for i in range(4 * width):
                    scores[j // 4, i] += work[i]
        begin_folding(width, work)
        for j in range(0, k4, 4):
            work[: 4 * width] = scores[j // 4]
            fold_scores(width, j, work)

    return scan


def squares_of_width(width: int) -> Kernel:
    """Return the function that writes the squared norms of this many rows."""

    @borrowing(fastmath={"contract"})
    def add_squares(tile, work, squares):  # type: ignore[no-untyped-def]
        """Write each row's squared norm, (width,), up to rounding; tile (d4 * width,), work (width,)."""
        for r in range(width):
            squares[r] = 0
        n_features = tile.shape[0] // width
        for first in range(0, n_features, AT_ONCE):
            for r in range(width):
                work[r] = 0
            for f in range(first, min(first + AT_ONCE, n_features)):
                x = tile[f * width : (f + 1) * width]
                for r in range(width):
                    work[r] += x[r] * x[r]
            for r in range(width):
                squares[r] += work[r]

    return add_squares


def roundings(n_features: int) -> int:
    """Return how often a score is rounded, at most, while features are added up."""
    return min(n_features, AT_ONCE) + -(-n_features // AT_ONCE)


def slack_of_width(width: int) -> Kernel:
    """Return the function that turns scores of this many rows into labels and slack."""
    best_at, second_at, label_at = 4 * width, 5 * width, 6 * width

    @borrowing()
    def slack_of(work, squares, doubts, thresholds, candidates, bound, found):  # type: ignore[no-untyped-def]
        """Write labels, slack and distances, (width,) each, of scanned rows; return how many are left to settle.

        A row's slack is by how much its nearest centroid is nearer than any other, less all rounding, plus the
        threshold of its label; -inf where the two best are too close to call, or not numbers. Its distance is that
        from its nearest centroid, or more. candidates: the centroids scanned; bound: what the squared distances of
        others exceed the nearest one's by.
        """
        labels, slack, distances = found[:3]
        of_centroids, doubt, floor = doubts
        number = work.dtype.type
        more, less, floor = number(1.0 + doubt), number(1.0 - doubt), number(floor)
        doubt, margin, zero, none = number(doubt), number(2.0**-20), number(0), number(-np.inf)
        farthest, beyond = number(2.0**124), number(bound * (1.0 - 2.0**-18))
        for r in range(width):
            labels[r] = np.int32(work[label_at + r])
        for r in range(width):  # unsigned: no look for negative ones
            labels[r] = np.int32(candidates[np.uint64(labels[r])])
        for r in range(width):
            j = np.uint64(labels[r])
            work[r], work[width + r] = of_centroids[j], thresholds[j]
        unsettled = np.int32(0)
        for r in range(width):
            near = work[best_at + r] + work[r] + squares[r] * more + floor
            far = work[second_at + r] + squares[r] * less - floor
            far = far if far < farthest else farthest
            clear = far - near > doubt * far
            others = work[best_at + r] + beyond + squares[r] * less - floor
            far = others if others < far else far
            near, far = np.sqrt(near if near > zero else zero), np.sqrt(far if far > zero else zero)
            work[2 * width + r] = near + near * (margin + margin)
            gap = (far - near) - (far + near) * margin
            work[r] = gap if clear else none
            unsettled += np.int32(0) if clear else np.int32(1)
        for r in range(width):
            distance = np.float32(work[2 * width + r]) + np.float32(2.0**-140)
            distances[r] = distance if distance < np.float32(np.inf) else np.float32(np.inf)
        for r in range(width):
            threshold = np.float32(work[width + r])
            reached = np.float32(work[r]) + threshold
            # The last term covers what float32 rounds off its smallest numbers.
            lowered = reached - (abs(reached) + threshold) * np.float32(2.0**-21) - np.float32(2.0**-140)
            slack[r] = np.float32(-np.inf) if work[r] == none else lowered
        return unsettled

    return slack_of


scan_tile, scan_few = scan_of_width(TILE), scan_of_width(FEW)
scan_wide_tile, scan_wide_few = wide_scan_of_width(TILE), wide_scan_of_width(FEW)
squares_of_tile, squares_of_few = squares_of_width(TILE), squares_of_width(FEW)
slack_of_tile, slack_of_few = slack_of_width(TILE), slack_of_width(FEW)


@borrowing(inline="always")
def scan_lanes(lanes, scan, work, squares):  # type: ignore[no-untyped-def]
    """Scan 128 lanes, (d4, 128), as `scan_tile` does, and write their squared norms."""
    flat = lanes.reshape(-1)
    if lanes.shape[0] > AT_ONCE:
        scan_wide_tile(flat, scan[0], scan[1], work)
    else:
        scan_tile(flat, scan[0], scan[1], work)
    squares_of_tile(flat, work, squares)


@borrowing(inline="always")
def scan_few_lanes(lanes, scan, work, squares):  # type: ignore[no-untyped-def]
    """Do the same for few, (d4, 32)."""
    flat = lanes.reshape(-1)
    if lanes.shape[0] > AT_ONCE:
        scan_wide_few(flat, scan[0], scan[1], work)
    else:
        scan_few(flat, scan[0], scan[1], work)
    squares_of_few(flat, work, squares)


@compiled()
def room_for_rows(tiles):  # type: ignore[no-untyped-def]
    """Return the room for what is found of the rows of a tile: labels, slack, distances; and work, squared norms."""
    labels, slack, distances = (
        np.empty(TILE, np.int32),
        np.empty(TILE, np.float32),
        np.empty(TILE, np.float32),
    )
    return labels, slack, distances, np.empty(WORK, tiles.dtype), np.empty(TILE, tiles.dtype)


@borrowing()
def settle(tile, r, centroids, candidates, proposed):  # type: ignore[no-untyped-def]
    """Return the lowest candidate j that minimises the float64 sum over features, in order, of (x - c)^2 for one row.

    Partial sums never fall, so a sum above the best so far can stop early.
    """
    n_features = centroids.shape[1]
    best = 0.0
    for f in range(n_features):
        difference = np.float64(tile[f, r]) - centroids[proposed, f]
        best += difference * difference
    label = proposed
    for i in range(candidates.shape[0]):
        j = candidates[i]
        total = 0.0
        for f in range(n_features):
            difference = np.float64(tile[f, r]) - centroids[j, f]
            total += difference * difference
            if total > best:
                break
        if total < best or (total == best and j < label):
            best = total
            label = j
    return label


@compiled()
def settle_lanes(lanes, centroids, candidates, found, n):  # type: ignore[no-untyped-def]
    """Settle those of the first n lanes, (d4, width), that the scan left open, all at once; see `settle`, `judge`."""
    width = lanes.shape[1]
    best, total, nearest = np.full(width, np.inf), np.empty(width), np.zeros(width, np.int32)
    for j in candidates:
        total[:] = 0.0
        for f in range(centroids.shape[1]):
            c, x = centroids[j, f], lanes[f]
            for r in range(width):
                difference = np.float64(x[r]) - c
                total[r] += difference * difference
        for r in range(width):
            closer = total[r] < best[r]
            best[r] = total[r] if closer else best[r]
            nearest[r] = j if closer else nearest[r]
    for r in range(n):
        if found[1][r] == -np.inf:
            found[0][r] = nearest[r]


@compiled()
def settle_wide_lanes(lanes, centroids, candidates, found, n):  # type: ignore[no-untyped-def]
    """Do what `settle_lanes` does: first for the centroids that the scan proposes, then for others while they are near.

    So most are given up after some features, and rows are read while these are in the cache.
    """
    width, n_candidates = lanes.shape[1], candidates.shape[0]
    is_open = found[1][:n] == -np.inf
    best, nearest = np.full(width, np.inf), np.zeros(width, np.int32)
    totals, is_proposed = np.full((n_candidates, width), np.inf), np.zeros(n_candidates, np.bool_)
    for i in range(n_candidates):
        for r in range(n):
            is_proposed[i] |= is_open[r] and found[0][r] == candidates[i]
    some = np.flatnonzero(is_proposed)
    add_distances(lanes, centroids, candidates, some, is_open, best, totals)
    for i in range(n_candidates):
        for r in range(width):
            best[r] = totals[i, r] if totals[i, r] < best[r] else best[r]
    for other in range(n_candidates):
        if not is_proposed[other]:
            add_distances(lanes, centroids, candidates, np.array([other]), is_open, best, totals)
    best[:] = np.inf
    for i in range(n_candidates):
        j = candidates[i]
        for r in range(width):
            closer = totals[i, r] < best[r]
            best[r] = totals[i, r] if closer else best[r]
            nearest[r] = j if closer else nearest[r]
    for r in range(n):
        if is_open[r]:
            found[0][r] = nearest[r]


@compiled()
def add_distances(lanes, centroids, candidates, some, is_open, best, totals):  # type: ignore[no-untyped-def]
    """Write canonical squared distances from some candidates, totals (n_candidates, width), while open lanes need them.

    They are left as infinite where all are above the best before the last features.
    """
    d = centroids.shape[1]
    totals[some] = 0.0
    for first in range(0, d, AT_ONCE):
        needed = first == 0
        for i in some:
            for r in range(is_open.shape[0]):
                needed |= is_open[r] and totals[i, r] <= best[r]
        if not needed:
            totals[some] = np.inf
            return
        for i in some:
            total = totals[i]
            for f in range(first, min(first + AT_ONCE, d)):
                c, x = centroids[candidates[i], f], lanes[f]
                for r in range(total.shape[0]):
                    difference = np.float64(x[r]) - c
                    total[r] += difference * difference


@borrowing()
def judge(lanes, n, scan, centroids, thresholds, candidates, bound, found):  # type: ignore[no-untyped-def]
    """Scan the rows in the first n lanes, (d4, 128 or 32), and write what is found of them: see `slack_of_tile`.

    scan = (negative, squares, doubts): see `scan_tile` for the first two, of the candidates; the squares are lowered
    by half of what rounding can do to a score. doubts = (of each centroid, (k4,): what it can do through a centroid;
    doubt: through a row, by its square; floor). candidates (m,) int64: the centroids scanned; bound: see
    `slack_of_tile`. found: see `room_for_rows`.
    """
    work, squares = found[3], found[4]
    if lanes.shape[1] == TILE:
        scan_lanes(lanes, scan, work, squares)
        unsettled = slack_of_tile(work, squares, scan[2], thresholds, candidates, bound, found)
    else:
        scan_few_lanes(lanes, scan, work, squares)
        unsettled = slack_of_few(work, squares, scan[2], thresholds, candidates, bound, found)
    if unsettled * _MANY > lanes.shape[1]:
        if lanes.shape[0] > AT_ONCE:
            settle_wide_lanes(lanes, centroids, candidates, found, n)
        else:
            settle_lanes(lanes, centroids, candidates, found, n)
    elif unsettled:
        for r in range(n):
            if found[1][r] == -np.inf:
                found[0][r] = settle(lanes, r, centroids, candidates, found[0][r])
