"""Bounds of a run: no row is passed by of which another centroid has become the nearest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask.bounds import Bounds


def distances(X: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return each row's distance from each centroid, (n, k)."""
    return np.sqrt(((X[:, None] - centroids) ** 2).sum(axis=2))


class Rows:
    """Rows that are looked at when their bounds say so, as passes do it."""

    def __init__(self, X: np.ndarray, centroids: np.ndarray) -> None:
        self.X = X
        self.labels, self.slack = np.zeros(len(X), np.int64), np.zeros(len(X))
        self.bounds = Bounds.of(len(centroids))
        self.look(centroids, np.ones(len(X), np.bool_))

    def look(self, centroids: np.ndarray, which: np.ndarray) -> None:
        """Find label and slack of some rows."""
        found = np.sort(distances(self.X, centroids), axis=1)
        self.labels = np.where(which, distances(self.X, centroids).argmin(axis=1), self.labels)
        reached = found[:, 1] - found[:, 0] + self.bounds.thresholds[self.labels]
        self.slack = np.where(which, reached - 1e-6 * (1 + reached), self.slack)

    def move(self, before: np.ndarray, after: np.ndarray) -> int:
        """Go on to other centroids, check all rows, and return how many were looked at."""
        own = distances(self.X, before)[np.arange(len(self.X)), self.labels]
        radii = np.zeros(len(before))
        np.maximum.at(radii, self.labels, own * (1 + 1e-9))
        self.bounds, _ = self.bounds.after(before, after, radii)
        is_open = ~(self.bounds.thresholds[self.labels] < self.slack)
        nearest = distances(self.X, after).argmin(axis=1)
        assert (nearest == self.labels)[~is_open].all()
        self.look(after, is_open)
        return int(is_open.sum())


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_closed_rows_keep_their_nearest_centroid(d: int, k: int, seed: int) -> None:
    """Centroids that march, jump, rest or shiver, for 30 moves."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, d)) + rng.integers(0, 4, size=(200, 1)) * 8
    centroids = X[rng.integers(200, size=k)] + rng.normal(size=(k, d)) * 1e-3
    rows = Rows(X, centroids)
    goal, speed = X[rng.integers(200, size=k)], rng.choice([0.0, 0.02, 0.2], size=(k, 1))
    for _ in range(30):
        after = centroids + speed * (goal - centroids) + 1e-4 * rng.normal(size=(k, d))
        if rng.random() < 0.1:
            after[rng.integers(k)] = X[rng.integers(200)] + 0.1
        rows.move(centroids, after)
        centroids = after


def test_what_moves_far_away_counts_only_when_it_comes_near() -> None:
    """A centroid that marches in small steps opens no row until it is in reach; then all of its way counts."""
    rng = np.random.default_rng(0)
    X = np.vstack((rng.normal(size=(100, 2)), rng.normal((60.0, 0.0), 1.0, size=(100, 2))))
    centroids = np.array([[0.0, 0.0], [60.0, 0.0], [60.0, 40.0]])
    rows = Rows(X, centroids)
    looked_at = []
    for step in range(120):
        after = centroids.copy()
        after[2] = [60.0 - 0.5 * step, 40.0 - step / 3]
        looked_at.append(rows.move(centroids, after))
        centroids = after
    assert looked_at[:20] == [0] * 20
    assert (rows.labels == 2).any()


@pytest.mark.parametrize("size", [1e200, np.inf])
def test_moves_beyond_all_numbers_open_every_row(size: float) -> None:
    """Where a movement overflows, no row is below its threshold any more."""
    before = np.zeros((3, 1))
    after = np.array([[0.0], [0.0], [size]])
    bounds, _ = Bounds.of(3).after(before, after, np.full(3, np.inf))
    assert not (bounds.thresholds < np.float32(1e38)).any()
    again, _ = bounds.after(after, before, np.full(3, np.inf))
    assert not (again.thresholds < np.float32(1e38)).any()
    assert not again.drift < 1e300


def test_more_clusters_than_pairs_are_kept_for() -> None:
    """With 513 clusters every movement counts: thresholds are the way of the own centroid and of the fastest other."""
    before, after = np.zeros((513, 1)), np.zeros((513, 1))
    after[7] = 2.0
    bounds, sq_shift = Bounds.of(513).after(before, after, np.zeros(513))
    assert bounds.owed.size == 0
    assert bounds.thresholds == pytest.approx(np.full(513, 2.0))
    assert sq_shift == 4.0
