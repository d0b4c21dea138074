"""How far the rows of clusters reach: never less than they do, and no more once all of them have been looked at."""

import numpy as np
import pytest

from kmeans_dask.bounds import Bounds
from kmeans_dask.lloyd import Identity, Limits, Trial, lloyd
from kmeans_dask.radii import narrow_radii, reach_tiles
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track
from tests.blockings import blocked
from tests.test_pruning import reaches


@pytest.mark.parametrize(
    ("scanned", "owned", "found", "expected"),
    [
        (4, 0, 2.0, 2.0),  # all of them: what was found, though it is less than before
        (3, 0, 2.0, 5.0),  # one was not looked at
        (3, 0, 7.0, 7.0),
        (3, 1, 2.0, 2.0),  # that one is in a tile with an owner
        (0, 4, 0.0, 5.0),  # none was looked at
    ],
)
def test_a_radius_of_one_pass_after_that_of_another(
    scanned: int, owned: int, found: float, expected: float
) -> None:
    """A bound of 5 before; of 4 rows so many were scanned, at most so far, and so many are in owned tiles."""
    radii, whole = np.array([5.0]), np.empty(1, np.bool_)
    known = np.array([found]), np.array([[scanned], [owned]])
    with_tiles = narrow_radii(radii, known, np.array([4]), whole)
    assert radii.tolist() == [expected]
    assert with_tiles == (scanned > 0 and scanned + owned == 4 and owned > 0)


def test_tiles_of_whole_clusters_count_as_far_as_their_balls_reach() -> None:
    """Of three tiles the first is owned by a cluster that is whole, the second by another, the third by none."""
    radii, owners = np.array([1.0, 1.0]), np.array([0, 1, -1], np.int32)
    balls = np.array([[3.0, 4.0], [30.0, 40.0], [300.0, 400.0]]), np.ones(3)
    reach_tiles(radii, np.array([True, False]), owners, balls, np.zeros((2, 2)))
    assert radii[0] == pytest.approx(6.0)
    assert radii[0] > 6.0
    assert radii[1] == 1.0


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_radii_shrink_when_every_row_is_looked_at(repeated: bool, n_blocks: int) -> None:
    """Far jumps open all rows: then radii are what they are at the first pass, though the jumps had widened them."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(3000, 3)).astype(np.float32)
    X = np.repeat(X[:1000], 3, axis=0) if repeated else X
    cuts = tuple(np.linspace(0, len(X), n_blocks + 1).astype(int).tolist())
    with blocked(X, cuts, n_threads=1) as blocks:
        track, n_narrow = Track("run", X[:40:8].astype(np.float64)), 0
        for i in range(8):
            step = track.step(blocks, exact=False)
            radii = blocks.map_reduce(lloyd_pass, step, combine=lambda a, b: a.combined(b)).radii
            far = reaches(X, blocks, step.centroids)
            assert (radii >= far).all()
            n_narrow += int((radii <= far * (1 + 1e-5)).sum())  # distances of rows are rounded up in float32
            track.move(X[100 * i : 100 * i + 40 : 8].astype(np.float64), radii)
        assert n_narrow > 0.9 * 8 * 5  # a jump may leave a cluster without rows


def test_pairs_of_many_clusters_are_kept_for_many_rows() -> None:
    """With 600 clusters and 512 rows each, a far centroid that moves does not open the rows of the others."""
    before = np.arange(600.0)[:, None] * 10.0
    after = before.copy()
    after[7] += 2.0
    bounds, _ = Bounds.of(600, 600 * 512).after(before, after, np.ones(600))
    assert bounds.owed.shape == (600, 600)
    assert (bounds.thresholds > 0).sum() == 1
    assert np.delete(bounds.owed[:, 7], 7) == pytest.approx(np.full(599, 2.0))
    near, _ = bounds.after(after, after, np.full(600, 6.1))  # now it may be nearest to rows of its neighbours
    assert np.flatnonzero(near.thresholds).tolist() == [6, 7, 8]


def test_runs_say_how_many_rows_they_are_over() -> None:
    """A run of 513 clusters keeps pairs over 512 rows each, and not over fewer."""
    X = np.random.default_rng(0).random((513 * 512, 1)).astype(np.float32)
    for n, size in ((len(X), 513), (len(X) - 1, 0)):
        with blocked(X[:n], n_threads=2) as blocks:
            fit = lloyd(blocks, X[::512].astype(np.float64), Limits(2), Identity(), trial=Trial(1e9))
            assert fit.end is not None
            assert fit.end.owed.shape == (size, size)


@pytest.mark.parametrize("n_moved", [1, 30])
def test_approaches_are_the_same_by_each_distance_or_all_at_once(n_moved: int) -> None:
    """What counts for each cluster is the longest way among the centroids within twice its radius, and no other."""
    rng = np.random.default_rng(n_moved)
    before = rng.normal(size=(40, 3))
    after = before.copy()
    after[:n_moved] += rng.normal(size=(n_moved, 3)) * 0.1
    radii = rng.random(40)
    bounds, _ = Bounds.of(40).after(before, after, radii)
    ways = np.sqrt(((after - before) ** 2).sum(axis=1))
    apart = np.sqrt(((after[:, None] - after) ** 2).sum(axis=2))
    near = apart <= 2 * (radii + ways)[:, None]
    np.fill_diagonal(near, False)
    expected = np.where(near, ways, 0.0).max(axis=1)
    assert bounds.moved[1] == pytest.approx(expected, rel=1e-8)  # movements are rounded up by 1e-9
    assert (bounds.owed == np.where(ways > expected[:, None], bounds.owed, 0.0)).all()
    assert (bounds.owed[ways > expected[:, None]] > 0).all()
