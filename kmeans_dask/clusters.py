"""What every fitted estimator can do, in scikit-learn's conventions: predict, transform, score.

scikit-learn is the extra [sklearn]; `kmeans_dask` imports this module only when an estimator is used.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from kmeans_dask import api, inputs
from kmeans_dask.model import Model

Array = npt.NDArray[Any]
_DTYPES = (np.float64, np.float32)


class Clusters(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """Centroids that label rows; subclasses fit them."""

    model_: Model
    cluster_centers_: Array
    labels_: Any
    n_features_in_: int

    @abstractmethod
    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Find the centroids."""

    def fit_predict(self, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        """Fit and return the labels, (n_samples,) int32; of Dask input lazily."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(self, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        """Fit and return the distances to all centroids, (n_samples, n_clusters)."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def predict(self, X: Any) -> Any:
        """Return the label of each row, (n_samples,) int32: on the rows of the fit, `labels_`; of Dask input lazily."""
        check_is_fitted(self)
        data = self._data(X, reset=False)
        return inputs.per_row(data, inputs.labels, self._current(), np.int32)

    def transform(self, X: Any) -> Any:
        """Return the distance of each row to each centroid, (n_samples, n_clusters), float32 if both are.

        Under metric="cosine", of the row at unit length: sqrt(2 - 2 cosine).
        """
        check_is_fitted(self)
        data = self._data(X, reset=False)
        data = data.astype(np.result_type(data, self.cluster_centers_), copy=False)
        return inputs.per_row(data, inputs.distances, self._current(), data.dtype, len(self.cluster_centers_))

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of the rows, weighted, under these centroids."""
        check_is_fitted(self)
        data = self._data(X, reset=False)
        return -inputs.inertia(data, sample_weight, self._current())

    def _data(self, X: Any, *, reset: bool) -> inputs.Data:
        """Return X as a checked NumPy array, or as a Dask array with whole rows; note or compare its features."""
        if inputs.is_dask(X):
            data, names = inputs.dask_rows(X)
            validate_data(self, inputs.empty_like(data, names), reset=reset, skip_check_array=True)
            return data
        dtype: Any = _DTYPES
        if isinstance(X, pa.RecordBatch | pa.Table):
            X = pa.Table.from_batches([X]) if isinstance(X, pa.RecordBatch) else X
            dtype = np.float32 if set(X.schema.types) == {pa.float32()} else np.float64
        found: Array = validate_data(self, X, reset=reset, dtype=dtype)
        return found

    def _names(self) -> tuple[str, ...] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names)

    def _take(self, model: Model, dtype: np.dtype[Any]) -> None:
        """Set the attributes of a fit."""
        self.model_ = model
        self.cluster_centers_ = model.centroids_in_units().astype(dtype)
        self.inertia_, self.distortion_ = model.inertia, model.distortion
        self.n_iter_, self.history_ = model.n_iter, model.history

    def _current(self) -> Model:
        """Return the model; if `cluster_centers_` were replaced since the fit, with those."""
        model = self.model_
        if np.array_equal(
            model.centroids_in_units().astype(self.cluster_centers_.dtype), self.cluster_centers_
        ):
            return model
        centroids = api.start_centroids(self.cluster_centers_, model.preparation, model.n_clusters)
        return replace(model, centroids=centroids)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: dense input, floats keep their type."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
