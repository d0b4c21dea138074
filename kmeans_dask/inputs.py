"""What an estimator is given -> blocks on an engine, and results in kind: NumPy for NumPy, lazy Dask for Dask.

`Data` is a checked array in memory, (n_samples, n_features), or a Dask array whose chunks hold whole rows.
"""

import os
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from dask.base import is_dask_collection

from kmeans_dask import api, dask_inputs
from kmeans_dask.blocks import Blocks
from kmeans_dask.distances import distances_to_all
from kmeans_dask.errors import DataError
from kmeans_dask.lloyd import evaluated
from kmeans_dask.model import Model
from kmeans_dask.packing import Preparation, Wishes

Array = npt.NDArray[Any]
Data = Any  # Array, or a dask.array.Array, whose import costs what only its users should pay


def is_dask(X: object) -> bool:
    """Whether X is a Dask array or DataFrame."""
    return bool(is_dask_collection(X))


def dask_rows(X: Any) -> tuple[Data, tuple[str, ...] | None]:
    """Return a Dask array or DataFrame as an array with whole rows in each chunk, and its column names, if they are."""
    names = None
    if hasattr(X, "to_dask_array"):
        names = tuple(X.columns) if X.ndim == 2 and all(isinstance(name, str) for name in X.columns) else None
        X = X.to_dask_array()
    if getattr(X, "ndim", 0) != 2:
        raise DataError(
            f"Expected 2D input, got a Dask {type(X).__name__} of {getattr(X, 'ndim', 0)} dimensions. Reshape your "
            "data to (n_samples, n_features)."
        )
    if X.dtype.kind not in "iufb":
        raise DataError(f"X must be numbers; found dtype {X.dtype}. Encode them as numbers first.")
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float64)
    return (X if X.numblocks[1] == 1 else X.rechunk({1: -1})), names


def empty_like(data: Data, names: Sequence[str] | None) -> Any:
    """Return a table of no rows with the features of a Dask array, for checks of their number and names."""
    if names is None:
        return np.empty((0, data.shape[1]))
    return pa.table({name: pa.array([], pa.float64()) for name in names})


def n_threads() -> int:
    """Return how many threads this process may use."""
    return len(os.sched_getaffinity(0))


def blocks_of(
    data: Data,
    weights: Any,
    *,
    dtype: str | None = None,
    metric: str = "euclidean",
    names: tuple[str, ...] | None = None,
    preparation: Preparation | None = None,
) -> tuple[Blocks, Preparation]:
    """Return rows as blocks and how they were prepared, which may be given: Dask's on the current client's workers."""
    if not isinstance(data, np.ndarray):
        stored = dtype or str(data.dtype)
        named = names or tuple(f"x{f}" for f in range(data.shape[1]))
        wishes = preparation or Wishes(named, stored, metric=metric)
        return dask_inputs.blocks_of(data, weights, wishes)
    weights = np.full(len(data), weights) if isinstance(weights, Real) else weights  # as scikit-learn has it
    weights = api.weights_of(weights, len(data), "sample_weight")
    if preparation is not None:
        return api.prepared_blocks_of(data, preparation, weights=weights), preparation
    return api.blocks_of(data, dtype=dtype, weights=weights, metric=metric, names=names)


def inertia(data: Data, weights: Any, model: Model) -> float:
    """Return the inertia of rows under a model's centroids."""
    blocks, _ = blocks_of(data, weights, preparation=model.preparation)
    try:
        return evaluated(blocks, model.centroids).inertia
    finally:
        blocks.close()


def per_row(data: Data, fn: Callable[..., Array], model: Model, dtype: Any, n_columns: int = 0) -> Data:
    """Return fn(rows, model, n_threads) of all rows: (n_samples,) or (n_samples, n_columns)."""
    if isinstance(data, np.ndarray):
        return fn(data, model, n_threads())
    return dask_inputs.mapped(data, fn, model, np.dtype(dtype), n_columns)


def labels(rows: Array, model: Model, threads: int) -> Array:
    """Return the label of each row; there may be none."""
    return api.predict(model, rows, n_threads=threads) if len(rows) else np.empty(0, np.int32)


def distances(rows: Array, model: Model, threads: int) -> Array:
    """Return the distance of each row to each centroid, in the user's units unless the model scales them."""
    preparation = model.preparation
    if preparation.scaling == "none":
        centroids = model.centroids_in_units().astype(rows.dtype).astype(np.float64)
    else:
        rows, centroids = preparation.prepared(rows.astype(np.float64)), model.centroids
    if preparation.metric == "cosine":
        lengths = np.sqrt(np.einsum("if,if->i", rows, rows, dtype=np.float64))
        if not lengths.all():
            raise DataError(
                f"row {int(np.argmin(lengths))} has length 0, so metric='cosine' has no direction for it. Drop it."
            )
        rows = (rows / lengths[:, None]).astype(rows.dtype)
    return distances_to_all(rows, centroids, n_threads=threads)
