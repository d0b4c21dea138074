"""Rows of so many features that their passes go by parts of these: held against the loops of naive.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import packing, passes, scans
from kmeans_dask.means import updated
from kmeans_dask.packing import Wishes
from kmeans_dask.tiles import TILE
from kmeans_dask.tracks import Track
from tests import naive
from tests.blockings import addend_means, blocked, labels_under, rows_of_kind
from tests.test_lloyd import pass_over

WIDTHS = (255, 256, 257, 512, 515)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["normal", "grid", "copies", "near ties", "outlier"]), st.sampled_from(["float32", "float64"]),
    st.sampled_from(WIDTHS), st.sampled_from([1, 2, 5, 13]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_pass_equals_the_loops(
    kind: str, dtype: str, d: int, k: int, weighted: bool, seed: int
) -> None:
    """Labels, ties to the lowest included, changes, counts and means, pass by pass."""
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 150, d, rng).astype(dtype).astype(np.float64)
    weights = rng.integers(0, 4, size=150).astype(np.float64) if weighted else None
    start = X[rng.integers(150, size=k)]  # now and then twice the same
    track, old, centroids = Track("test", start), None, start
    with blocked(X.astype(dtype), (0, 150), weights, n_threads=1) as blocks:
        for _ in range(3):
            labels = naive.nearest(X, centroids)
            assert labels_under(blocks, centroids) == labels
            partials = pass_over(blocks, track)
            assert partials.rows.tolist() == np.bincount(labels, minlength=k).tolist()
            assert partials.changed == (
                150 if old is None else sum(a != b for a, b in zip(labels, old, strict=True))
            )
            members = list(labels)
            for cluster, row in naive.refills(X, labels, centroids, weights).items():
                members[row] = cluster
            new = updated(blocks, centroids, partials, track.step(blocks, exact=True).scales)
            assert new.tolist() == addend_means(X, members, centroids, weights)
            track.move(new, partials.radii)
            old, centroids = labels, new


@pytest.mark.parametrize("width", [scans.FEW, TILE])
@pytest.mark.parametrize("d", [4, 256, 260, 60_000])
def test_scores_are_as_exact_as_the_bound_says(d: int, width: int) -> None:
    """Where all terms have one sign, so that roundings add up: one sum over 60,000 features is wrong by more."""
    rng = np.random.default_rng(d)
    lanes = rng.uniform(1.0007, 1.00085, size=(d, width)).astype(np.float32)
    centroids = np.float64(np.float32(rng.uniform(-1.001, -1.0, size=(4, d))))
    scan = passes.scan_of(centroids, lanes.dtype)
    work, squares = np.empty(scans.WORK, np.float32), np.empty(TILE, np.float32)
    (scans.scan_lanes if width == TILE else scans.scan_few_lanes)(lanes, scan, work, squares)
    rows = lanes.T.astype(np.float64)
    scores = (centroids**2).sum(1) - 2 * rows @ centroids.T
    unit = scan[2][1] / 4 * ((rows**2).sum(1) + (centroids**2).sum(1).max())
    lowered = scan[2][0][:4] / 2  # as `scans.write_scan` lowers what it starts from
    for best, wanted in ((4, (scores - lowered).min(1)), (5, np.sort(scores - lowered)[:, 1])):
        assert (np.abs(work[best * width : (best + 1) * width] - wanted) <= unit).all()
    assert (np.abs(squares[:width] - (rows**2).sum(1)) <= unit).all()
    one_by_one = np.add.accumulate(lanes**2, axis=0)[-1]
    assert d < 60_000 or (np.abs(one_by_one - (rows**2).sum(1)) > unit).all()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_shifts_of_many_columns_are_those_of_each(n_threads: int) -> None:
    """Columns of one array, looked at some at a time, have the shifts that they have alone."""
    X = np.random.default_rng(0).normal(1000.0, 3.0, size=(50, 2500))
    wishes = Wishes(tuple(f"x{f}" for f in range(2500)), "float64")
    shift = packing.provisional(X.T, wishes, n_threads).shift
    assert shift.tolist() == packing.provisional(list(X.T), wishes).shift.tolist()
    assert set(shift.tolist()) != {0.0}
