"""What a fitted estimator whose rows belong to the nearest centroid can do beside: be stored, and converted."""

from pathlib import Path
from typing import Self

import numpy as np
from sklearn import cluster
from sklearn.utils.validation import check_is_fitted

from kmeans_dask import model_files
from kmeans_dask.clusters import Clusters
from kmeans_dask.errors import ModelError


class Stored(Clusters):
    """Centroids that can be saved, loaded and turned into scikit-learn's own."""

    def save(self, folder: str | Path) -> None:
        """Write `model.json` and `model.parquet` into the folder, which is made; equal fits give equal bytes."""
        check_is_fitted(self)
        model_files.write(self._current(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return an estimator fitted as the stored model: all but `labels_`, which belonged to the rows of its fit."""
        model = model_files.read(Path(folder))
        estimator = cls(n_clusters=model.n_clusters)
        names = model.feature_names
        estimator.n_features_in_ = len(names)
        if names != tuple(f"x{f}" for f in range(len(names))):
            estimator.feature_names_in_ = np.array(names, dtype=object)
        known = estimator.get_params()
        taken = {"metric": model.preparation.metric, "dtype": model.preparation.dtype}
        estimator.set_params(**{name: value for name, value in taken.items() if name in known})
        estimator._take(model, np.dtype(model.preparation.dtype))
        return estimator

    def to_sklearn(self) -> cluster.KMeans:
        """Return a fitted `sklearn.cluster.KMeans` with these centroids: the one that converters to ONNX and PMML know.

        Under metric="cosine" it gives the same labels, since all centroids have unit length, but other distances.
        """
        check_is_fitted(self)
        if self.model_.preparation.scaling != "none":
            raise ModelError(
                "to_sklearn: the model scales its features, which sklearn.cluster.KMeans does not. "
                "Put a StandardScaler before it, or fit without scaling."
            )
        known = set(cluster.KMeans().get_params()) - {"init", "n_init", "verbose"}
        params = {name: value for name, value in self.get_params().items() if name in known}
        twin = cluster.KMeans(**params, init=self.cluster_centers_.copy(), n_init=1)
        for name in ("inertia_", "n_iter_", "n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(twin, name, getattr(self, name))
        twin.cluster_centers_ = self.cluster_centers_.copy(order="C")
        twin._n_features_out = len(self.cluster_centers_)
        twin._n_threads = 1
        if isinstance(getattr(self, "labels_", None), np.ndarray):
            twin.labels_ = self.labels_.copy()
        return twin
