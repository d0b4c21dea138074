"""The compiled decisions of a search by breaths: where centroids are inserted, and which ones go.

All arithmetic is float64 in a fixed order without fused multiply-adds, so every processor decides alike.
A search's state is (size, failures, index) of its next breath. The first ones are orderly, beside the clusters of the
highest gains, and one that fails makes the next smaller. Then, at size 0, they are drawn: how many centroids, beside
which clusters (in proportion to their gains), where from them, and in every other one with blurred uses.
A cluster's gain is its inertia along the axis of its rows: about what a second centroid there would take off.
"""

import numpy as np

from kmeans_dask.kernels import compiled, limbs_of_cost

MOST = 5  # centroids inserted at once
_SIZE, _FAILURES, _INDEX = 0, 1, 2
_PROGRESS = 1e-5  # share of the inertia by which a breath must lower it, to count
_KICK = 20  # drawn breaths in a row after which one that failed is gone on from
_OTHER = 9.0  # of d^2 + so many drawn breaths d^2 insert along axes, but half at least: other ways split few features
_NEAR, _WIDE = 0.1, 1.0  # of inserted centroids off the axes, in standard deviations of each feature
_ROUNDS = 6  # of power iteration
_BLUR = (0.4, 2.1)  # factors of uses: the least, and how much more


@compiled()
def uniform(state, key, i):  # type: ignore[no-untyped-def]
    """Return the i-th float64 in [0, 1) of a breath: `randoms.uniforms` of one row id."""
    z = key + np.uint64((state[_INDEX] << 24) + i) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 2.0**-53


@compiled()
def is_lower(inertia, before):  # type: ignore[no-untyped-def]
    """Whether an inertia is lower, and not by rounding alone: the same clusters in another order are no better."""
    return inertia < before - before * 2.0**-26


@compiled()
def kicks(state):  # type: ignore[no-untyped-def]
    """Whether a search goes on from where this breath leads, even if it is no better."""
    return state[_FAILURES] % _KICK == _KICK - 1


@compiled()
def advance(state, lowest, inertia):  # type: ignore[no-untyped-def]
    """Go on to the next breath from one that reached an inertia, below the lowest before or not."""
    state[_INDEX] += 1
    if inertia < lowest - lowest * _PROGRESS:
        state[_FAILURES] = 0
    elif state[_SIZE] == 0:
        state[_FAILURES] += 1
    else:
        state[_SIZE] -= 1


@compiled()
def axes_of(rows, weights, labels, centres):  # type: ignore[no-untyped-def]
    """Return about the longest axis of the rows of each cluster, (k, d) of length 1, and what it has of their inertia.

    That is a share, (k,). By power iteration, from the row farthest from the centre. rows (n, d), weights, labels (n,),
    centres (k, d): the means of their rows, about. A cluster without a row beside its centre has the axis 0 and the
    share 1: few rows lie near a line.
    """
    k, d = centres.shape
    axes, shares, totals, farthest = np.zeros((k, d)), np.ones(k), np.zeros(k), np.zeros(k)
    for i in range(rows.shape[0]):
        j = labels[i]
        total = sq_distance(rows, i, centres, j)
        totals[j] += weights[i] * total
        if total > farthest[j]:
            farthest[j] = total
            for f in range(d):
                axes[j, f] = rows[i, f] - centres[j, f]
    _normalise(axes)
    for _ in range(_ROUNDS):
        turned, along = np.zeros((k, d)), np.zeros(k)
        for i in range(rows.shape[0]):
            j, way = labels[i], 0.0
            for f in range(d):
                way += (rows[i, f] - centres[j, f]) * axes[j, f]
            along[j] += weights[i] * (way * way)
            pull = weights[i] * way / totals[j] if totals[j] > 0.0 else 0.0
            for f in range(d):
                turned[j, f] += pull * (rows[i, f] - centres[j, f])
        _normalise(turned)
        axes = turned
    for j in range(k):
        if totals[j] > 0.0:
            shares[j] = along[j] / totals[j]
    return axes, shares


@compiled()
def means_of(rows, weights, labels, centroids):  # type: ignore[no-untyped-def]
    """Return the mean of the rows of each cluster, (k, d), added up in their order; its centroid where it has none."""
    means, totals = np.zeros(centroids.shape), np.zeros(centroids.shape[0])
    for i in range(rows.shape[0]):
        totals[labels[i]] += weights[i]
        for f in range(rows.shape[1]):
            means[labels[i], f] += weights[i] * rows[i, f]
    for j in range(centroids.shape[0]):
        for f in range(centroids.shape[1]):
            means[j, f] = means[j, f] / totals[j] if totals[j] > 0.0 else centroids[j, f]
    return means


@compiled()
def _normalise(rows):  # type: ignore[no-untyped-def]
    """Divide each row, (k, d), by its length; one that has none, or is beyond float64, becomes 0."""
    for j in range(rows.shape[0]):
        total = 0.0
        for f in range(rows.shape[1]):
            total += rows[j, f] * rows[j, f]
        length = np.sqrt(total) if 0.0 < total < np.inf else np.inf
        for f in range(rows.shape[1]):
            rows[j, f] = rows[j, f] / length if length < np.inf else 0.0


@compiled()
def with_more(centroids, errors, weights, shapes, state, key):  # type: ignore[no-untyped-def]
    """Return the centroids, (k, d), and after them one beside each of those where a second one gains most.

    errors, weights: each cluster's inertia and the weight of its rows, (k,). shapes = (axes, shares): see `axes_of`.
    """
    axes, shares = shapes
    k, d = centroids.shape
    drawn = state[_SIZE] == 0
    size = min(k, 1 + int(uniform(state, key, 0) * MOST)) if drawn else state[_SIZE]
    how = uniform(state, key, 1) if drawn else 0.0
    along_axes = max(0.5, d * d / (d * d + _OTHER))
    offset = _WIDE if how < (1.0 + along_axes) / 2.0 else _NEAR
    more = np.empty((k + size, d))
    more[:k] = centroids
    gains = errors * shares
    for q in range(size):
        j = _drawn(gains, uniform(state, key, 8 + q)) if drawn else np.argmax(gains)
        along = how < along_axes and axes[j].any()
        variance = errors[j] / weights[j] if weights[j] > 0 else 0.0
        reach = np.sqrt(variance * shares[j]) if along else offset * np.sqrt(3.0 * variance / d)
        back = uniform(state, key, 16 + q * d) < 0.5
        for f in range(d):
            way = -1.0 if back else 1.0
            way = way * axes[j, f] if along else 2.0 * uniform(state, key, 16 + q * d + f) - 1.0
            more[k + q, f] = centroids[j, f] + reach * way
        gains[j] = 0.0
    return more


@compiled()
def _drawn(shares, u):  # type: ignore[no-untyped-def]
    """Return an index drawn in proportion to shares, (k,)."""
    total = 0.0
    for share in shares:
        total += share
    rest, last = u * total, 0
    for j in range(shares.shape[0]):
        if shares[j] > 0:
            last = j
            if rest < shares[j]:
                break
            rest -= shares[j]
    return last


@compiled()
def without_least(centroids, weights, n_clusters, frozen, state, key):  # type: ignore[no-untyped-def]
    """Return the place of each centroid, (K, d), among n_clusters, (K,) int32: -1 for those of least use.

    Those inserted take the places of those that go. The nearest neighbour of one that goes stays, since it takes over
    its rows; frozen ones (indices) stay in any case. weights (K,): of each cluster's rows.
    """
    count = centroids.shape[0]
    ranks = uses(centroids, weights)
    if state[_SIZE] == 0 and uniform(state, key, 2) < 0.5:
        for j in range(count):
            ranks[j] *= _BLUR[0] + _BLUR[1] * uniform(state, key, (1 << 23) + j)
    for j in frozen:
        ranks[j] = np.inf
    goes, stays = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    left, order = count - n_clusters, np.argsort(ranks, kind="mergesort")
    for guarded in (True, False):
        for j in order:
            if left > 0 and not goes[j] and not (guarded and stays[j]):
                goes[j] = True
                stays[_nearest(centroids, goes, j)] = True
                left -= 1
    places = np.arange(count).astype(np.int32)
    free = np.flatnonzero(goes[:n_clusters])
    used = 0
    for j in range(count):
        if goes[j]:
            places[j] = -1
        elif j >= n_clusters:
            places[j] = free[used]
            used += 1
    return places


@compiled()
def uses(centroids, weights):  # type: ignore[no-untyped-def]
    """Return by how much the inertia would rise if a cluster were merged with the one that costs least, (K,).

    Two clusters of weights v and w, whose centroids are their means, cost v w / (v + w) times the squared distance of
    these (J. Ward, Journal of the American Statistical Association 58, 1963).
    """
    count = centroids.shape[0]
    least = np.full(count, np.inf)
    for j in range(count):
        for i in range(j):
            both = weights[i] + weights[j]
            cost = (
                weights[i] * weights[j] / both * sq_distance(centroids, i, centroids, j) if both > 0 else 0.0
            )
            least[j] = min(least[j], cost)
            least[i] = min(least[i], cost)
    return least


@compiled()
def sq_distance(rows, i, centroids, j):  # type: ignore[no-untyped-def]
    """Return the canonical squared distance of row i and centroid j."""
    total = 0.0
    for f in range(rows.shape[1]):
        difference = rows[i, f] - centroids[j, f]
        total += difference * difference
    return total


@compiled()
def _nearest(centroids, goes, j):  # type: ignore[no-untyped-def]
    """Return the centroid nearest to j among those that do not go."""
    nearest, least = j, np.inf
    for i in range(centroids.shape[0]):
        total = sq_distance(centroids, i, centroids, j)
        if not goes[i] and total < least:
            nearest, least = i, total
    return nearest


@compiled()
def placed(centroids, places, n_clusters):  # type: ignore[no-untyped-def]
    """Return the centroids that have a place, (n_clusters, d)."""
    fewer = np.empty((n_clusters, centroids.shape[1]))
    for j in range(centroids.shape[0]):
        if places[j] >= 0:
            fewer[places[j]] = centroids[j]
    return fewer


@compiled()
def add_errors(sq_distances, weights, copies, labels, factor, limbs):  # type: ignore[no-untyped-def]
    """Add each weight * squared distance, (n,), to its cluster's accumulators, (3, k) int64, so many times.

    No weights, no copies: (0,).
    """
    weighted, repeated = weights.shape[0] > 0, copies.shape[0] > 0
    for i in range(labels.shape[0]):
        high, middle, low = limbs_of_cost(
            (weights[i] * sq_distances[i] if weighted else sq_distances[i]) * factor
        )
        count = copies[i] if repeated else 1
        limbs[0, labels[i]] += high * count
        limbs[1, labels[i]] += middle * count
        limbs[2, labels[i]] += low * count
