"""Data and several numbers of clusters in, the models, their scores and a choice out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy.typing as npt

from kmeans_dask.api import (
    blocks_of,
    check_calls,
    check_no_preparation,
    check_settings,
    motion_of,
    threads_of,
    warn_of_empty,
)
from kmeans_dask.blocks import Blocks
from kmeans_dask.elbow_picture import elbow_svg
from kmeans_dask.errors import ConfigError
from kmeans_dask.lloyd import Hook
from kmeans_dask.model import Model, model_of
from kmeans_dask.packing import Preparation
from kmeans_dask.restarts import Settings, concurrently
from kmeans_dask.sweep import Sweep, numbers_of, swept


@dataclass(frozen=True, slots=True, eq=False)
class ChosenK:
    """A sweep over numbers of clusters: `why` says which was chosen, `models` has the best of each."""

    sweep: Sweep
    models: dict[int, Model]

    @property
    def n_clusters(self) -> int:
        """The choice."""
        return self.sweep.choice.n_clusters

    @property
    def why(self) -> str:
        """Whether there is an elbow, and which scores agree."""
        return self.sweep.choice.why

    @property
    def model(self) -> Model:
        """The best model of the chosen number of clusters."""
        return self.models[self.n_clusters]

    def svg(self) -> bytes:
        """Return the elbow picture."""
        return elbow_svg(self.sweep)


def choose_k(
    data: npt.ArrayLike | Blocks,
    n_clusters: Sequence[int],
    *,
    init: str = "k-means||",
    n_init: int | Literal["auto"] = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    max_seconds: float | None = None,
    seed: int = 0,
    metric: str = "euclidean",
    preparation: Preparation | None = None,
    hook: Hook = lambda progress: None,
    n_threads: int | None = None,
) -> ChosenK:
    """Return the models of several numbers of clusters, and the number that their scores speak for.

    n_clusters: two or more numbers, like range(2, 21). The other arguments are those of `kmeans`; max_seconds limits
    all restarts together. Raises ConfigError, DataError or TooFewSamplesError.
    """
    ks = numbers_of(n_clusters)
    if not isinstance(init, str):
        raise ConfigError("several n_clusters cannot start from given centroids. Set init to a method.")
    check_settings(ks[-1], init, n_init, max_iter, tol, max_seconds)
    check_calls(seed, hook)
    threads = threads_of(n_threads)
    motion = motion_of(metric, (), init, ks[-1])
    with ExitStack() as stack:
        if not hasattr(data, "map_reduce"):
            check_no_preparation(preparation)
            blocks, preparation = blocks_of(data, metric=metric, n_threads=threads)
            stack.callback(blocks.close)
        elif preparation is None:
            raise ConfigError("blocks need the preparation that made them. Pass the one `blocks_of` returns.")
        else:
            blocks, motion = cast("Any", data), replace(motion, unit=preparation.metric == "cosine")
        settings = Settings(ks[-1], init, n_init, max_iter, tol, max_seconds, seed, motion)
        found = swept(blocks, settings, ks, concurrently(hook, threads), lambda name, fn, *args: fn(*args))
    warn_of_empty(found.winner)
    models = {len(fit.sizes): model_of(fit, preparation, init) for fit in found.best_fits}
    return ChosenK(found, models)
