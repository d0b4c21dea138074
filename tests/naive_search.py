"""The search of a refinement by plain loops over Python numbers, on `tests.naive`; importing nothing of ours."""

import math
from collections.abc import Sequence

from tests import naive
from tests.naive import Table, sq_distance

MASK = 2**64 - 1
GROW, SHRINK, HOPE, PROGRESS, KICK, ROUNDING, ROUNDS = 4, 20, 5, 1e-5, 20, 2.0**-26, 6


class Breath:
    """Which breath is due: orderly ones of 5 centroids or fewer, then drawn ones."""

    def __init__(self, key: int, n_clusters: int) -> None:
        self.key, self.size, self.failures, self.index = key, min(5, n_clusters), 0, 0

    def uniform(self, i: int) -> float:
        """Return the i-th number of this breath, by splitmix64's finaliser."""
        z = (self.key + ((self.index << 24) + i) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def beside(self, errors: Sequence[float]) -> list[int]:
        """Return the clusters that get another centroid."""
        left, found = list(errors), []
        size = self.size or min(len(errors), 1 + int(self.uniform(0) * 5))
        for q in range(size):
            j = left.index(max(left)) if self.size else drawn(left, self.uniform(8 + q))
            left[j] = 0.0
            found.append(j)
        return found

    def with_more(
        self, centroids: list[list[float]], errors: Sequence[float], rows: Sequence[int],
        axes: Sequence[tuple[list[float], float]],
    ) -> list[list[float]]:  # fmt: skip
        """Return the centroids and some more after them: along the axis of a cluster, or near it in each feature."""
        how = 0.0 if self.size else self.uniform(1)
        more, d = [list(c) for c in centroids], len(centroids[0])
        along = max(0.5, d * d / (d * d + 9.0))
        gains = [error * share for error, (_, share) in zip(errors, axes, strict=True)]
        for q, j in enumerate(self.beside(gains)):
            axis, share = axes[j]
            variance = errors[j] / rows[j] if rows[j] else 0.0
            us = [self.uniform(16 + q * d + f) for f in range(d)]
            if how < along and any(axis):
                reach, ways = math.sqrt(variance * share), [-a if us[0] < 0.5 else a for a in axis]
            else:
                reach = (1.0 if how < (1.0 + along) / 2.0 else 0.1) * math.sqrt(3.0 * variance / d)
                ways = [2.0 * u - 1.0 for u in us]
            more.append([c + reach * way for c, way in zip(centroids[j], ways, strict=True)])
        return more

    def without_least(self, centroids: list[list[float]], rows: Sequence[int], k: int) -> list[list[float]]:
        """Return k centroids: the cheapest to merge go, and those inserted take their places."""
        ranks = [least_merge(centroids, rows, j) for j in range(len(centroids))]
        if not self.size and self.uniform(2) < 0.5:
            ranks = [rank * (0.4 + 2.1 * self.uniform((1 << 23) + j)) for j, rank in enumerate(ranks)]
        order = sorted(range(len(ranks)), key=lambda j: ranks[j])
        goes, stays = set[int](), set[int]()
        for guarded in (True, False):
            for j in order:
                if len(goes) < len(centroids) - k and j not in goes and not (guarded and j in stays):
                    goes.add(j)
                    left = [i for i in range(len(centroids)) if i not in goes]
                    stays.add(min(left, key=lambda i: sq_distance(centroids[i], centroids[j])))
        new = iter([centroids[j] for j in range(k, len(centroids)) if j not in goes])
        return [next(new) if j in goes else centroids[j] for j in range(k)]

    def advance(self, lowest: float, reached: float) -> None:
        """Go on to the next breath."""
        self.index += 1
        if reached < lowest - lowest * PROGRESS:
            self.failures = 0
        elif self.size:
            self.size -= 1
        else:
            self.failures += 1


def drawn(shares: Sequence[float], u: float) -> int:
    """Return an index in proportion to shares."""
    total = 0.0
    for share in shares:
        total += share
    rest, last = u * total, 0
    for j, share in enumerate(shares):
        if share > 0:
            last = j
            if rest < share:
                break
            rest -= share
    return last


def least_merge(centroids: Table, rows: Sequence[int], j: int) -> float:
    """Return what merging cluster j with the cheapest other one costs, by Ward's formula."""
    return min(
        rows[i] * rows[j] / (rows[i] + rows[j]) * sq_distance(centroids[max(i, j)], centroids[min(i, j)])
        if rows[i] + rows[j]
        else 0.0
        for i in range(len(centroids))
        if i != j
    )


def axis_of(rows: list[list[float]], centroid: Sequence[float]) -> tuple[list[float], float]:
    """Return about the longest axis of rows, by power iteration, and the share of their inertia along it."""
    ways = [[x - c for x, c in zip(row, centroid, strict=True)] for row in rows]
    sq_distances = [sq_distance(row, centroid) for row in rows]
    total = 0.0
    for error in sq_distances:
        total += error
    if not total:
        return [0.0] * len(centroid), 1.0
    axis, along = unit(ways[sq_distances.index(max(sq_distances))]), 0.0
    for _ in range(ROUNDS):
        turned, along = [0.0] * len(centroid), 0.0
        for way in ways:
            t = 0.0
            for w, a in zip(way, axis, strict=True):
                t += w * a
            along += t * t
            turned = [a + t / total * w for a, w in zip(turned, way, strict=True)]
        axis = unit(turned)
    return axis, along / total


def axes_of(X: Table, labels: Sequence[int], centroids: Table) -> list[tuple[list[float], float]]:
    """Return the axis of each cluster."""
    members: list[list[list[float]]] = [[] for _ in centroids]
    for x, j in zip(naive.rows_of(X), labels, strict=True):
        members[j].append(x)
    return [axis_of(rows, centroid) for rows, centroid in zip(members, naive.rows_of(centroids), strict=True)]


def unit(row: list[float]) -> list[float]:
    """Return a row divided by its length."""
    total = 0.0
    for x in row:
        total += x * x
    return [x / math.sqrt(total) for x in row]


def described(X: Table, centroids: Table) -> tuple[list[int], list[float], list[int], float]:
    """Return labels, each cluster's inertia and rows, and the inertia of all, added up row by row."""
    labels = naive.nearest(X, centroids)
    errors, rows, total = [0.0] * len(centroids), [0] * len(centroids), 0.0
    for x, j in zip(naive.rows_of(X), labels, strict=True):
        error = sq_distance(x, centroids[j])
        errors[j] += error
        rows[j] += 1
        total += error
    return labels, errors, rows, total


def run(
    X: Table, centroids: list[list[float]], max_iter: int, sq_shift: float, bar: float, falls: int
) -> list[list[float]]:
    """Return the centroids of Lloyd's last pass, given up when the inertia would stay above the bar."""
    last, previous = math.inf, None
    for iteration in range(1, max_iter + 1):
        labels, _, _, inertia = described(X, centroids)
        if iteration > 1 and inertia - falls * (last - inertia) > bar:
            return centroids
        members = list(labels)
        for cluster, row in naive.refills(X, labels, centroids).items():
            members[row] = cluster
        moved = naive.means(X, members, centroids)
        if labels == previous and moved == centroids:
            return centroids
        shift = 0.0
        for a, b in zip(centroids, moved, strict=True):
            for x, y in zip(a, b, strict=True):
                shift += (y - x) * (y - x)
        if 0 < sq_shift >= shift or iteration == max_iter:
            return centroids
        last, previous, centroids = inertia, labels, moved
    return centroids


def searched(X: Table, start: Table, key: int, patience: int, sq_shift: float) -> list[list[float]]:
    """Return the best centroids of a search from the start, until `patience` drawn breaths in a row have failed."""
    centroids = best = naive.rows_of(start)
    labels, errors, rows, inertia = described(X, centroids)
    axes = axes_of(X, labels, centroids)
    lowest, breath, k = naive.inertia(X, naive.nearest(X, start), start), Breath(key, len(start)), len(start)
    while breath.failures < patience:
        more = run(X, breath.with_more(centroids, errors, rows, axes), GROW, sq_shift, math.inf, 0)
        fewer = breath.without_least(more, described(X, more)[2], k)
        fewer = run(X, fewer, SHRINK, sq_shift, inertia, HOPE)
        labels, new_errors, new_rows, reached = described(X, fewer)
        kicked = breath.failures % KICK == KICK - 1
        breath.advance(lowest, reached)
        if reached < inertia - inertia * ROUNDING or kicked:
            centroids, errors, rows, inertia = fewer, new_errors, new_rows, reached
            axes = axes_of(X, labels, centroids)
        if reached < lowest - lowest * ROUNDING:
            best, lowest = fewer, reached
    return best
