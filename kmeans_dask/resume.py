"""The start of a run from the end of another, of which some centroids go and others are added, and none moves.

What is known of rows whose centroid stays, and of which none that is added comes near, holds on; only the other rows
are scanned. So labels and sums are those of a first pass over all rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Floats
from kmeans_dask.kernels import borrowing, compiled
from kmeans_dask.rivals import apart
from kmeans_dask.tiles import TILE


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """Where a run ended: the name under which blocks remember it, and of its last `Step` the name and the bounds."""

    run: str
    name: str
    centroids: Floats
    thresholds: npt.NDArray[np.float32]
    drift: float
    owed: Floats  # see `bounds.Bounds`


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The end from which a run of k centroids starts, and the place of each of its centroids there, -1 for none.

    added: the places of the others, (m,) int64.
    """

    end: End
    places: npt.NDArray[np.int32]
    added: npt.NDArray[np.int64]


@compiled()
def place_pairs(start, centroids, places, owed):  # type: ignore[no-untyped-def]
    """Return the places in a start, (k, d), of those centroids, (K, d), that are there, what else is there, and owed.

    places (K,): where each is meant to be, -1 for nowhere; so are those returned. owed (K, K), or (0, 0): in, and of
    the start out.
    """
    k, n_owed = start.shape[0], start.shape[0] if owed.shape[0] > 0 else 0
    placed, is_added, found = places.copy(), np.ones(k, np.bool_), np.zeros((n_owed, n_owed))
    for j in range(places.shape[0]):
        if places[j] >= 0 and (start[places[j]] == centroids[j]).all():
            is_added[places[j]] = False
        else:
            placed[j] = -1
    for i in range(owed.shape[0]):
        for j in range(owed.shape[0]):
            if placed[i] >= 0 and placed[j] >= 0:
                found[placed[i], placed[j]] = owed[i, j]
    return placed, np.flatnonzero(is_added), found


@compiled()
def place_rows(rows, places, placed):  # type: ignore[no-untyped-def]
    """Write rows (K, d) to their places in others, (k, d); -1: to none."""
    for j in range(places.shape[0]):
        if places[j] >= 0:
            placed[places[j]] = rows[j]


@borrowing()
def carry(n_rows, balls, origin, added, old, new):  # type: ignore[no-untyped-def]
    """Write what is known of rows at the start of a run, so that `pruning.relabel_rows` needs no fresh pass.

    origin = (centroids (K, d), thresholds (K,), drift, places (K,)): of the run that has ended; added (m, d).
    old, new = (labels, slack, owners, gaps): see there; both may be the same arrays. Thresholds and drift start from 0.
    A row whose label goes has the label -1 and no slack; the rows of a tile that an added centroid may reach have none.
    """
    centroids, thresholds, drift, places = origin
    labels, slack, owners, gaps = new
    for t in range(owners.shape[0]):
        first, stop = t * TILE, min(t * TILE + TILE, n_rows)
        owner, gap_before = old[2][t], old[3][t]
        owners[t], gaps[t] = max(owner, -1), -np.inf
        if stop <= first:
            continue
        ref = old[0][(first + stop) // 2] if owner < 0 else owner
        lead = lead_over(balls[0][t], balls[1][t], centroids, ref, added)
        if owner >= 0:
            owners[t] = max(places[owner], -1)
            gap = gap_before - np.float64(thresholds[owner])
            gap = lead if lead < gap else gap  # NaN stays, and is looked at
            gaps[t] = gap - abs(gap_before) * 2.0**-40 if lead > 0.0 and places[owner] >= 0 else -np.inf
            for at in range(first, stop):
                labels[at], slack[at] = places[owner], -np.inf
            continue
        gap = gap_before - drift
        gap, most, gone = lead if lead < gap else gap, np.float32(lead), False
        for at in range(first, stop):
            before = old[0][at]
            left = old[1][at] - thresholds[before]
            margin = (abs(old[1][at]) + thresholds[before]) * np.float32(2.0**-21) + np.float32(2.0**-140)
            left = most if most < left - margin else left - margin
            labels[at], slack[at] = places[before], left if lead > 0.0 and places[before] >= 0 else -np.inf
            gone |= places[before] < 0
        gaps[t] = gap - abs(gap_before) * 2.0**-40 if lead > 0.0 and not gone else -np.inf


@borrowing()
def lead_over(centre, radius, centroids, ref, added):  # type: ignore[no-untyped-def]
    """Return by how much the own centroid of each row of a ball is nearer than any added one, (m, d), at least.

    ref: one of the centroids, (k, d), of which the nearest is a row's own.
    """
    least, near = np.inf, apart(centre, centroids[ref]) + 2.0 * radius
    for i in range(added.shape[0]):
        far = apart(centre, added[i])
        lead = (far - near) - (far + near) * 2.0**-22 - 2.0**-500
        if not lead >= least:
            least = lead if lead < least else -np.inf
    return least
