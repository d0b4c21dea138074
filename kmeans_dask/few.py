"""The search of `refine` over few rows of weight 1, compiled whole: microseconds a breath.

Runs are trials of `lloyd`, bit by bit. They start from what is known of the rows, and look again only at rows that a
centroid which moved may have reached or left. rows: (n, d) float64. What is known: labels (n,) int32, -1 for none,
canonical squared distances (n,), and totals = (high, low (d, k), counts (k,)) of the rows that have a label.
"""

import numpy as np

from kmeans_dask import breaths, kernels
from kmeans_dask.breaths import sq_distance
from kmeans_dask.kernels import compiled, limbs_of


@compiled()
def search(rows, scales, centroids, lowest, limits, state, key, breaths_at_once):  # type: ignore[no-untyped-def]
    """Make some breaths from centroids, (k, d), until `patience` drawn ones in a row have failed.

    scales = (factors of the columns (d,), units of their sums (d,)); limits = (patience, iterations with more, with k
    centroids, sq_shift, hope); lowest: the inertia of the best centroids so far; state, in and out: see `breaths`.
    Returns the centroids to go on from, the best ones of these breaths, the lowest inertia, and the iterations made.
    """
    k = centroids.shape[0]
    labels, sq_distances = np.full(rows.shape[0], -1, np.int32), np.zeros(rows.shape[0])
    totals = _totals(k, rows.shape[1])
    every = np.ones(k, np.bool_)
    _relabel(rows, scales[0], centroids, every, every, labels, sq_distances, totals)
    inertia, weights = _sum(sq_distances), np.ones(rows.shape[0])
    shapes = breaths.axes_of(rows, weights, labels, centroids)
    best, n_iter, none = centroids, 0, np.empty(0, np.int64)
    for _ in range(breaths_at_once):
        if state[1] >= limits[0]:
            break
        errors = np.zeros(k)
        for i in range(rows.shape[0]):
            errors[labels[i]] += sq_distances[i]
        more = breaths.with_more(centroids, errors, totals[2].astype(np.float64), shapes, state, key)
        new_labels, new_sq_distances = labels.copy(), sq_distances.copy()
        moved = np.ones(more.shape[0], np.bool_)
        moved[:k] = False
        wide = _replaced(totals, np.arange(k), more.shape[0])
        n_iter += run(
            rows, scales, more, moved, moved, (limits[1], limits[3]), (np.inf, 0.0),
            new_labels, new_sq_distances, wide,
        )  # fmt: skip
        places = breaths.without_least(more, wide[2].astype(np.float64), k, none, state, key)
        for i in range(rows.shape[0]):
            new_labels[i] = places[new_labels[i]]
        renamed = np.zeros(k, np.bool_)
        for place in places[k:]:
            if place >= 0:
                renamed[place] = True
        fewer, new_totals = breaths.placed(more, places, k), _replaced(wide, places, k)
        n_iter += run(
            rows, scales, fewer, np.zeros(k, np.bool_), renamed, (limits[2], limits[3]), (inertia, limits[4]),
            new_labels, new_sq_distances, new_totals,
        )  # fmt: skip
        reached, kicked = _sum(new_sq_distances), breaths.kicks(state)
        breaths.advance(state, lowest, reached)
        if breaths.is_lower(reached, inertia) or kicked:
            centroids, inertia, totals = fewer, reached, new_totals
            labels, sq_distances = new_labels, new_sq_distances
            shapes = breaths.axes_of(rows, weights, labels, centroids)
        if breaths.is_lower(reached, lowest):
            best, lowest = fewer, reached
    return centroids, best, lowest, n_iter


@compiled()
def _limbs(totals):  # type: ignore[no-untyped-def]
    """Return the limbs of sums, (3, d, k): see `sums.normalised`."""
    high, low, _ = totals
    limbs = np.empty((3, *high.shape), np.int64)
    limbs[1] = high + (low >> 32)
    limbs[0] = limbs[1] >> 32
    limbs[1] &= np.int64(0xFFFFFFFF)
    limbs[2] = low & np.int64(0xFFFFFFFF)
    return limbs


@compiled()
def run(rows, scales, centroids, moved, renamed, limits, hope, labels, sq_distances, totals):  # type: ignore[no-untyped-def]
    """Run from centroids, (k, d), to those of the last pass, in place, as all that is known; return the iterations.

    moved (k,): what is known does not know them yet. renamed (k,): they have a lower index now, so win ties.
    limits = (max_iter, sq_shift). hope = (bar, falls): a run ends when its inertia would stay above the bar after so
    many falls like the last one.
    """
    k, d = centroids.shape
    iteration, last, all_of_them = 0, np.inf, np.ones(k, np.bool_)
    no_means, no_shifts = (np.empty((3, d, 0), np.int64), np.empty(0, np.int64)), np.zeros(k, np.int64)
    while True:
        iteration += 1
        others = moved | renamed if iteration == 1 else moved
        changed = _relabel(rows, scales[0], centroids, moved, others, labels, sq_distances, totals)
        inertia = _sum(sq_distances)
        if inertia - hope[1] * (last - inertia) > hope[0]:
            return iteration
        last, old = inertia, centroids.copy()
        after = totals if totals[2].min() > 0 else _refilled(rows, scales[0], labels, sq_distances, totals)
        kernels.means_of(_limbs(after), after[2], no_means, scales[1], no_shifts, all_of_them, centroids)
        sq_shift = 0.0
        for j in range(k):
            moved[j] = False
            for f in range(d):
                difference = centroids[j, f] - old[j, f]
                sq_shift += difference * difference
                moved[j] = moved[j] or centroids[j, f] != old[j, f]
        if iteration > 1 and changed == 0 and not moved.any():
            return iteration
        if (limits[1] > 0 and sq_shift <= limits[1]) or iteration >= limits[0]:
            centroids[:] = old
            return iteration


@compiled()
def _relabel(rows, factors, centroids, moved, others, labels, sq_distances, totals):  # type: ignore[no-untyped-def]
    """Bring what is known to these centroids, of which some have moved, (k,); return how many labels changed.

    others (k,): those that may be nearer, or win a tie, to rows whose own centroid has not moved.
    """
    clear, movers, all_of_them = _sq_reaches(centroids), np.flatnonzero(others), np.arange(centroids.shape[0])
    changed = 0
    for i in range(rows.shape[0]):
        label = labels[i]
        fresh = label < 0 or moved[label]
        if fresh and label >= 0:
            sq_distances[i] = sq_distance(rows, i, centroids, label)
        if label >= 0 and sq_distances[i] < clear[label]:
            continue
        nearest, least = (label, np.inf) if fresh else (label, sq_distances[i])
        for j in all_of_them if fresh else movers:
            total = sq_distance(rows, i, centroids, j)
            nearest = j if total < least or (total == least and j < nearest) else nearest
            least = min(least, total)
        sq_distances[i] = least
        if nearest != label:
            changed += 1
            if label >= 0:
                _add_row(rows, i, factors, label, -1, totals)
            _add_row(rows, i, factors, nearest, 1, totals)
            labels[i] = nearest
    return changed


@compiled()
def _sq_reaches(centroids):  # type: ignore[no-untyped-def]
    """Return the squared distances within which no other centroid can be as near, (k,): half the way to the next."""
    k, d = centroids.shape
    least = np.full(k, np.inf)
    for j in range(k):
        for i in range(j):
            total = sq_distance(centroids, i, centroids, j)
            least[j] = min(least[j], total)
            least[i] = min(least[i], total)
    return least * (0.25 * (1.0 - (d + 16) * 2.0**-48))  # less what rounding does to the distances


@compiled()
def _add_row(rows, i, factors, label, sign, totals):  # type: ignore[no-untyped-def]
    """Add one row to a cluster's totals, or take it away: sign 1 or -1."""
    high, low, counts = totals
    for f in range(factors.shape[0]):
        h, rest = limbs_of(rows[i, f] * factors[f])
        high[f, label] += sign * h
        low[f, label] += sign * rest
    counts[label] += sign


@compiled()
def _refilled(rows, factors, labels, sq_distances, totals):  # type: ignore[no-untyped-def]
    """Return the totals after the farthest rows moved to empty clusters, as `means.updated` has it."""
    after = (totals[0].copy(), totals[1].copy(), totals[2].copy())
    left = sq_distances.copy()
    for j in range(after[2].shape[0]):
        while after[2][j] == 0:
            at = np.argmax(left)
            if left[at] == 0.0:
                return after
            left[at] = 0.0
            if after[2][labels[at]] > 1:
                _add_row(rows, at, factors, labels[at], -1, after)
                _add_row(rows, at, factors, j, 1, after)
    return after


@compiled()
def _totals(k, d):  # type: ignore[no-untyped-def]
    """Return totals of no rows."""
    return np.zeros((d, k), np.int64), np.zeros((d, k), np.int64), np.zeros(k, np.int64)


@compiled()
def _replaced(totals, places, k):  # type: ignore[no-untyped-def]
    """Return totals of k clusters, each old one's in its place; -1: dropped."""
    new = _totals(k, totals[0].shape[0])
    for j in range(places.shape[0]):
        if places[j] >= 0:
            new[0][:, places[j]] = totals[0][:, j]
            new[1][:, places[j]] = totals[1][:, j]
            new[2][places[j]] = totals[2][j]
    return new


@compiled()
def _sum(values):  # type: ignore[no-untyped-def]
    """Return the sum, one after the other."""
    total = 0.0
    for value in values:
        total += value
    return total
