"""The breaths of a search, by passes over blocks or over few rows at once, and what they may cost."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from kmeans_dask import breaths, few, randoms, sums
from kmeans_dask.blocks import Block, Blocks, Floats, Summary
from kmeans_dask.lloyd import (
    FREE,
    Fit,
    Hook,
    Identity,
    Limits,
    Motion,
    Progress,
    Stop,
    Trial,
    lloyd,
    remember,
    unit_centroids,
)
from kmeans_dask.passes import Exponents, exponents, forget, labels_of, scan_of, sq_distances_of
from kmeans_dask.repeats import distinct
from kmeans_dask.resume import End
from kmeans_dask.spreads import Shapes, Spread
from kmeans_dask.steps import rename
from kmeans_dask.sums import Limbs
from kmeans_dask.tracks import Track
from kmeans_dask.trials import Course, landed, may_land

_FEWEST = 5  # drawn breaths in a row that may fail, at least
_MOST = 400  # the same, at most, on few rows
_TINY = 90_000  # rows * clusters * features of a set so small that they cost next to nothing
_SMALL = 1_500_000  # and of one where half of the most are worth their time,
_LARGE, _MORE = 2**25, 2.85  # and of one where so many times as many are
_ALL = 1.25  # breaths in all for each drawn one that may fail in a row,
_LEAST = 20  # but at least so many
_GROW, _SHRINK = 4, 20  # iterations with more centroids, and with as many as asked for
_HOPE = 5  # falls of the inertia like the last one that may still come
_HUGE = 2**30  # and of one whose passes take so long that no more is worth its time:
_RUNS = 48  # a search by passes makes at most as many iterations as so many further restarts,
_FEWEST_ITERATIONS = 45  # each of at least so many
_BREATHS_AT_ONCE = 16  # over few rows, between two looks at the hook and the time


@dataclass(slots=True, eq=False)
class Search:
    """The runs of a search: what they may cost, what they have cost, and why they must end."""

    identity: Identity
    limits: Limits
    hook: Hook
    motion: Motion
    start: Floats
    weights: tuple[float, ...]
    squares: float
    lowest: Progress  # what the hook sees of the best centroids so far
    n_iter: int
    best: Floats = field(init=False)
    stop: Stop | None = None
    state: npt.NDArray[np.int64] = field(init=False)
    key: np.uint64 = field(init=False)

    def __post_init__(self) -> None:
        self.best = self.start
        self.state = np.array([min(breaths.MOST, len(self.start)), 0, 0])
        self.key = np.uint64(randoms.derived(self.identity.seed, "breaths"))

    @classmethod
    def after(cls, fit: Fit, limits: Limits, identity: Identity, hook: Hook, motion: Motion) -> "Search":
        """Return the search that starts from a fit."""
        lowest = replace(fit.history[-1], inertia=fit.inertia, distortion=fit.distortion)
        return cls(
            identity, limits, hook, motion, fit.centroids, fit.weights, fit.squares, lowest, fit.n_iter
        )

    @property
    def breaths(self) -> int:
        """How many have been made."""
        return int(self.state[2])

    def by_passes(self, blocks: Blocks, *, few: bool = False) -> Floats:
        """Return the best centroids found by passes over blocks, the start if none are better.

        few: search as long as `at_once` would, since the rows are so few.
        """
        home = f"{self.identity.run}-home"  # what blocks remember of the centroids that a breath starts from
        size = blocks.summary.n_weighted * self.start.size
        patience = (_patience_of_few if few else _patience)(size, len(self.start))
        most = self.n_iter + _runs(size, len(self.start)) * max(self.n_iter, _FEWEST_ITERATIONS)
        place = _Place(
            self.start, np.array(self.weights), self.lowest.inertia, remember(blocks, self.start, home)
        )
        spread = Spread.of(blocks, len(self.start), around_means=self.motion != FREE)

        def described(centroids: Floats, end: End | None) -> tuple[Floats, Shapes]:
            return errors_of(blocks, centroids, end, home), spread.shapes(centroids)

        clusters = described(self.start, place.end)
        breaths_in_all = math.inf if few else max(_LEAST, _ALL * patience)
        while self.state[1] < patience and self.breaths < breaths_in_all and self.n_iter < most:
            tried = self._breath(blocks, place, *clusters)
            if tried is None:
                break
            kicked = breaths.kicks(self.state)
            breaths.advance(self.state, self.lowest.inertia, tried.inertia)
            if breaths.is_lower(tried.inertia, place.inertia) or kicked:
                clusters = described(tried.centroids, tried.end)
                place = replace(tried, end=tried.end and replace(tried.end, run=home))
            self._lowered(tried.inertia, tried.centroids)
        for run in (self.identity.run, home):
            blocks.map_reduce(forget, run, combine=int.__add__)
        return self.best

    def _breath(self, blocks: Blocks, place: "_Place", errors: Floats, shapes: Shapes) -> "_Place | None":
        """Return where a breath ends; None where the search must end."""
        k, frozen = len(place.centroids), np.array(self.motion.frozen, np.int64)
        more = breaths.with_more(place.centroids, errors, place.weights, shapes, self.state, self.key)
        grown = self._run(blocks, more, _GROW, place.end, np.arange(k, dtype=np.int32))
        if self.stop:
            return None
        places = breaths.without_least(grown.centroids, grown.weights, k, frozen, self.state, self.key)
        fewer = breaths.placed(grown.centroids, places, k)
        tried = self._run(blocks, fewer, _SHRINK, grown.end, places, place.inertia)
        return None if self.stop else tried

    def _run(
        self, blocks: Blocks, start: Floats, max_iter: int, end: End | None, places: npt.NDArray[np.int32],
        bar: float = np.inf,
    ) -> "_Place":  # fmt: skip
        """Return where a trial from the start ends, given up when its inertia will hardly fall below the bar.

        end: of a run whose centroids have these places in the start.
        """
        began, most = time.monotonic(), min(max_iter, self.limits.max_iter)
        found = None
        if self.motion == FREE and may_land(blocks, start):
            way = self.identity.run, start, blocks.summary.n_samples
            path = Track.after(*way, end, places) if end else Track(*way)
            found = landed(blocks, path, Course(most, self.limits.sq_shift, self.squares, bar, _HOPE))
        if found:
            self._shown(found.n_iter, found.changed, time.monotonic() - began)
            reached = _Place(found.centroids, found.sizes.astype(np.float64), found.inertia, found.end)
        else:
            after = (end, places) if end else None
            reached = self._run_in_steps(blocks, start, most, Trial(self.squares, after, bar, _HOPE))
        self._look_at_time()
        return reached

    def _run_in_steps(self, blocks: Blocks, start: Floats, max_iter: int, trial: Trial) -> "_Place":
        """Return the same, of any motion, made and shown iteration by iteration."""
        shown = 0

        def seen(progress: Progress) -> bool:
            nonlocal shown
            self._shown(progress.iteration - shown, progress.changed, progress.seconds)
            shown = progress.iteration
            return self.stop is not None

        start = unit_centroids(start) if self.motion.unit else start
        limits = replace(self.limits, max_iter=max_iter)
        fit = lloyd(blocks, start, limits, self.identity, seen, self.motion, trial)
        return _Place(fit.centroids, np.array(fit.weights), fit.inertia, fit.end)

    def at_once(self, rows: Floats, summary: Summary) -> Floats:
        """Return the best centroids found by compiled loops over rows of weight 1, the start if none are better."""
        columns = exponents(summary, self.start).columns
        scales = np.array([sums.scale(e) for e in columns.tolist()]), columns - sums.BITS
        patience, most = _patience_of_few(len(rows) * self.start.size, len(self.start)), self.limits.max_iter
        limits = (patience, min(_GROW, most), min(_SHRINK, most), self.limits.sq_shift, float(_HOPE))
        centroids = self.start
        while self.state[1] < patience and not self.stop:
            began = time.monotonic()
            centroids, found, reached, n_iter = few.search(
                rows, scales, centroids, self.lowest.inertia, limits, self.state, self.key, _BREATHS_AT_ONCE
            )
            self._lowered(reached, found)
            self._shown(n_iter, 0, time.monotonic() - began)
            self._look_at_time()
        return self.best

    def _look_at_time(self) -> None:
        if self.limits.deadline is not None and time.monotonic() >= self.limits.deadline:
            self.stop = self.stop or "max_seconds"

    def _lowered(self, inertia: float, centroids: Floats) -> None:
        """Take centroids that are better than the best so far."""
        if breaths.is_lower(inertia, self.lowest.inertia):
            distortion = self.lowest.distortion * (inertia / self.lowest.inertia)
            self.best, self.lowest = centroids, replace(self.lowest, inertia=inertia, distortion=distortion)

    def _shown(self, n_iter: int, changed: int, seconds: float) -> None:
        """Count and show iterations of a trial."""
        self.n_iter += n_iter
        lowest = self.lowest
        progress = Progress(
            lowest.restart, lowest.seed, self.n_iter, lowest.inertia, lowest.distortion, changed, seconds,
            lowest.n_clusters,
        )  # fmt: skip
        if self.hook(progress):
            self.stop = "stopped"


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a breath starts from: centroids, (k, d), the weights of their rows, (k,), and the end of a run there."""

    centroids: Floats
    weights: Floats
    inertia: float
    end: End | None


def _patience(size: int, n_clusters: int) -> int:
    """Return how many drawn breaths in a row may fail; size: rows * clusters * features, of which a run costs more."""
    most = min(8 * n_clusters - 70, 2 * n_clusters + 132) * (_MORE if size > _LARGE else 1.0)
    return max(_FEWEST, n_clusters, int(most * size) // (size + _SMALL))


def _runs(size: int, n_clusters: int) -> int:
    """Return as how many further restarts a search may take iterations; with many clusters each takes less of one."""
    return _RUNS if size > _HUGE else max(_RUNS, 11 * n_clusters - 502)


def _patience_of_few(size: int, n_clusters: int) -> int:
    """Return the same on few rows; size: rows * clusters * features."""
    return max(_FEWEST, 2 * n_clusters - 10, min(_MOST, 40 * n_clusters, (_TINY // size) ** 2))


def errors_of(blocks: Blocks, centroids: Floats, end: End | None, run: str) -> Floats:
    """Return each cluster's inertia, (k,), nearly rounded from exact sums, so the same everywhere.

    What blocks remember of the end of a run at these centroids, they remember as that of `run` from now on.
    """
    scales = exponents(blocks.summary, centroids)
    limbs = blocks.map_reduce(errors, centroids, scales, end, run, combine=sums.added)
    top, middle, low = limbs.astype(np.float64)
    unit = math.ldexp(1.0, scales.inertia - sums.SQUARE_BITS)
    found: Floats = (top * 2.0**64 + (middle * 2.0**32 + low)) * unit
    return found


def errors(blocks: Sequence[Block], centroids: Floats, scales: Exponents, end: End | None, run: str) -> Limbs:
    """Return the limbs of each cluster's inertia on a run of blocks, (3, k)."""
    limbs = np.zeros((3, len(centroids)), np.int64)
    held = end and rename(blocks, end, run)
    blocks = [distinct(block) for block in blocks]
    scan = scan_of(centroids, blocks[0].tiles.dtype)
    factor = sums.scale(scales.inertia)
    for i, block in enumerate(blocks):
        labels = held[i] if held else labels_of(block, centroids, scan)
        sq_distances = sq_distances_of(block, centroids, labels)
        breaths.add_errors(sq_distances, block.weights, block.copies, labels, factor, limbs)
    return sums.added(limbs, np.zeros_like(limbs))
