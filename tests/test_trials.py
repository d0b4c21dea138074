"""Trials made in one call, over one block, equal those made pass by pass, and those over many blocks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import lloyd, passes, trials
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.lloyd import Identity, Limits, Trial
from kmeans_dask.resume import End
from kmeans_dask.tracks import Track
from kmeans_dask.trials import Course, landed, may_land
from tests.blockings import KINDS, blocked, rows_of_kind

ONE, MANY = (0, 900), (0, 300, 300, 900)
RUN = "lloyd"  # under which blocks remember it


@dataclass
class Found:
    """Where a trial ended, and whether in one call."""

    centroids: Floats
    weights: list[float]
    inertia: float
    n_iter: int
    at_once: bool


def trial_of(
    blocks: Blocks, start: Floats, end: End | None, course: Course, *, at_once: bool,
    places: npt.NDArray[np.int32] | None = None,
) -> tuple[Found, End]:  # fmt: skip
    """Make a trial from a start whose centroids are those of an end, in their places, as far as they are the same."""
    places = np.arange(len(start), dtype=np.int32) if places is None else places
    track = Track.after(RUN, start, 0, end, places) if end else Track(RUN, start)
    landing = landed(blocks, track, course) if at_once and may_land(blocks, start) else None
    if landing:
        sizes = [float(size) for size in landing.sizes]
        return Found(landing.centroids, sizes, landing.inertia, landing.n_iter, True), landing.end
    trial = Trial(course.squares, (end, places) if end else None, course.bar, course.hope)
    fit = lloyd.lloyd(blocks, start, Limits(course.max_iter, course.sq_shift), Identity(run=RUN), trial=trial)
    assert fit.end is not None
    return Found(fit.centroids, list(fit.weights), fit.inertia, fit.n_iter, False), fit.end


def trials_of(
    blocks: Blocks, starts: list[Floats], course: Course, *, at_once: bool, forgetful: bool = False
) -> list[Found]:
    """Make trials of which each but the first starts with half of the centroids that the one before ended with.

    forgetful: blocks remember nothing of every other end.
    """
    found, end = list[Found](), None
    for i, drawn in enumerate(starts):
        half = len(drawn) // 2
        start = drawn if end is None else np.concatenate((end.centroids[:half], drawn[half:]))
        if forgetful and i % 2:
            blocks.map_reduce(passes.forget, RUN, combine=int.__add__)
        one, end = trial_of(blocks, start, end, course, at_once=at_once)
        found.append(one)
    return found


def assert_same(a: Found, b: Found) -> None:
    """Two trials ended alike."""
    assert (a.n_iter, a.inertia, a.weights) == (b.n_iter, b.inertia, b.weights)
    np.testing.assert_array_equal(a.centroids, b.centroids)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 2, 5, 16]),
    st.sampled_from([1, 2, 5, 24, 60]), st.sampled_from([1, 2, 3, 20]), st.booleans(), st.booleans(),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_trials_at_once_equal_those_pass_by_pass(
    kind: str, dtype: str, d: int, k: int, max_iter: int, weighted: bool, barred: bool, forgetful: bool, seed: int
) -> None:  # fmt: skip
    """Over kinds of data, clusters that start empty, early ends, lost memories, and weights, which rule calls out."""
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 900, d, rng).astype(dtype)
    weights = rng.integers(0, 4, size=900).astype(np.float64) if weighted else None
    starts = [X[rng.choice(900, size=k, replace=False)].astype(np.float64) for _ in range(4)]
    with blocked(X, ONE, weights, n_threads=1) as one, blocked(X, MANY, weights, n_threads=2) as many:
        plain = lloyd.lloyd(many, starts[0], Limits(300), Identity())
        bar = plain.inertia * rng.choice([0.5, 1.0, 2.0]) if barred else np.inf
        course = Course(max_iter, float(rng.choice([0.0, 1e-3])), plain.squares, bar, 5.0)
        ours = trials_of(one, starts, course, at_once=True, forgetful=forgetful)
        for blocks in (one, many):
            for a, b in zip(ours, trials_of(blocks, starts, course, at_once=False), strict=True):
                assert_same(a, b)
        wide = trials_of(many, starts, course, at_once=True)
    assert not any(found.at_once for found in wide)
    assert not (weighted and any(found.at_once for found in ours))


@pytest.mark.parametrize("copies", [1, 5])
def test_trials_after_breaths_equal_those_pass_by_pass(copies: int) -> None:
    """Centroids are added after the others, and later some go whose places they take: all trials are made at once."""
    rng = np.random.default_rng(copies)
    X = np.repeat(rng.normal(size=(6000 // copies, 16)), copies, axis=0)
    k, cuts = 40, [(0, 6000), (0, 2000, 6000)]
    found: list[list[Found]] = []
    for n, at_once in ((0, True), (0, False), (1, False)):
        draws, ends = np.random.default_rng(7), list[Found]()
        with blocked(X, cuts[n], n_threads=1) as blocks:
            plain = lloyd.lloyd(blocks, X[:6000:150].copy(), Limits(300), Identity())
            course = Course(6, 0.0, plain.squares, np.inf, 0.0)
            one, end = trial_of(blocks, plain.centroids, None, course, at_once=at_once)
            for _ in range(5):
                more = np.concatenate((end.centroids, X[draws.integers(6000, size=4)]))
                places = np.arange(k, dtype=np.int32)
                one, end = trial_of(blocks, more, end, course, at_once=at_once, places=places)
                ends.append(one)
                gone = draws.choice(k, size=4, replace=False)
                places = np.arange(k + 4, dtype=np.int32)
                places[gone], places[k:] = -1, np.sort(gone)
                fewer = np.empty((k, 16))
                fewer[places[places >= 0]] = end.centroids[places >= 0]
                one, end = trial_of(blocks, fewer, end, course, at_once=at_once, places=places)
                ends.append(one)
        found.append(ends)
    assert all(one.at_once for one in found[0])
    for others in found[1:]:
        assert not any(one.at_once for one in others)
        for a, b in zip(found[0], others, strict=True):
            assert_same(a, b)


def test_which_trials_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those over one block of rows without weights, unless a cluster runs empty or there are many rows."""
    X = np.random.default_rng(0).normal(size=(900, 2))
    start, far = X[20:40].copy(), np.vstack((X[20:39], [[1e3, 1e3]]))
    with blocked(X, ONE, n_threads=1) as blocks:
        squares = lloyd.lloyd(blocks, X[:20].copy(), Limits(300), Identity()).squares
        course = Course(10, 0.0, squares, np.inf, 0.0)
        found, _ = trial_of(blocks, start, None, course, at_once=True)
        assert (found.at_once, found.n_iter) == (True, 10)
        assert not trial_of(blocks, far, None, course, at_once=True)[0].at_once
        monkeypatch.setattr(trials, "_MOST", X.size)
        assert not trial_of(blocks, start, None, course, at_once=True)[0].at_once
