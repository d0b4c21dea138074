"""Distances of rows to every centroid, in the user's own units: a row equal to a centroid has distance 0."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Floats
from kmeans_dask.kernels import compiled

_ROWS = 4096
Array = npt.NDArray[Any]


def distances_to_all(X: Array, centroids: Floats, *, n_threads: int | None = None) -> Array:
    """Return the Euclidean distances, (n_samples, n_clusters), in the dtype of X, (n_samples, n_features)."""
    found = np.empty((len(X), len(centroids)), X.dtype)
    columns = np.ascontiguousarray(centroids.T, dtype=np.float64)

    def some(first: int) -> None:
        rows = np.ascontiguousarray(X[first : first + _ROWS])
        fill_distances(rows, columns, found[first : first + _ROWS])

    with ThreadPoolExecutor(n_threads or len(os.sched_getaffinity(0))) as pool:
        list(pool.map(some, range(0, len(X), _ROWS)))
    return found


@compiled()
def fill_distances(rows, columns, out):  # type: ignore[no-untyped-def]
    """Write each row's distance to every centroid: rows (m, d) and columns (d, k) in; out (m, k)."""
    squares = np.empty(columns.shape[1])
    for i in range(rows.shape[0]):
        squares[:] = 0.0
        for f in range(columns.shape[0]):
            x = np.float64(rows[i, f])
            for j in range(columns.shape[1]):
                difference = x - columns[f, j]
                squares[j] += difference * difference
        for j in range(columns.shape[1]):
            out[i, j] = np.sqrt(squares[j])
