"""Several numbers of clusters over the same loaded blocks, each with its restarts, scored and compared."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np

from kmeans_dask import gap, seeding
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.choice import Choice, Score, chosen
from kmeans_dask.errors import ConfigError
from kmeans_dask.gap import REFERENCES, Gaps
from kmeans_dask.lloyd import Fit, Hook
from kmeans_dask.metrics import Metrics, metrics
from kmeans_dask.restarts import Restart, Restarts, Settings, best, fit_of, restarts_of
from kmeans_dask.samples import SAMPLE_ROWS, Sample, sampled, silhouettes

logger = logging.getLogger(__name__)

T = TypeVar("T")
_ROWS_PER_CLUSTER = 32  # of a sample, at least


class Step(Protocol):
    """Returns fn(*args), done under a name."""

    def __call__(self, name: str, fn: Callable[..., T], *args: Any) -> T: ...


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Scores by increasing n_clusters, the choice, every restart, and of each n_clusters the best and its measures."""

    scores: tuple[Score, ...]
    choice: Choice
    fits: tuple[Fit, ...]
    best_fits: tuple[Fit, ...]
    measured: tuple[Metrics, ...]
    sample_rows: int

    @property
    def winner(self) -> Fit:
        """The best restart of the chosen number of clusters."""
        return next(fit for fit in self.best_fits if len(fit.sizes) == self.choice.n_clusters)


@dataclass(slots=True, eq=False)
class SharedStarts:
    """Starts for any number of clusters from rows that each restart draws once, for the largest number."""

    blocks: Blocks
    largest: int
    method: str
    pools: dict[int, seeding.Pool] = field(default_factory=dict)
    locks: dict[int, Lock] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def start(self, n_clusters: int, seed: int) -> Floats:
        """Return n_clusters start centroids; of concurrent calls with one seed, the first draws."""
        with self.lock:
            own = self.locks.setdefault(seed, Lock())
        with own:
            if seed not in self.pools:
                self.pools[seed] = seeding.pool(self.blocks, self.largest, seed, self.method)
        pool = self.pools[seed]
        if pool.serves(n_clusters):
            return pool.start(n_clusters)
        return seeding.seeds(self.blocks, n_clusters, seed, self.method)


def numbers_of(n_clusters: Sequence[int]) -> tuple[int, ...]:
    """Return different numbers of clusters in their order; refuse fewer than two, and any below 1."""
    given: Any = list(n_clusters) if isinstance(n_clusters, Iterable) else n_clusters
    whole = isinstance(given, list) and all(isinstance(k, Integral) and int(k) >= 1 for k in given)
    if not whole or len(given) < 2 or len(set(given)) < len(given):
        raise ConfigError(
            f"n_clusters must be two or more different whole numbers of at least 1; found {given!r}. "
            "Mend the list, or give a single number where one is meant."
        )
    return tuple(sorted(int(k) for k in given))


def sample_rows_of(ks: Sequence[int], at_least: int = SAMPLE_ROWS) -> int:
    """Return how many rows silhouettes and gaps of increasing ks are made of, if there are so many."""
    return max(at_least, _ROWS_PER_CLUSTER * ks[-1])


def swept(
    blocks: Blocks, settings: Settings, ks: Sequence[int], restarts: Restarts, step: Step,
    n_rows: int | None = None,
) -> Sweep:  # fmt: skip
    """Return the sweep over increasing ks, its sample of n_rows; settings.init is a method, n_clusters is ignored."""
    fits = restarts(*fits_of(blocks, settings, ks))
    best_fits = tuple(best([fit for fit in fits if len(fit.sizes) == k]) for k in ks)
    logger.info("scoring %d numbers of clusters", len(ks))
    sample = step("sample", sampled, blocks, n_rows or sample_rows_of(ks), settings.seed)
    measured = step("scores", _measured, blocks, best_fits)
    widths = step("silhouettes", _silhouettes, sample, best_fits)
    gaps = _gaps(sample, settings, best_fits, step)
    rows = [_score(*found, gaps, i) for i, found in enumerate(zip(best_fits, measured, widths, strict=True))]
    scores, choice = chosen(rows, gaps)
    return Sweep(scores, choice, tuple(fits), best_fits, tuple(measured), len(sample.weights))


def fits_of(
    blocks: Blocks, settings: Settings, ks: Sequence[int]
) -> tuple[Callable[[Restart, Hook], Fit], tuple[Restart, ...]]:
    """Return what runs one restart of one number of clusters, and all of these; the time limit counts from here."""
    if not isinstance(settings.init, str):
        raise ConfigError("several n_clusters cannot start from given centroids. Set init to a method.")
    shared = SharedStarts(blocks, ks[-1], settings.init)
    own = {k: replace(settings, n_clusters=k) for k in ks}
    fit = {k: fit_of(blocks, own[k], shared.start) for k in reversed(ks)}  # too many clusters are told first
    restarts = tuple(replace(restart, n_clusters=k) for k in ks for restart in restarts_of(own[k]))

    def run(restart: Restart, hook: Hook) -> Fit:
        return fit[restart.n_clusters or 0](restart, hook)

    return run, restarts


def _measured(blocks: Blocks, fits: Sequence[Fit]) -> list[Metrics]:
    return [metrics(blocks, fit.centroids) for fit in fits]


def _silhouettes(sample: Sample, fits: Sequence[Fit]) -> list[float | None]:
    return silhouettes(sample, [sample.labels(fit.centroids) for fit in fits])


def _gaps(sample: Sample, settings: Settings, fits: Sequence[Fit], step: Step) -> Gaps:
    ks = [len(fit.sizes) for fit in fits]
    motion = settings.motion
    own = step("gap", gap.distortions, sample, [fit.centroids for fit in fits], motion)
    even = [
        step(f"reference-{i}", gap.reference, sample, ks, settings.seed, i, motion) for i in range(REFERENCES)
    ]
    return gap.gaps(ks, own, np.stack(even))


def _score(fit: Fit, measured: Metrics, silhouette: float | None, gaps: Gaps, i: int) -> Score:
    bend = float(gaps.bends[i])
    return Score(
        n_clusters=len(fit.sizes),
        inertia=fit.inertia,
        distortion=fit.distortion,
        n_iter=fit.n_iter,
        restart=fit.restart,
        seed=fit.seed,
        smallest=min(fit.sizes),
        largest=max(fit.sizes),
        silhouette=silhouette,
        simplified_silhouette=measured.simplified_silhouette,
        davies_bouldin=measured.davies_bouldin,
        calinski_harabasz=measured.calinski_harabasz,
        gap=float(gaps.values[i]),
        gap_error=float(gaps.errors[i]),
        bend=None if np.isnan(bend) else bend,
    )
