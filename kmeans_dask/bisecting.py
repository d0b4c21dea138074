"""Bisecting k-means as a scikit-learn estimator, on the engine."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from kmeans_dask import api, inputs, splits
from kmeans_dask.blocks import Blocks
from kmeans_dask.clusters import Clusters
from kmeans_dask.conventions import check_kinds, check_size, hook_of, seed_of
from kmeans_dask.lloyd import Progress
from kmeans_dask.model import Model
from kmeans_dask.packing import Preparation
from kmeans_dask.restarts import Settings, refine_of
from kmeans_dask.seeding import METHODS


class BisectingKMeans(Clusters):
    """The worst cluster split in two, until there are n_clusters.

    A hierarchy: a row's label is the leaf that the splits lead it to, which need not be the nearest of all centroids.
    bisecting_strategy: split the cluster of "biggest_inertia", or the "largest_cluster". init, n_init, max_iter and tol
    are those of each split, where n_init="auto" is one refined restart; the other parameters are those of `KMeans`.

    Fitted: cluster_centers_, labels_, inertia_ (to the rows' own leaves), distortion_, n_features_in_,
    feature_names_in_.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "k-means||",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        metric: str = "euclidean",
        dtype: str | None = None,
        bisecting_strategy: str = "biggest_inertia",
        verbose: int = 0,
        callback: Callable[[Progress], bool | None] | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.metric = metric
        self.dtype = dtype
        self.bisecting_strategy = bisecting_strategy
        self.verbose = verbose
        self.callback = callback

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Find the clusters of X, (n_samples, n_features), weighted by sample_weight, (n_samples,) >= 0."""
        self._check()
        data = self._data(X, reset=True)
        check_size(data, self.n_clusters)
        blocks, preparation = inputs.blocks_of(
            data, sample_weight, dtype=self.dtype, metric=self.metric, names=self._names()
        )
        try:
            self._fit(data, blocks, preparation)
        finally:
            blocks.close()
        return self

    def _fit(self, data: inputs.Data, blocks: Blocks, preparation: Preparation) -> None:
        hook = hook_of(self.callback, self.verbose)
        leaves, weight = splits.bisected(
            blocks, self._settings(), self.bisecting_strategy, hook, inputs.n_threads()
        )
        self._paths = tuple(leaf.path for leaf in leaves)
        centroids = np.stack([leaf.centroid for leaf in leaves])
        inertia = splits.inertia_of(blocks, self._paths, centroids)
        self._take(model_of(leaves, inertia, weight, preparation), data.dtype)
        api.warn_of_empty(self.model_, (), ConvergenceWarning, stacklevel=4)
        if isinstance(data, np.ndarray):
            self.labels_ = splits.labels_of(blocks, self._paths)
        else:
            self.labels_ = inputs.per_row(data, _Leaves(self._paths), self.model_, np.int32)

    def predict(self, X: Any) -> Any:
        """Return the leaf of each row, (n_samples,) int32: on the rows of the fit, `labels_`; of Dask input lazily."""
        check_is_fitted(self)
        data = self._data(X, reset=False)
        return inputs.per_row(data, _Leaves(self._paths), self.model_, np.int32)

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of the rows, weighted, each to the centroid of its leaf."""
        check_is_fitted(self)
        data = self._data(X, reset=False)
        blocks, _ = inputs.blocks_of(data, sample_weight, preparation=self.model_.preparation)
        try:
            return -splits.inertia_of(blocks, self._paths, self.model_.centroids)
        finally:
            blocks.close()

    def _check(self) -> None:
        api.check_settings(self.n_clusters, None, self.n_init, self.max_iter, self.tol)
        api.check_name("init", self.init, METHODS)
        api.check_name("bisecting_strategy", self.bisecting_strategy, splits.STRATEGIES)
        check_kinds(self.metric, self.dtype, self.verbose, self.callback)

    def _settings(self) -> Settings:
        motion = api.motion_of(self.metric, (), self.init, self.n_clusters)
        seed = seed_of(self.random_state)
        refine = refine_of("auto", self.init, self.n_init)
        return Settings(
            self.n_clusters, self.init, self.n_init, self.max_iter, self.tol, None, seed, motion, refine
        )


class _Leaves:
    """A function of rows that can travel: their leaves."""

    def __init__(self, paths: Sequence[splits.Path]) -> None:
        self.paths = paths

    def __call__(self, rows: npt.NDArray[Any], model: Model, threads: int) -> npt.NDArray[Any]:
        """Return the leaf of each row; there may be none."""
        if not len(rows):
            return np.empty(0, np.int32)
        with api.prepared_blocks_of(rows, model.preparation, n_threads=threads) as blocks:
            return splits.labels_of(blocks, self.paths)


def model_of(leaves: Sequence[splits.Leaf], inertia: float, weight: float, preparation: Preparation) -> Model:
    """Return the leaves' centroids as a model, without a history."""
    return Model(
        np.stack([leaf.centroid for leaf in leaves]), np.arange(len(leaves), dtype=np.int32),
        np.array([leaf.size for leaf in leaves], np.int64), inertia, inertia / weight,
        max(leaf.n_iter for leaf in leaves), "converged", 0, 0, "bisecting", (), preparation,
    )  # fmt: skip
