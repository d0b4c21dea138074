"""The compiled loops of scores: the nearest other centroid, sums of distances between rows."""

import numpy as np

from kmeans_dask.kernels import compiled
from kmeans_dask.tiles import TILE


@compiled()
def nearest_others(tiles, n_rows, columns, labels, filled, sq_distances):  # type: ignore[no-untyped-def]
    """Write each row's canonical squared distance to the nearest centroid that is not its own, (n_rows,); inf: none.

    columns (d, k); filled (k,): whether a centroid counts as another.
    """
    work = np.empty(TILE)
    for t in range(tiles.shape[0]):
        first = t * TILE
        rows = min(TILE, n_rows - first)
        for r in range(rows):
            sq_distances[first + r] = np.inf
        for j in range(columns.shape[1]):
            if not filled[j]:
                continue
            for r in range(TILE):
                work[r] = 0.0
            for f in range(columns.shape[0]):
                c = columns[f, j]
                for r in range(TILE):
                    difference = np.float64(tiles[t, f, r]) - c
                    work[r] += difference * difference
            for r in range(rows):
                if labels[first + r] != j and work[r] < sq_distances[first + r]:
                    sq_distances[first + r] = work[r]


@compiled()
def distance_sums(values, weights, first, labels, totals):  # type: ignore[no-untyped-def]
    """Add the weighted distances from some rows, first on, to all rows by the others' labels.

    values (m, d), labels (s, m), one line for each labelling; totals (rows, s, k) from zero: out.
    """
    for i in range(totals.shape[0]):
        for j in range(values.shape[0]):
            sq_distance = 0.0
            for f in range(values.shape[1]):
                difference = values[first + i, f] - values[j, f]
                sq_distance += difference * difference
            distance = weights[j] * np.sqrt(sq_distance)
            for s in range(labels.shape[0]):
                totals[i, s, labels[s, j]] += distance
