"""Parameters and inputs of the estimators with values of wrong kinds: ValueError or TypeError, and what was found."""

from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from kmeans_dask import BisectingKMeans, KMeans, MiniBatchKMeans
from kmeans_dask.errors import ConfigError, DataError
from tests.estimator_data import array, as_kind, blobs

X = blobs(60, 3)
ESTIMATORS = (KMeans, BisectingKMeans, MiniBatchKMeans)

ODD: dict[str, Any] = {
    "none": None, "text": "x", "no text": "", "bytes": b"k", "list": [], "tuple": (), "dict": {}, "set": {1},
    "words": [["a"]], "pair": np.array([1, 2]), "scalar": np.array(3), "half": 1.5, "minus one": -1, "zero": 0,
    "nan": float("nan"), "true": True, "false": False, "auto": "auto", "complex": 3 + 1j, "na": pd.NA,
    "dtype": np.dtype("float32"), "object": ESTIMATORS,
}  # fmt: skip
TAKEN = {  # by the parameters that take some of them
    "dtype": {"none"},
    "callback": {"none"},
    "frozen_centroids": {"list", "tuple"},
    "max_no_improvement": {"none"},
    "max_seconds": {"none", "half", "zero"},
    "n_init": {"auto"},
    "random_state": {"none", "zero"},
    "refine": {"auto", "false", "true"},
    "tol": {"half", "zero"},
    "verbose": {"zero", "false", "true"},
}
SHOWN = {  # instead of the value
    ("init", "words"): ("could not convert string to float: 'a'",),
    ("init", "dict"): ("not 'dict'",),
    ("init", "set"): ("not 'set'",),
    ("init", "object"): ("not 'type'",),
    ("init", "na"): ("not 'NAType'",),
    ("init", "dtype"): ("not 'numpy.dtype",),
    ("init", "bytes"): ("could not convert string to float: b'k'",),
    ("frozen_centroids", "pair"): ("init is 'k-means||'",),
}
PARAMETERS = [(estimator, name) for estimator in ESTIMATORS for name in estimator().get_params()]


@pytest.mark.parametrize(
    ("estimator", "name"), PARAMETERS, ids=[f"{estimator.__name__}-{name}" for estimator, name in PARAMETERS]
)
def test_parameters(estimator: Any, name: str) -> None:
    """Each refuses what it cannot be, by its own name, with the value; what it can be, it takes."""
    for kind, value in ODD.items():
        settings = {"n_clusters": 3, "n_init": 1, "max_iter": 5, "random_state": 0, name: value}
        if kind in TAKEN.get(name, set()):
            estimator(**settings).fit(X)
            continue
        with pytest.raises(ConfigError) as caught:
            estimator(**settings).fit(X)
        message = str(caught.value)
        assert name in message or (name == "init" and "initial centers" in message), (kind, message)
        expected = (
            repr(value),
            str(np.shape(value)) if name == "init" else repr(value),
            *SHOWN.get((name, kind), ()),
        )
        assert any(shown in message for shown in expected), (kind, message)
        assert isinstance(caught.value, ValueError)


def text(n_rows: int = 60) -> np.ndarray:
    """Return a table of words."""
    return np.full((n_rows, 2), "a")


INPUTS: dict[str, tuple[Any, type[Exception], str]] = {
    "none": (None, ValueError, "Expected 2D array"),
    "number": (5, ValueError, "Expected 2D array, got scalar"),
    "one dimension": ([1.0, 2.0, 3.0], ValueError, "Expected 2D array, got 1D"),
    "three": (np.zeros((2, 2, 2)), ValueError, "dim 3"),
    "ragged": ([[1, 2], [3]], ValueError, "inhomogeneous"),
    "words": (text(), ValueError, "could not convert"),
    "mixed": (np.array([["a", 1.0]] * 60, object), ValueError, "could not convert"),
    "dict": ({"a": [1, 2]}, TypeError, "dict"),
    "sparse": (scipy.sparse.csr_array(X), TypeError, "Sparse data was passed"),
    "complex": (X.astype(complex), ValueError, "Complex data not supported"),
    "no rows": (X[:0], ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
    "no features": (np.empty((5, 0)), ValueError, r"0 feature\(s\) \(shape=\(5, 0\)\)"),
    "nan": (np.where(X[7, 1] == X, np.nan, X), ValueError, "contains NaN"),
    "infinity": (np.where(X[7, 1] == X, np.inf, X), ValueError, "contains infinity"),
    "huge": (X * 1e200, DataError, r"a value lies .* from its centre; .* hold only 1\.8.*e\+144"),
    "frame of words": (pd.DataFrame({"a": ["x", "y"]}), ValueError, "could not convert"),
    "frame of nulls": (pd.DataFrame({"a": [1.0, None]}), ValueError, "contains NaN"),
    "frame of odd names": (pd.DataFrame({"a": [1.0], 1: [2.0]}), TypeError, "string names"),
    "series": (pd.Series([1.0, 2.0]), ValueError, "2-dimensional"),
    "table of nulls": (pa.table({"a": [1.0, None]}), ValueError, "NaN"),
    "table of words": (pa.table({"a": ["x", "y"]}), ValueError, "could not convert"),
    "table of nothing": (pa.table({}), ValueError, r"0 sample\(s\)"),
    "lazy, one dimension": (da.ones(5, chunks=2), DataError, "Expected 2D input, got a Dask Array of 1"),
    "lazy, three": (da.ones((4, 2, 2), chunks=2), DataError, "got a Dask Array of 3 dimensions"),
    "lazy words": (da.from_array(text(), chunks=20), DataError, "X must be numbers; found dtype <U1"),
    "lazy complex": (da.ones((60, 2), dtype=complex), DataError, "X must be numbers; found dtype complex128"),
    "lazy, no features": (da.ones((5, 0), chunks=5), DataError, r"found shape \(5, 0\)"),
    "lazy, no rows": (da.ones((0, 3), chunks=5), ValueError, "n_samples=0 should be >= n_clusters=2"),
    "lazy nan": (as_kind("dask", np.where(X[7, 1] == X, np.nan, X)), DataError, "found 1 NaN or infinite"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", INPUTS)
def test_data(name: str, estimator: Any) -> None:
    """Data that are no table of finite numbers are refused in fit, and in predict after a fit of others."""
    rows, error, match = INPUTS[name]
    with pytest.raises(error, match=match):
        estimator(2, n_init=1).fit(rows)


@pytest.mark.parametrize("name", ["none", "three", "words", "sparse", "nan", "lazy words", "lazy nan"])
@pytest.mark.parametrize("method", ["predict", "transform", "score"])
def test_data_of_other_methods(name: str, method: str) -> None:
    """They refuse the same; what is lazy, when it is computed."""
    rows, error, match = INPUTS[name]
    km = KMeans(2, n_init=1, random_state=0).fit(X[:, : np.shape(rows)[-1] if np.ndim(rows) else 3])
    with pytest.raises(error, match=match):
        array(getattr(km, method)(rows))


WEIGHTS: dict[str, tuple[Any, str]] = {
    "a negative number": (-2.0, r"sample_weight must be finite and >= 0; found -2"),
    "a word": ("abc", "sample_weight must be an array of numbers"),
    "words": (["a"] * 60, "sample_weight must be an array of numbers"),
    "dict": ({1: 2}, "sample_weight must be an array of numbers"),
    "complex": (np.ones(60, complex), "sample_weight must be an array of numbers .found dtype complex128"),
    "short": (np.ones(59), r"sample_weight must have shape \(60,\); found \(59,\)"),
    "a column": (np.ones((60, 1)), r"sample_weight must have shape \(60,\); found \(60, 1\)"),
    "negative": (np.r_[np.ones(59), -3], "sample_weight must be finite and >= 0; found -3"),
    "nan": (np.r_[np.nan, np.ones(59)], "sample_weight must be finite and >= 0; found nan"),
    "infinite": (np.r_[np.ones(59), np.inf], "sample_weight must be finite and >= 0; found inf"),
    "nulls": ([None] * 60, "sample_weight must be finite and >= 0; found nan"),
    "zeros": (np.zeros(60), "needs at least 2 rows of positive weight; the data hold 0, and 60 whose weight is zero"),
    "huge": (np.full(60, 1e300), r"the largest of sample_weight must lie between .*; found 1e\+300"),
    "tiny": (np.full(60, 1e-300), r"the largest of sample_weight must lie between .*; found 1e-300"),
}  # fmt: skip


def test_weights_too_large_for_the_data() -> None:
    """Where their products with squared distances overflow, the error says what to scale."""
    with pytest.raises(DataError, match=r"must be finite; a bound of theirs is inf\. Scale the weights"):
        KMeans(2, n_init=1).fit(X * 1e135, sample_weight=np.full(60, 1e50))


LAZY = ("complex", "short", "a column", "negative", "nan", "infinite", "zeros", "huge", "tiny")


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, kind: str) -> None:
    """Weights that are not one finite number >= 0 for each row are refused."""
    weights, match = WEIGHTS[name]
    with pytest.raises(ValueError, match=match):
        KMeans(2, n_init=1).fit(as_kind(kind, X), sample_weight=weights)


@pytest.mark.parametrize("name", LAZY)
def test_lazy_weights(name: str) -> None:
    """So are Dask arrays of them."""
    weights, match = WEIGHTS[name]
    with pytest.raises(ValueError, match=match):
        KMeans(2, n_init=1).fit(as_kind("dask", X), sample_weight=da.from_array(weights, chunks=13))


@pytest.mark.parametrize("fitted", ["float32", "float64"])
@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_dtypes_of_results(kind: str, fitted: str, given: str) -> None:
    """Those of scikit-learn: float32 distances where rows and centroids are float32."""
    import sklearn.cluster

    ours = KMeans(3, n_init=1, random_state=0).fit(as_kind(kind, X.astype(fitted)))
    theirs = sklearn.cluster.KMeans(3, n_init=1, random_state=0).fit(X.astype(fitted))
    found = ours.transform(as_kind(kind, X.astype(given)))
    assert found.dtype == np.asarray(found).dtype == theirs.transform(X.astype(given)).dtype
    assert ours.labels_.dtype == theirs.labels_.dtype
    assert ours.cluster_centers_.dtype == theirs.cluster_centers_.dtype
    assert isinstance(ours.inertia_, float)
