"""Rows for tests of the estimators, as NumPy and as Dask, and what any of them returns as an array."""

from typing import Any

import dask.array as da
import numpy as np

from kmeans_dask.model import to_bytes

KINDS = ("numpy", "dask")
SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])


def blobs(n: int = 300, n_features: int = 3, seed: int = 1) -> np.ndarray:
    """Return rows around corners of a cube, (n, n_features)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_features)) + 8.0 * rng.integers(0, 2, size=(n, n_features))


def as_kind(kind: str, X: Any) -> Any:
    """Return X itself, or as a Dask array in several chunks, features split where there are some."""
    X = np.asarray(X)
    if kind == "numpy":
        return X
    third = max(1, len(X) // 3)
    rows = (third, 0, len(X) - third) if len(X) > 1 else (len(X),)
    return da.from_array(X, chunks=(rows, 1) if X.ndim == 2 else (rows,))


def array(values: Any) -> np.ndarray:
    """Return a result in memory."""
    return np.asarray(values.compute() if isinstance(values, da.Array) else values)


def same(a: Any, b: Any) -> bool:
    """Whether two fitted estimators hold the same model, byte for byte, and the same labels."""
    return to_bytes(a.model_) == to_bytes(b.model_) and np.array_equal(array(a.labels_), array(b.labels_))
