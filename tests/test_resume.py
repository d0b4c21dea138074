"""Runs that start from the end of another: each of their passes equals the same pass computed from nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import passes, pruning
from kmeans_dask.blocks import Blocks
from kmeans_dask.means import updated
from kmeans_dask.resume import End
from kmeans_dask.steps import rename
from kmeans_dask.tracks import Track, end_of
from tests.blockings import KINDS, blocked, rows_of_kind
from tests.test_pruning import assert_equal, passed, reaches


def run_of(blocks: Blocks, X: np.ndarray, track: Track, n_passes: int) -> End:
    """Make passes of a run over X, compare each with a fresh one, and return where it ended."""
    for _ in range(n_passes):
        step, owed = track.step(blocks, exact=True), track.bounds.owed
        ours = passed(blocks, step)
        fresh = passed(blocks, Track("fresh", step.centroids).step(blocks, exact=True))
        blocks.map_reduce(passes.forget, "fresh", combine=int.__add__)
        assert_equal(ours, fresh)
        assert (ours.radii >= reaches(X, blocks, step.centroids)).all()
        track.move(updated(blocks, step.centroids, ours, step.scales), ours.radii)
    return end_of(step, owed)


def changed_start(end: End, rng: np.random.Generator, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a start for another run, and the places in it of the centroids of the end.

    Some of those go, others are added, near and far, and now and then one moves, so that it is not the same any more.
    """
    k = len(end.centroids)
    goes = rng.random(k) < rng.choice([0.0, 0.2, 0.9])
    n_added = int(rng.integers(0 if (~goes).any() else 1, 4))
    n = int((~goes).sum()) + n_added
    places = np.full(k, -1, np.int32)
    order = rng.permutation(n).astype(np.int32)
    places[~goes] = order[n_added:]
    start = np.empty((n, end.centroids.shape[1]))
    start[order[n_added:]] = end.centroids[~goes]
    for place in order[:n_added]:
        near = end.centroids[rng.integers(k)] * (1 + 1e-3 * rng.normal())
        start[place] = near if rng.random() < 0.5 else X[rng.integers(len(X))]
    if rng.random() < 0.2:
        start[rng.integers(n)] *= 1.25
    return start, places


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 2, 5, 16]),
    st.sampled_from([1, 2, 5, 24, 60]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_resumed_passes_equal_fresh_ones(
    kind: str, dtype: str, d: int, k: int, weighted: bool, seed: int
) -> None:
    """Runs of a few passes, each from the end of the one before or of one kept aside, at times forgotten."""
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 900, d, rng).astype(dtype)
    weights = rng.integers(0, 4, size=900).astype(np.float64) if weighted else None
    with blocked(X, (0, 300, 300, 900), weights, n_threads=2) as blocks:
        end = run_of(blocks, X, Track("run", X[rng.integers(900, size=k)].astype(np.float64)), 3)
        home: End | None = None
        for _ in range(6):
            if rng.random() < 0.3:
                blocks.map_reduce(rename, end, "home", combine=lambda a, b: a)
                home = end = replace(end, run="home")
            if rng.random() < 0.2:
                blocks.map_reduce(passes.forget, end.run, combine=int.__add__)
            start, places = changed_start(end, rng, X)
            end = run_of(blocks, X, Track.after("run", start, 0, end, places), int(rng.integers(1, 4)))
            end = home if home is not None and rng.random() < 0.3 else end


@pytest.mark.parametrize("name", ["run", "next"])
def test_rows_out_of_reach_are_not_scanned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a centroid is added to one of many far clusters, hardly a tile is looked at, whatever the run's name."""
    X = np.random.default_rng(0).normal(size=(20_000, 4)) + np.repeat(np.arange(20) * 30.0, 1000)[:, None]
    gaps = list[float]()

    def relabelled(*arguments: Any) -> Any:
        gaps.extend(arguments[-2][3])  # at the first pass of a run a tile is looked at unless this is above 0
        return relabel_rows(*arguments)

    relabel_rows = pruning.relabel_rows
    with blocked(X) as blocks:
        end = run_of(blocks, X, Track("run", X[::1000].copy()), 4)
        start = np.vstack((end.centroids, X[:1] + 0.5))
        monkeypatch.setattr(pruning, "relabel_rows", relabelled)
        track = Track.after(name, start, 0, end, np.arange(20, dtype=np.int32))
        passed(blocks, track.step(blocks, exact=False))
    assert len(gaps) >= 20_000 // 128
    assert np.mean(np.array(gaps) > 0) > 0.75


@pytest.mark.parametrize("moved", [False, True])
def test_a_centroid_that_is_not_where_it_was_goes_and_is_added(moved: bool) -> None:
    """Places say where centroids are meant to be; what counts is where they are."""
    centroids = np.arange(6.0).reshape(3, 2)
    end = End("run", "name", centroids, np.zeros(3, np.float32), 0.0, np.empty((0, 0)))
    start = centroids[[2, 0]] + np.array([[0.5 * moved], [0.0]])
    origin = Track.after("run", start, 0, end, np.array([1, -1, 0], np.int32)).origin
    assert origin is not None
    assert origin.places.tolist() == [1, -1, -1 if moved else 0]
    assert origin.added.tolist() == ([0] if moved else [])


def test_movements_that_are_owed_go_on_with_the_pairs_that_stay() -> None:
    """What does not count yet at the end of a run is owed at the start of the next; what is added owes nothing."""
    centroids, owed = np.arange(3.0).reshape(3, 1), np.arange(9.0).reshape(3, 3)
    end = End("run", "name", centroids, np.zeros(3, np.float32), 0.0, owed)
    start = np.array([[2.0], [50.0], [0.0], [60.0]])
    track = Track.after("run", start, 0, end, np.array([2, -1, 0], np.int32))
    expected = np.zeros((4, 4))
    for after, before in ((2, 0), (0, 2)):
        for other, other_before in ((2, 0), (0, 2)):
            expected[after, other] = owed[before, other_before]
    assert track.bounds.owed.tolist() == expected.tolist()
    assert track.origin is not None
    assert track.origin.end.owed.size == 0  # no pass is told
