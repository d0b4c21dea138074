"""scikit-learn's conventions for parameters that the engine takes otherwise: random_state, init, verbose, callback."""

import sys
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from kmeans_dask import api, inputs
from kmeans_dask.blocks import Floats
from kmeans_dask.errors import ConfigError, TooFewSamplesError
from kmeans_dask.lloyd import Hook, Progress
from kmeans_dask.model import Model
from kmeans_dask.packing import Preparation
from kmeans_dask.restarts import Restart


def hook_of(callback: Callable[[Progress], bool | None] | None, verbose: int) -> Hook:
    """Return what is called with each iteration: the user's function, after a printed line if verbose."""
    if not verbose:
        return callback or (lambda progress: None)

    def hook(p: Progress) -> bool | None:
        say(
            f"restart {p.restart}: iteration {p.iteration}, inertia {p.inertia:.6g}, distortion "
            f"{p.distortion:.6g}, labels changed {p.changed}, {p.seconds:.3g} s"
        )
        return callback(p) if callback else None

    return hook


def say(line: str) -> None:
    """Print a line, as scikit-learn's verbose does."""
    sys.stdout.write(f"{line}\n")


def start_of(
    init: Any, n_init: Any, data: Any, preparation: Preparation, n_clusters: int, restarts: Sequence[Restart]
) -> str | Floats:
    """Return a method as it is, else start centroids in the prepared space; a function is asked for each restart."""
    if isinstance(init, str):
        return init
    n_features = len(preparation.feature_names)
    if callable(init):
        starts = [
            init(data, n_clusters, random_state=np.random.RandomState(r.seed % 2**32)) for r in restarts
        ]
        init = np.stack([given(start, n_clusters, n_features) for start in starts])
    elif n_init not in ("auto", 1):
        warnings.warn(
            f"Explicit initial center position passed: performing only one init instead of n_init={n_init}.",
            RuntimeWarning, stacklevel=5,
        )  # fmt: skip
    if not isinstance(init, Model):
        init = given(init, n_clusters, n_features)
    return api.start_centroids(init, preparation, n_clusters)


def given(centroids: Any, n_clusters: int, n_features: int) -> Floats:
    """Return centroids as float64 with leading restarts, if any; refuse another number of clusters or features."""
    try:
        found = np.asarray(centroids, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"init must be a method, a model, a function, or an array of centroids ({error})."
        ) from error
    for axis, expected, what in ((-2, n_clusters, "clusters"), (-1, n_features, "features of the data")):
        if found.ndim < 2 or found.shape[axis] != expected:
            raise ConfigError(
                f"The shape of the initial centers {found.shape} does not match the number of {what} {expected}. "
                "Give init as (n_clusters, n_features)."
            )
    return found


def seed_of(random_state: Any) -> int:
    """Return an integer as it is, or one drawn from a generator; None: from NumPy's global state."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(2**31 - 1))
    whole = isinstance(random_state, Integral) and not isinstance(random_state, bool)
    if not (whole and 0 <= random_state < 2**63):
        raise ConfigError(
            "random_state must be an int from 0 to 2**63 - 1, a RandomState, a Generator or None; "
            f"found {random_state!r}."
        )
    return int(random_state)


def check_size(data: inputs.Data, n_clusters: int) -> None:
    """Refuse fewer rows than clusters, where their number is known before they are read."""
    if len(data.shape) and data.shape[0] < n_clusters:  # NaN, not known yet, is not less
        raise TooFewSamplesError(
            f"n_samples={data.shape[0]} should be >= n_clusters={n_clusters}. Lower n_clusters or give more rows."
        )


def check_kinds(metric: object, dtype: object, verbose: object, callback: object) -> None:
    """Refuse values that are not of the kinds these parameters take."""
    api.check_name("metric", metric, api.METRICS)
    if not (dtype is None or (isinstance(dtype, str) and dtype in ("float32", "float64"))):
        raise ConfigError(f"dtype must be 'float32', 'float64' or None; found {dtype!r}.")
    if not isinstance(verbose, Integral) or verbose < 0:
        raise ConfigError(f"verbose must be an integer of at least 0, or a bool; found {verbose!r}.")
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback must be a function or None; found {callback!r}.")
