"""Lloyd's algorithm: start centroids in, a Fit out.

S. Lloyd, Least squares quantization in PCM, 1982. Empty clusters take the rows farthest from their centroids, as
scikit-learn does; every sum is exact, so the result does not depend on blocks, threads or workers.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, passes, sums
from kmeans_dask.blocks import Blocks, Floats, unused
from kmeans_dask.errors import KMeansError
from kmeans_dask.means import CANCELLED, inertia_of, total_weight, updated
from kmeans_dask.packing import moments
from kmeans_dask.passes import Exponents, Partials
from kmeans_dask.resume import End
from kmeans_dask.steps import Step, lloyd_pass
from kmeans_dask.tracks import Track, end_of

Stop = Literal["converged", "tol", "max_iter", "max_seconds", "stopped"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One iteration, as the hook sees it; iteration counts from 1, seconds are this iteration's."""

    restart: int
    seed: int
    iteration: int
    inertia: float
    distortion: float
    changed: int
    seconds: float
    n_clusters: int | None = None  # of a sweep over several


Hook = Callable[[Progress], bool | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends, besides when no label changes: sq_shift is absolute, deadline by `time.monotonic`."""

    max_iter: int = 300
    sq_shift: float = 0.0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """What centroids may do: stay of unit length (spherical k-means), or not move where their index is frozen."""

    unit: bool = False
    frozen: tuple[int, ...] = ()

    def after(self, means: Floats, before: Floats) -> Floats:
        """Return where the centroids go instead of to their means; a mean of length 0 has no direction, so it stays."""
        if self.unit:
            means = np.where(_lengths(means) > 0, unit_centroids(means), before)
        if self.frozen:
            means = means.copy()
            means[list(self.frozen)] = before[list(self.frozen)]
        return means


FREE = Motion()


@dataclass(frozen=True, slots=True)
class Trial:
    """A run that spares the passes that only tell the inertia to the last bit.

    It ends at the centroids of its last pass, where it leaves what blocks remember of it.
    squares: the inertia plus what centroids explain, the same in every run over the same rows. after: the end of a run
    and the places of its centroids in this one's start, see `Track.after`.
    bar, hope: it is given up when its inertia would stay above the bar after so many falls like the last one.
    """

    squares: float
    after: tuple[End, npt.NDArray[np.int32]] | None = None
    bar: float = math.inf
    hope: float = 0.0


NO_TRIAL = Trial(math.inf)


def unit_centroids(centroids: Floats) -> Floats:
    """Return each centroid, (k, d), divided by its length; one of length 0 or of unit length already as it is."""
    lengths = _lengths(centroids)
    other = (lengths > 0) & (np.abs(lengths - 1) > 2.0**-49)
    return np.divide(centroids, lengths, out=centroids.copy(), where=other)


def _lengths(centroids: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.cumsum(centroids * centroids, axis=1)[:, -1:])  # features in their order
    return lengths


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One finished run. The labels of `centroids` give exactly this inertia and these sizes."""

    restart: int
    seed: int
    centroids: Floats  # (k, d) prepared space
    sizes: tuple[int, ...]  # rows per cluster
    inertia: float
    distortion: float
    n_iter: int
    stop: Stop
    history: tuple[Progress, ...]
    weights: tuple[float, ...] = ()  # of each cluster's rows
    breaths: int = 0  # of a search that refined it
    squares: float = math.inf  # see `Trial`
    end: End | None = None  # of a trial


@dataclass(frozen=True, slots=True)
class Identity:
    """Which restart a run is."""

    restart: int = 0
    seed: int = 0
    n_clusters: int | None = None  # of a sweep over several
    run: str = field(
        default_factory=partial(unused, "lloyd"), compare=False
    )  # under which blocks remember it


def sq_shift_of(tol: float, blocks: Blocks) -> float:
    """Return tol times the mean feature variance: what `Limits.sq_shift` takes."""
    if tol == 0:
        return 0.0
    _, variances = moments(blocks)
    return tol * (float(np.cumsum(variances)[-1]) / len(variances))


def lloyd(
    blocks: Blocks, start: Floats, limits: Limits, identity: Identity, hook: Hook = lambda progress: None,
    motion: Motion = FREE, trial: Trial = NO_TRIAL,
) -> Fit:  # fmt: skip
    """Run from the start centroids, (k, d) float64 in the prepared space, until a limit or no label changes."""
    way = identity.run, start, blocks.summary.n_samples
    path = Track.after(*way, *trial.after) if trial.after else Track(*way)
    run = _Run(blocks, limits, identity, hook, motion, trial, path, trial.squares)
    try:
        while run.stop is None:
            run.iterate()
    except KMeansError:
        raise
    except Exception:  # of the hook: blocks live on
        blocks.map_reduce(passes.forget, identity.run, combine=int.__add__)
        raise
    return run.fit(run.stop)


@dataclass(slots=True, eq=False)
class _Run:
    """A run of Lloyd's algorithm between two iterations."""

    blocks: Blocks
    limits: Limits
    identity: Identity
    hook: Hook
    motion: Motion
    trial: Trial
    path: Track
    squares: float
    stop: Stop | None = None
    n_iter: int = 0
    history: list[Progress] = field(default_factory=list)
    inertia: float = math.inf
    last: float = field(default_factory=time.monotonic)
    step: Step = field(init=False)
    owed: Floats = field(init=False)  # of the step
    partials: Partials = field(init=False)
    explained_by: Partials | None = None  # of which the centroids are the means

    def iterate(self) -> None:
        """Pass over the rows at the centroids and move them, or stop."""
        before = self.inertia
        self.step = self.path.step(self.blocks, exact=self.squares == math.inf)
        self.owed = self.path.bounds.owed
        self.partials = _pass(self.blocks, self.step)
        self._tell_inertia()
        hopeless = self.inertia - self.trial.hope * (before - self.inertia) > self.trial.bar
        wants_stop = self.hook(self._noted())
        if self.trial.squares < math.inf and (hopeless or wants_stop or self.n_iter >= self.limits.max_iter):
            self.stop = "stopped"  # a trial ends at the centroids of its last pass
            return
        step, partials = self.step, self.partials
        means = updated(
            self.blocks, step.centroids, partials, step.scales, self.motion.frozen, self.explained_by,
            (step.run, step.names[1]),
        )  # fmt: skip
        new = self.motion.after(means, step.centroids)
        self.explained_by = partials if self.motion == FREE else None
        # A refilled cluster moves a centroid, though the row it took may go back: then the next farthest is due.
        if step.before is not None and partials.changed == 0 and np.array_equal(new, step.centroids):
            self.stop = "converged"
            return
        sq_shift = self.path.move(new, partials.radii)
        self.stop = _stop(sq_shift, self.limits, self.n_iter, bool(wants_stop))

    def _tell_inertia(self) -> None:
        explained = _explained(self.partials, self.step)
        self.inertia = self.squares - explained
        if not self.inertia > self.squares * CANCELLED:
            # The first pass, or one whose difference has lost too many digits: inertia by the distances themselves.
            if not self.step.exact:
                self.partials = _pass(self.blocks, self.path.step(self.blocks, exact=True))
            self.inertia = inertia_of(self.partials, self.step.scales)
            self.squares = self.inertia + explained

    def _noted(self) -> Progress:
        self.n_iter += 1
        now, identity = time.monotonic(), self.identity
        distortion = self.inertia / total_weight(self.partials, self.step.scales)
        progress = Progress(
            identity.restart, identity.seed, self.n_iter, self.inertia, distortion, self.partials.changed,
            now - self.last, identity.n_clusters,
        )  # fmt: skip
        self.last = now
        self.history.append(progress)
        return progress

    def fit(self, stop: Stop) -> Fit:
        """Return the finished run."""
        if self.trial.squares < math.inf:
            centroids, end = self.step.centroids, end_of(self.step, self.owed)
            value = _value(self.partials, self.step.scales, self.inertia)
        else:
            step = self.path.step(self.blocks, exact=True)
            centroids, end, value = self.path.centroids, None, _value(_pass(self.blocks, step), step.scales)
            self.blocks.map_reduce(passes.forget, self.identity.run, combine=int.__add__)
        return Fit(
            self.identity.restart, self.identity.seed, centroids, value.sizes, value.inertia, value.distortion,
            self.n_iter, stop, tuple(self.history), value.weights, squares=self.squares, end=end,
        )  # fmt: skip


def remember(blocks: Blocks, centroids: Floats, run: str) -> End:
    """Let blocks remember all rows' labels under centroids, (k, d), as the end of a run."""
    track = Track(run, centroids)
    step = track.step(blocks, exact=False)
    _pass(blocks, step)
    return end_of(step, track.bounds.owed)


@dataclass(frozen=True, slots=True)
class Value:
    """How well centroids describe rows: rows per cluster, inertia, distortion, and their weight per cluster."""

    sizes: tuple[int, ...]
    inertia: float
    distortion: float
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Of each cluster the weighted sum of its rows, (d, k), and their weight, (k,); and the value of its centroid."""

    sums: Floats
    weights: Floats
    value: Value


def totals_of(blocks: Blocks, centroids: Floats) -> Totals:
    """Return what all rows add up to under centroids, (k, d) float64 in the prepared space."""
    step = Track(unused("evaluated"), centroids).step(blocks, exact=True)
    partials = _pass(blocks, step)
    blocks.map_reduce(passes.forget, step.run, combine=int.__add__)
    return Totals(*_rounded(partials, step.scales), _value(partials, step.scales))


def evaluated(blocks: Blocks, centroids: Floats) -> Value:
    """Return the value of centroids, (k, d) float64 in the prepared space, on all rows."""
    return totals_of(blocks, centroids).value


def _value(partials: Partials, scales: Exponents, inertia: float | None = None) -> Value:
    inertia = inertia_of(partials, scales) if inertia is None else inertia
    weight = total_weight(partials, scales)
    rows, weighted = partials.rows.tolist(), partials.weight.shape[1] > 0
    weights = (
        [sums.value(total, scales.weight) for total in sums.integers(partials.weight)] if weighted else rows
    )
    return Value(tuple(rows), inertia, inertia / weight if weight else 0.0, tuple(map(float, weights)))


def _pass(blocks: Blocks, step: Step) -> Partials:
    return blocks.map_reduce(lloyd_pass, step, combine=Partials.combined)


def _explained(partials: Partials, step: Step) -> float:
    """Return the weighted sum of |x|^2 - |x - c|^2 over all rows: 2 c.S - W |c|^2 over the clusters."""
    sums_of, weights = _rounded(partials, step.scales)
    return float(kernels.explained(sums_of, weights, step.centroids))


def _rounded(partials: Partials, scales: Exponents) -> tuple[Floats, Floats]:
    """Return each cluster's weighted sum, (d, k), and weight, (k,), rounded to float64."""
    _, d, k = partials.sums.shape
    sums_of, weights = np.empty((d, k)), np.empty(k)
    units = scales.columns - sums.BITS, scales.weight - sums.BITS
    kernels.round_totals(partials.sums, partials.rows, partials.weight, *units, sums_of, weights)
    return sums_of, weights


def _stop(sq_shift: float, limits: Limits, n_iter: int, wants_stop: bool) -> Stop | None:
    if wants_stop:
        return "stopped"
    if limits.sq_shift > 0 and sq_shift <= limits.sq_shift:
        return "tol"
    if n_iter >= limits.max_iter:
        return "max_iter"
    if limits.deadline is not None and time.monotonic() >= limits.deadline:
        return "max_seconds"
    return None
