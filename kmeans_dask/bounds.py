"""How far the centroids of a run have come, and so which rows may have another nearest centroid by now.

A row is looked at again when its own centroid and another one may have moved by more than it was nearer to its own.
Centroids too far away to be nearest to any row of a cluster need not be counted, until they come near: then all that
they have moved since is. How far the rows of a cluster reach is known from the passes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Floats
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.rivals import apart, sq_distances_to

_FEW, _MOST = 512, 2048  # clusters whose pairs are kept at any number of rows, and at many
_ROWS_EACH = 512  # of a cluster, which are many: all pairs cost a small part of a pass with few open rows
_SINGLY = 8  # one distance of a centroid made alone costs as much as 8 made together


@dataclass(slots=True, eq=False)
class Bounds:
    """How far k centroids have come since a run began.

    moved (2, k): the way of each, and beside it the largest approach of others that count. thresholds (k,) float32:
    both, rounded up; drift: the largest rise of one of them in each move, added up. owed (k, k): for each cluster the
    way of each other centroid that does not count there yet; (0, 0) where every way counts at once.
    """

    moved: Floats
    thresholds: npt.NDArray[np.float32]
    owed: Floats
    drift: float = 0.0

    @classmethod
    def of(cls, n_clusters: int, n_rows: int = 0) -> Self:
        """Return the bounds at the start of a run over so many rows."""
        pays_off = n_clusters <= _FEW or (n_clusters <= _MOST and n_rows >= _ROWS_EACH * n_clusters)
        n_owed = n_clusters if pays_off else 0
        return cls(np.zeros((2, n_clusters)), np.zeros(n_clusters, np.float32), np.zeros((n_owed, n_owed)))

    def copy(self) -> "Bounds":
        """Return the same with arrays of its own."""
        return Bounds(self.moved.copy(), self.thresholds.copy(), self.owed.copy(), self.drift)

    def after(self, before: Floats, centroids: Floats, radii: Floats) -> tuple["Bounds", float]:
        """Return the bounds after a move, and the sum of the squares of how far each feature of each has moved.

        radii (k,): how far the rows of each cluster are from the centroid before, at most.
        """
        new = self.copy()
        rise, sq_shift = add_movements(before, centroids, radii.copy(), (new.moved, new.thresholds, new.owed))
        new.drift += rise
        return new, float(sq_shift)


@compiled()
def movements_of(before, after):  # type: ignore[no-untyped-def]
    """Return how far each centroid, (k, d), moved, rounded up, (k,); infinite where that overflows."""
    movements = np.zeros(before.shape[0])
    for j in range(before.shape[0]):
        for f in range(before.shape[1]):
            difference = after[j, f] - before[j, f]
            movements[j] += difference * difference
        movements[j] = np.sqrt(movements[j]) * (1.0 + 1e-9)
        movements[j] = movements[j] if movements[j] < np.inf else np.inf
    return movements


@compiled()
def widen(before, after, radii):  # type: ignore[no-untyped-def]
    """Widen radii, (k,), in place, of rows around the centroids before, to hold around those after."""
    movements = movements_of(before, after)
    for j in range(radii.shape[0]):
        radii[j] = (radii[j] + movements[j]) * (1.0 + 2.0**-40)


@compiled()
def add_movements(before, after, radii, bounds):  # type: ignore[no-untyped-def]
    """Add how centroids, (k, d), moved to bounds = (moved, thresholds, owed), in place: see `Bounds`.

    radii: of rows around the centroids before: in; after: out. Returned are the largest rise of a threshold, NaN where
    they overflow, and the sum of the squares of all differences, one after the other.
    """
    moved, thresholds, owed = bounds
    k, sq_shift = before.shape[0], 0.0
    for j in range(k):
        for f in range(before.shape[1]):
            difference = after[j, f] - before[j, f]
            sq_shift += difference * difference
    movements = movements_of(before, after)
    widen(before, after, radii)
    first, second = np.argmax(movements), 0.0
    for j in range(k):
        second = second if j == first else max(second, movements[j])
    rise, room = 0.0, (after.T.copy(), np.empty(k))
    for j in range(k):
        moved[0, j] += movements[j]
        if owed.shape[0] > 0:
            moved[1, j] += approach(after, movements, radii[j], j, owed[j], room)
        else:
            moved[1, j] += second if j == first else movements[first]
        threshold = np.float32((moved[0, j] + moved[1, j]) * (1.0 + 2.0**-20))
        higher = np.float64(threshold) - np.float64(thresholds[j])
        rise = rise if higher <= rise else higher  # NaN stays
        thresholds[j] = threshold
    return rise, sq_shift


@borrowing()
def approach(centroids, movements, radius, j, owed, room):  # type: ignore[no-untyped-def]
    """Return by how much others may have come nearer to the rows of cluster j since that was counted last.

    Its rows lie within the radius. owed (k,): the movements of others that were not counted, in; and out those of
    centroids that can be nearest to none of its rows. room = (the centroids' columns (d, k): in; work (k,)).
    """
    columns, sq_distances = room
    k, n_others = owed.shape[0], 0
    for i in range(k):
        owed[i] += movements[i]
        n_others += owed[i] > 0.0
    at_once = n_others * _SINGLY > k
    if at_once:
        sq_distances_to(centroids[j], columns, sq_distances)
    reach = 2.0 * radius * (1.0 + 2.0**-30) + 2.0**-500
    most = 0.0
    for i in range(k):
        if i != j and owed[i] > most:
            far = np.sqrt(sq_distances[i]) if at_once else apart(centroids[j], centroids[i])
            if not far > reach:
                most = owed[i]
    for i in range(k):
        owed[i] = owed[i] if owed[i] > most else 0.0
    return most
