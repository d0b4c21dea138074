"""Several runs of Lloyd's algorithm over the same loaded blocks, and the best of them."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from kmeans_dask import randoms, seeding
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.errors import ConfigError, TooFewSamplesError
from kmeans_dask.lloyd import FREE, Fit, Hook, Identity, Limits, Motion, lloyd, sq_shift_of, unit_centroids
from kmeans_dask.refine import refined

AUTO = 10  # restarts of a drawn start that are not refined


@dataclass(frozen=True, slots=True)
class Restart:
    """One run: its place among the others and its own seed."""

    index: int
    seed: int
    n_clusters: int | None = None  # of a sweep over several


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What every restart shares.

    init: a method of `seeding`, centroids (k, d) in the prepared space, or (n_init, k, d): those of each restart.
    """

    n_clusters: int
    init: str | Floats = "k-means||"
    n_init: int | Literal["auto"] = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    max_seconds: float | None = None
    seed: int = 0
    motion: Motion = FREE
    refine: bool = False


class Restarts(Protocol):
    """Runs fn(restart) for each restart, concurrently or not, and returns the fits in order."""

    def __call__(self, fn: Callable[[Restart, Hook], Fit], restarts: Sequence[Restart]) -> list[Fit]: ...


def restarts_of(settings: Settings) -> tuple[Restart, ...]:
    """Return the restarts of these settings: one when the start is given, else n_init of derived seeds."""
    n_init = n_init_of(settings.n_init, settings.init, settings.refine)
    return tuple(Restart(i, randoms.derived(settings.seed, "restart", i) >> 1) for i in range(n_init))


def n_init_of(n_init: int | Literal["auto"], init: object, refine: bool) -> int:
    """Return the number of restarts: 1 for given centroids, (k, d); else n_init, of which "auto" is 1 or `AUTO`."""
    if isinstance(init, np.ndarray):
        return 1 if init.ndim == 2 else len(init)
    if n_init == "auto":
        return 1 if refine else AUTO
    return n_init


def refine_of(refine: bool | Literal["auto"], init: object, n_init: int | Literal["auto"]) -> bool:
    """Return whether restarts are refined; "auto": where a method draws the start, and their number is "auto" too."""
    if isinstance(refine, str) and refine == "auto":
        return isinstance(init, str) and n_init == "auto"
    if not isinstance(refine, bool | np.bool_):
        raise ConfigError(f"refine must be 'auto', True or False; found {refine!r}.")
    return bool(refine)


def fit_of(
    blocks: Blocks, settings: Settings, seeds: Callable[[int, int], Floats] | None = None
) -> Callable[[Restart, Hook], Fit]:
    """Return the function that runs one restart; the time limit counts from this call.

    seeds(n_clusters, seed) gives starts instead of the method.
    """
    check_samples(blocks, settings.n_clusters)
    sq_shift = sq_shift_of(settings.tol, blocks)
    deadline = None if settings.max_seconds is None else time.monotonic() + settings.max_seconds
    limits = Limits(settings.max_iter, sq_shift, deadline)

    def fit(restart: Restart, hook: Hook) -> Fit:
        start = seeds(settings.n_clusters, restart.seed) if seeds else _start(blocks, settings, restart)
        if settings.motion.unit:
            start = unit_centroids(start)
        identity = Identity(restart.index, restart.seed, restart.n_clusters)
        found = lloyd(blocks, start, limits, identity, hook, settings.motion)
        return refined(blocks, found, limits, identity, hook, settings.motion) if settings.refine else found

    return fit


def _start(blocks: Blocks, settings: Settings, restart: Restart) -> Floats:
    init = settings.init
    if isinstance(init, str):
        rounds = seeding.ROUNDS_OF_SEARCH if settings.refine else seeding.ROUNDS
        return seeding.seeds(blocks, settings.n_clusters, restart.seed, init, rounds)
    return init if init.ndim == 2 else init[restart.index]


def check_samples(blocks: Blocks, n_clusters: int) -> None:
    """Refuse fewer rows of positive weight than clusters."""
    n_rows = blocks.summary.n_weighted
    if n_rows < n_clusters:
        n_zero = blocks.summary.n_samples - n_rows
        kind = "rows of positive weight" if n_zero else "rows"
        others = f", and {n_zero} whose weight is zero" if n_zero else ""
        raise TooFewSamplesError(
            f"n_clusters={n_clusters} needs at least {n_clusters} {kind}; the data hold {n_rows}{others}. "
            "Lower n_clusters or check the filter and the nulls."
        )


def concurrently(hook: Hook, n_threads: int) -> Restarts:
    """Return a `Restarts` that runs up to n_threads at a time in this process, each calling the same hook."""

    def run(fn: Callable[[Restart, Hook], Fit], restarts: Sequence[Restart]) -> list[Fit]:
        with ThreadPoolExecutor(max(1, min(n_threads, len(restarts))), thread_name_prefix="restart") as pool:
            return list(pool.map(lambda restart: fn(restart, hook), restarts))

    return run


def best(fits: Sequence[Fit]) -> Fit:
    """Return the fit of lowest inertia, the first among equals."""
    return min(fits, key=lambda fit: fit.inertia)
