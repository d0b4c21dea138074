"""K-means by small batches as a scikit-learn estimator: for streams, and the one estimator here that is not exact."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from kmeans_dask import api, inputs
from kmeans_dask.batches import Seen, Way, batches, first_batch
from kmeans_dask.blocks import Blocks
from kmeans_dask.conventions import check_kinds, check_size, hook_of, seed_of, start_of
from kmeans_dask.lloyd import Fit, Motion, Progress, Stop, Value, evaluated
from kmeans_dask.model import Model, model_of
from kmeans_dask.packing import Preparation
from kmeans_dask.restarts import Settings, restarts_of
from kmeans_dask.stored import Stored


class MiniBatchKMeans(Stored):
    """Centroids that follow the rows of one batch after another: for streams, by `partial_fit`.

    Not exact: a row counts for the centroid that was nearest when its batch came, not for the one nearest in the end.
    Where the rows fit into memory, here or on a cluster, `KMeans` finds better clusters.

    The first batch is clustered by exact k-means, with init, n_init and tol as `KMeans` has them; from a `Model` as
    init the batches go on, with its centroids and sizes. batch_size: rows of each batch that `fit` draws. max_iter:
    how often it draws as many rows as there are, at most. max_no_improvement: it ends when the distortion of so many
    batches is not below that of as many before them; None: never. The other parameters are those of `KMeans`.

    Fitted: cluster_centers_, labels_, inertia_ and distortion_ (after `partial_fit`: of its batch), n_iter_ (batches so
    far), history_ (of `fit`: each batch before it moved the
    centroids), model_, n_features_in_, feature_names_in_.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means||",
        n_init: Any = "auto",
        max_iter: int = 100,
        batch_size: int = 1024,
        max_no_improvement: int | None = 10,
        tol: float = 1e-4,
        random_state: Any = None,
        metric: str = "euclidean",
        dtype: str | None = None,
        verbose: int = 0,
        callback: Callable[[Progress], bool | None] | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.max_no_improvement = max_no_improvement
        self.tol = tol
        self.random_state = random_state
        self.metric = metric
        self.dtype = dtype
        self.verbose = verbose
        self.callback = callback

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Find the centroids of X, (n_samples, n_features), by batches drawn from its rows; forget earlier ones."""
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

    def partial_fit(self, X: Any, y: object = None, sample_weight: Any = None) -> Self:
        """Let the centroids follow all rows of X, one batch, (n_samples, n_features); the first call finds them."""
        self._check()
        first = not hasattr(self, "model_")
        data = self._data(X, reset=first)
        if first:
            check_size(data, self.n_clusters)
        blocks, preparation = inputs.blocks_of(
            data, sample_weight, dtype=self.dtype, metric=self.metric, names=self._names(),
            preparation=None if first else self.model_.preparation,
        )  # fmt: skip
        try:
            self._advance(data, blocks, preparation)
        finally:
            blocks.close()
        return self

    def _fit(self, data: inputs.Data, blocks: Blocks, preparation: Preparation) -> None:
        seed, n_samples = seed_of(self.random_state), blocks.summary.n_samples
        with first_batch(blocks, self.batch_size, self.n_clusters, seed) as batch:
            seen = self._first(data, batch, preparation, seed)
        way = Way(_motion(preparation), self.max_no_improvement, hook_of(self.callback, self.verbose), seed)
        n_batches = max(1, self.max_iter * n_samples // self.batch_size)
        seen, history, stop = way.followed(seen, islice(batches(blocks, self.batch_size, seed), n_batches))
        value = evaluated(blocks, seen.centroids)
        seen = replace(seen, rows=np.array(value.sizes))
        fit = fit_of(seen, value, seed, len(history) + 1, stop, history)
        self._finish(seen, fit, preparation, data.dtype)
        self._label(data, blocks)
        api.warn_of_empty(self.model_, (), ConvergenceWarning, stacklevel=4)

    def _advance(self, data: inputs.Data, blocks: Blocks, preparation: Preparation) -> None:
        began = time.monotonic()
        if hasattr(self, "model_"):
            model = self._current()
            weights = getattr(self, "_weights", model.sizes.astype(np.float64))
            seen = Seen(model.centroids, model.sizes, weights).after(blocks, _motion(preparation))[0]
            seed, n_iter, dtype = model.seed, model.n_iter + 1, self.cluster_centers_.dtype
        else:
            seed, n_iter, dtype = seed_of(self.random_state), 1, data.dtype
            seen = self._first(data, blocks, preparation, seed)
        value, n_rows = evaluated(blocks, seen.centroids), blocks.summary.n_samples
        seconds = time.monotonic() - began
        hook = hook_of(self.callback, self.verbose)
        hook(Progress(0, seed, n_iter, value.inertia, value.distortion, n_rows, seconds))
        self._finish(seen, fit_of(seen, value, seed, n_iter, "stopped", ()), preparation, dtype)
        self._label(data, blocks)

    def _first(self, data: inputs.Data, batch: Blocks, preparation: Preparation, seed: int) -> Seen:
        """Return a first batch's own clusters, in order; a model's after this batch."""
        motion = api.motion_of(self.metric, (), self.init, self.n_clusters)
        settings = Settings(self.n_clusters, "random", self.n_init, tol=self.tol, seed=seed, motion=motion)
        start = start_of(self.init, self.n_init, data, preparation, self.n_clusters, restarts_of(settings))
        if isinstance(self.init, Model) and not isinstance(start, str):
            sizes = self.init.sizes
            return Seen(start, sizes, sizes.astype(np.float64)).after(batch, motion)[0]
        settings = replace(settings, init=start)
        model = api.fitted(batch, preparation, settings, "first", lambda p: None, inputs.n_threads())
        centroids = model.centroids
        if isinstance(start, str):
            centroids = centroids[np.lexsort(centroids.T[::-1])]
        return Seen.of(batch, centroids)

    def _finish(self, seen: Seen, fit: Fit, preparation: Preparation, dtype: np.dtype[Any]) -> None:
        model = model_of(fit, preparation, self.init if isinstance(self.init, str) else "given")
        self._take(replace(model, sizes=seen.rows), dtype)
        self._weights = seen.weights

    def _label(self, data: inputs.Data, blocks: Blocks) -> None:
        if isinstance(data, np.ndarray):
            self.labels_ = api.labels_of(self.model_, blocks)  # type: ignore[arg-type]
        else:
            self.labels_ = inputs.per_row(data, inputs.labels, self.model_, np.int32)

    def _check(self) -> None:
        api.check_settings(
            self.n_clusters, self.init if isinstance(self.init, str) else None, self.n_init, self.max_iter, self.tol
        )  # fmt: skip
        check_kinds(self.metric, self.dtype, self.verbose, self.callback)
        api.check_counts(batch_size=self.batch_size)
        if self.max_no_improvement is not None:
            api.check_counts(max_no_improvement=self.max_no_improvement)


def fit_of(seen: Seen, value: Value, seed: int, n_iter: int, stop: Stop, history: Sequence[Progress]) -> Fit:
    """Return the state after n_iter batches as the end of a run."""
    return Fit(
        0, seed, seen.centroids, value.sizes, value.inertia, value.distortion, n_iter, stop, tuple(history)
    )


def _motion(preparation: Preparation) -> Motion:
    return Motion(unit=preparation.metric == "cosine")
