"""The truth: k-means by plain loops over Python floats and integers, importing nothing of ours.

X is anything with rows of numbers, float32 or float64, as stored; float32 values are exact as Python floats.
Distances are rounded as defined (float64, feature by feature); every sum across rows is exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Row = Sequence[float]
Table = np.ndarray | Sequence[Row]

UNIT = 2**1074  # every finite float64 is an integer number of 1/UNIT


@dataclass(frozen=True)
class Pass:
    """One iteration: labels by the centroids before it, and the means after it."""

    labels: list[int]
    changed: int  # labels that differ from the last pass; all of them in the first
    inertia: float  # of these labels, to the centroids before
    refills: dict[int, int]  # cluster -> the row that it took
    centroids: list[list[float]]


@dataclass(frozen=True)
class Run:
    """A finished run; `labels` belong to `centroids`, and `n_iter` counts the pass that found no change."""

    centroids: np.ndarray
    labels: np.ndarray
    inertia: float
    n_iter: int
    passes: list[Pass]


def rows_of(X: Table) -> list[list[float]]:
    """Return the rows as lists of Python floats."""
    return np.asarray(X).tolist()


def sq_distance(x: Row, c: Row) -> float:
    """Return the canonical squared distance: the float64 sum of (x - c)**2 over the features in order."""
    total = 0.0
    for a, b in zip(x, c, strict=True):
        difference = a - b
        total += difference * difference
    return total


def nearest(X: Table, centroids: Table) -> list[int]:
    """Return each row's label: the lowest j of the least canonical distance."""
    targets = rows_of(centroids)
    labels = []
    for x in rows_of(X):
        best, best_distance = 0, sq_distance(x, targets[0])
        for j in range(1, len(targets)):
            distance = sq_distance(x, targets[j])
            if distance < best_distance:
                best, best_distance = j, distance
        labels.append(best)
    return labels


def exact(value: float) -> int:
    """Return a float as an integer number of 1/UNIT."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * (UNIT // denominator)


def unit_weights(X: Table, weights: Sequence[float] | None) -> list[float]:
    """Return the weights as Python floats, or 1.0 for every row."""
    return [1.0] * len(X) if weights is None else np.asarray(weights).tolist()


def means(
    X: Table, labels: Sequence[int], centroids: Table, weights: Sequence[float] | None = None
) -> list[list[float]]:
    """Return each cluster's exact weighted mean, rounded once; a cluster without weight keeps its centroid.

    A weighted addend is the float64 product w * x.
    """
    kept = rows_of(centroids)
    totals = [[0] * len(c) for c in kept]
    mass = [0] * len(kept)
    for x, j, w in zip(rows_of(X), labels, unit_weights(X, weights), strict=True):
        mass[j] += exact(w)
        for f, value in enumerate(x):
            totals[j][f] += exact(w * value)
    return [
        [total / mass[j] for total in totals[j]] if mass[j] else kept[j]  # int / int rounds correctly
        for j in range(len(kept))
    ]


def inertia(
    X: Table, labels: Sequence[int], centroids: Table, weights: Sequence[float] | None = None
) -> float:
    """Return the exact sum of the float64 values w * (canonical squared distance), rounded once."""
    targets = rows_of(centroids)
    total = 0
    for x, j, w in zip(rows_of(X), labels, unit_weights(X, weights), strict=True):
        total += exact(w * sq_distance(x, targets[j]))
    return total / UNIT


def refills(
    X: Table, labels: Sequence[int], centroids: Table, weights: Sequence[float] | None = None
) -> dict[int, int]:
    """Return for each empty cluster, lowest first, the row it takes: the farthest from its own centroid.

    Ties go to the lowest row. A row at distance 0, of weight 0, or alone in its cluster is never taken; a
    cluster for which no row is left stays empty.
    """
    targets, rows, w = rows_of(centroids), rows_of(X), unit_weights(X, weights)
    members = [0] * len(targets)
    for i, j in enumerate(labels):
        members[j] += w[i] > 0
    empty = [j for j in range(len(targets)) if members[j] == 0]
    if not empty:
        return {}
    distance = [sq_distance(x, targets[j]) for x, j in zip(rows, labels, strict=True)]
    taken = {}
    for i in sorted(range(len(rows)), key=lambda i: (-distance[i], i)):
        if len(taken) == len(empty):
            break
        if distance[i] > 0 and w[i] > 0 and members[labels[i]] > 1:
            members[labels[i]] -= 1
            taken[empty[len(taken)]] = i
    return taken


def lloyd(X: Table, centroids: Table, max_iter: int = 300, weights: Sequence[float] | None = None) -> Run:
    """Return Lloyd's run from these centroids, until no label changes and no centroid moves.

    Each pass labels by the centroids, refills empty clusters, then moves every centroid to its mean.
    """
    current, passes, previous = rows_of(centroids), [], None
    for _ in range(max_iter):
        labels = nearest(X, current)
        changed = (
            len(labels) if previous is None else sum(a != b for a, b in zip(labels, previous, strict=True))
        )
        taken = refills(X, labels, current, weights)
        members = list(labels)
        for cluster, row in taken.items():
            members[row] = cluster
        moved = means(X, members, current, weights)
        passes.append(Pass(labels, changed, inertia(X, labels, current, weights), taken, moved))
        moved_any = moved != current
        current, previous = moved, labels
        if changed == 0 and not moved_any:
            break
    final = nearest(X, current)
    return Run(
        centroids=np.array(current, dtype=np.float64),
        labels=np.array(final, dtype=np.int64),
        inertia=inertia(X, final, current, weights),
        n_iter=len(passes),
        passes=passes,
    )


def simplified_silhouettes(X: Table, centroids: Table, weights: Sequence[float] | None = None) -> list[float]:
    """Each cluster's mean of (b - a) / b: a to its centroid, b to the nearest other one that has weight."""
    w, rows, kept = unit_weights(X, weights), rows_of(X), rows_of(centroids)
    labels = nearest(X, centroids)
    mass = [0.0] * len(kept)
    for label, weight in zip(labels, w, strict=True):
        mass[label] += weight
    totals = [0.0] * len(kept)
    for x, label, weight in zip(rows, labels, w, strict=True):
        a = math.sqrt(sq_distance(x, kept[label]))
        others = [math.sqrt(sq_distance(x, c)) for j, c in enumerate(kept) if j != label and mass[j]]
        b = min(others, default=0.0)
        totals[label] += weight * (b - a) / b if b else 0.0
    alone = [labels.count(j) == 1 for j in range(len(kept))]
    return [
        0.0 if single and m else total / m if m else math.nan
        for total, m, single in zip(totals, mass, alone, strict=True)
    ]
