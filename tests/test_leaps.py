"""Trials whose iterations are made at once in one block equal those made one by one, and those over many blocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import leaps, lloyd
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.lloyd import Fit, Identity, Limits, Progress, Trial
from kmeans_dask.resume import Origin
from tests.blockings import KINDS, blocked, rows_of_kind

ONE, MANY = (0, 900), (0, 300, 300, 900)


def trials(blocks: Blocks, starts: list[Floats], limits: Limits, trial: Trial) -> list[tuple[Fit, list[int]]]:
    """Run trials, and note what their hooks saw; of each start but the first, half is the end of the trial before."""
    found = list[tuple[Fit, list[int]]]()
    for drawn in starts:
        k, start = len(drawn), drawn
        if found and (end := found[-1][0].end):
            start = np.concatenate((end.centroids[: k // 2], drawn[k // 2 :]))
            trial = replace(trial, origin=Origin.of(end, np.arange(k, dtype=np.int32), start))
        seen = list[int]()

        def hook(progress: Progress, seen: list[int] = seen) -> None:
            seen.append(progress.iteration)

        found.append((lloyd.lloyd(blocks, start, limits, Identity(), hook, trial=trial), seen))
    return found


def assert_same(a: Fit, b: Fit) -> None:
    """Two trials are the same run."""
    assert (a.n_iter, a.stop, a.inertia, a.squares) == (b.n_iter, b.stop, b.inertia, b.squares)
    assert (a.sizes, a.weights) == (b.sizes, b.weights)
    np.testing.assert_array_equal(a.centroids, b.centroids)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 2, 5, 16]),
    st.sampled_from([1, 2, 5, 24, 60]), st.sampled_from([1, 2, 3, 20]), st.booleans(), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_iterations_at_once_equal_those_one_by_one(
    kind: str, dtype: str, d: int, k: int, max_iter: int, weighted: bool, barred: bool, seed: int
) -> None:
    """Over kinds of data, clusters that start empty, early ends, and weights, which rule leaps out."""
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 900, d, rng).astype(dtype)
    weights = rng.integers(0, 4, size=900).astype(np.float64) if weighted else None
    starts = [X[rng.integers(900, size=k)].astype(np.float64) for _ in range(3)]
    with blocked(X, ONE, weights, n_threads=1) as one, blocked(X, MANY, weights, n_threads=2) as many:
        plain = lloyd.lloyd(many, starts[0], Limits(300), Identity())
        bar = plain.inertia * rng.choice([0.5, 1.0, 2.0]) if barred else np.inf
        trial = Trial(plain.squares, None, bar, 5.0)
        limits = Limits(max_iter, sq_shift=float(rng.choice([0.0, 1e-3])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lloyd, "_LEAP", 0)
            slow = trials(one, starts, limits, trial)
        for (ours, seen), (theirs, _), (wide, _) in zip(
            trials(one, starts, limits, trial), slow, trials(many, starts, limits, trial), strict=True
        ):
            assert_same(ours, theirs)
            assert_same(ours, wide)
            assert seen[-1] == ours.n_iter


def test_trials_leap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial over one block makes most of its iterations at once: the hook sees few of them."""
    X = np.random.default_rng(0).normal(size=(900, 2))
    landings = list[leaps.Landing | None]()

    def leap(*args: object) -> leaps.Landing | None:
        landings.append(leaps.leap(*args))  # type: ignore[arg-type]
        return landings[-1]

    monkeypatch.setattr(lloyd, "leap", leap)
    with blocked(X, ONE, n_threads=1) as blocks:
        plain = lloyd.lloyd(blocks, X[:20].copy(), Limits(300), Identity())
        assert landings == []
        [(fit, seen)] = trials(blocks, [X[20:40].copy()], Limits(10), Trial(plain.squares))
    assert fit.n_iter == 10
    assert seen == [10]
    assert [landing and landing.n_moves for landing in landings] == [9]
