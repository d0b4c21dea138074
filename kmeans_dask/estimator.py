"""K-means as a scikit-learn estimator, on the engine: the same bits for NumPy and Dask, any chunks and threads."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from kmeans_dask import api, inputs
from kmeans_dask.blocks import Blocks
from kmeans_dask.conventions import check_kinds, check_size, hook_of, say, seed_of, start_of
from kmeans_dask.lloyd import Progress
from kmeans_dask.model import Model
from kmeans_dask.packing import Preparation
from kmeans_dask.restarts import Settings, refine_of, restarts_of
from kmeans_dask.stored import Stored


class KMeans(Stored):
    """Lloyd's algorithm, best of n_init restarts.

    init: "k-means||", "k-means++", "random", centroids (n_clusters, n_features), a function of
    (X, n_clusters, random_state) that returns such, or a `Model` to start from. n_init: "auto" is 1 for centroids and
    models and with refine, else 10. refine: search on from where each restart ends; "auto": unless n_init or the start,
    be it by a function, is given. tol: relative to the mean feature variance. max_seconds: of all restarts together.
    random_state: an int, a RandomState or Generator, or None for another result each time. dtype: how rows are stored;
    None: as they come. metric: "euclidean", or "cosine" for spherical k-means. frozen_centroids: indices of given
    centroids that do not move. verbose: print each iteration. callback: called with each iteration's `Progress`;
    returning True ends that restart.

    Fitted: cluster_centers_ (n_clusters, n_features), labels_ (n_samples,), inertia_, distortion_ (inertia / weight),
    n_iter_, history_ (of the best restart), model_, n_features_in_, feature_names_in_. Clusters that no start was given
    for are numbered in the order of their centroids' coordinates.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means||",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        max_seconds: float | None = None,
        metric: str = "euclidean",
        dtype: str | None = None,
        frozen_centroids: Sequence[int] = (),
        refine: Any = "auto",
        verbose: int = 0,
        callback: Callable[[Progress], bool | None] | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.max_seconds = max_seconds
        self.metric = metric
        self.dtype = dtype
        self.frozen_centroids = frozen_centroids
        self.refine = refine
        self.verbose = verbose
        self.callback = callback

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Find the centroids of X, (n_samples, n_features), weighted by sample_weight, (n_samples,) >= 0."""
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
        settings = self._settings(data, preparation)
        method = isinstance(self.init, str)
        model = api.fitted(
            blocks, preparation, settings, self.init if method else "given",
            hook_of(self.callback, self.verbose), inputs.n_threads(),
        )  # fmt: skip
        model = in_order(model) if method else model
        api.warn_of_empty(model, settings.motion.frozen, ConvergenceWarning, stacklevel=4)
        self._take(model, data.dtype)
        if self.verbose:
            say(f"restart {model.restart} is the best, after {model.n_iter} iterations: {model.stop}")
        if isinstance(data, np.ndarray):
            self.labels_ = api.labels_of(model, blocks)  # type: ignore[arg-type]
        else:
            self.labels_ = inputs.per_row(data, inputs.labels, model, np.int32)

    def _check(self) -> None:
        api.check_settings(
            self.n_clusters,
            self.init if isinstance(self.init, str) else None,
            self.n_init, self.max_iter, self.tol, self.max_seconds,
        )  # fmt: skip
        check_kinds(self.metric, self.dtype, self.verbose, self.callback)

    def _settings(self, data: inputs.Data, preparation: Preparation) -> Settings:
        seed = seed_of(self.random_state)
        motion = api.motion_of(self.metric, self.frozen_centroids, self.init, self.n_clusters)
        settings = Settings(
            self.n_clusters, "random", self.n_init, self.max_iter, self.tol, self.max_seconds, seed, motion,
            refine_of(self.refine, self.init, self.n_init),
        )  # fmt: skip
        start = start_of(self.init, self.n_init, data, preparation, self.n_clusters, restarts_of(settings))
        return replace(settings, init=start)


def in_order(model: Model) -> Model:
    """Return the model with its clusters in the order of their centroids' coordinates, the first feature first."""
    order = np.lexsort(model.centroids.T[::-1])
    return replace(model, centroids=np.ascontiguousarray(model.centroids[order]), sizes=model.sizes[order])
