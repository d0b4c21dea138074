"""Spherical k-means, frozen centroids, and a start for each restart."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans_dask import api, kmeans, predict
from kmeans_dask.errors import ConfigError, DataError
from kmeans_dask.model import from_bytes, to_bytes
from kmeans_dask.restarts import Settings, restarts_of
from pipeline import load_job, run_job
from tests.jobs import write_job

RNG = np.random.default_rng(3)
DIRECTIONS = RNG.normal(size=(5, 4))
ROWS = (DIRECTIONS[RNG.integers(0, 5, 600)] + 0.2 * RNG.normal(size=(600, 4))) * RNG.lognormal(size=(600, 1))


def spherical(X: np.ndarray, start: np.ndarray, n_iter: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centroids and labels by loops: the largest cosine, then the direction of the sum of unit rows."""
    units = np.array([row / np.sqrt(sum(x * x for x in row)) for row in X])
    centroids = np.array([c / np.sqrt(sum(x * x for x in c)) for c in start])
    for _ in range(n_iter):
        labels = np.array([int(np.argmax([float(row @ c) for c in centroids])) for row in units])
        for j in range(len(centroids)):
            total = units[labels == j].sum(axis=0)
            centroids[j] = total / np.sqrt(total @ total)
    return centroids, np.array([int(np.argmax([float(row @ c) for c in centroids])) for row in units])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosine_is_spherical_kmeans(dtype: str) -> None:
    """Centroids, labels and inertia are those of the plain algorithm; inertia is twice the sum of 1 - cosine."""
    model = kmeans(ROWS.astype(dtype), 5, init=ROWS[:5], metric="cosine", tol=0)
    centroids, labels = spherical(ROWS.astype(dtype), ROWS[:5], model.n_iter)
    atol = 1e-12 if dtype == "float64" else 1e-6  # rows of unit length are rounded to the stored dtype
    np.testing.assert_allclose(model.centroids_in_units(), centroids, atol=atol)
    np.testing.assert_allclose(np.linalg.norm(model.centroids, axis=1), 1, atol=1e-15)
    assert predict(model, ROWS.astype(dtype)).tolist() == labels.tolist()
    units = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    cosines = (units * centroids[labels]).sum(axis=1)
    assert model.inertia == pytest.approx(2 * (1 - cosines).sum(), rel=1e-5)
    inertias = [iteration.inertia for iteration in model.history]
    assert inertias == sorted(inertias, reverse=True)


def test_cosine_sees_directions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows times powers of two, other blocks and threads: the same bytes."""
    expected = to_bytes(kmeans(ROWS, 5, metric="cosine", n_init=3))
    factors = 2.0 ** RNG.integers(-9, 9, (600, 1))
    assert to_bytes(kmeans(ROWS * factors, 5, metric="cosine", n_init=3)) == expected
    monkeypatch.setattr(api, "_TILES_PER_BLOCK", 1)
    assert to_bytes(kmeans(ROWS, 5, metric="cosine", n_init=3, n_threads=1)) == expected
    stored = from_bytes(expected["model.json"], expected["model.parquet"])
    assert stored.preparation.metric == "cosine"
    assert predict(stored, ROWS).tolist() == predict(stored, ROWS * factors).tolist()


def test_a_row_without_direction_is_refused() -> None:
    """A row or a centroid of length 0 has no cosine; the row is named."""
    X = ROWS.copy()
    X[417] = 0
    with pytest.raises(DataError, match=r"row 417 has length 0, so metric='cosine'"):
        kmeans(X, 2, metric="cosine")
    with pytest.raises(ConfigError, match=r"no centroid of length 0 under metric='cosine'"):
        kmeans(ROWS, 2, metric="cosine", init=[[0, 0, 0, 0], [1, 1, 1, 1]])
    with pytest.raises(ConfigError, match=r"metric must be one of euclidean, cosine; found 'manhattan'"):
        kmeans(ROWS, 2, metric="manhattan")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_frozen_centroids_do_not_move(metric: str) -> None:
    """Frozen ones keep their bits; every other one is the mean, or its direction, of its rows."""
    start = ROWS[:4] / np.linalg.norm(ROWS[:4], axis=1, keepdims=True)
    once = kmeans(ROWS, 4, init=start, metric=metric, max_iter=1)
    model = kmeans(ROWS, 4, init=once, metric=metric, frozen_centroids=[2, 0], tol=0)
    assert model.stop == "converged"
    assert model.centroids[[0, 2]].tobytes() == once.centroids[[0, 2]].tobytes()
    assert not (model.centroids[[1, 3]] == once.centroids[[1, 3]]).any()
    labels = predict(model, ROWS)
    rows = ROWS if metric == "euclidean" else ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    for j in (1, 3):
        mean = rows[labels == j].mean(axis=0)
        expected = mean if metric == "euclidean" else mean / np.linalg.norm(mean)
        np.testing.assert_allclose(model.centroids_in_units()[j], expected, atol=1e-12)


def test_an_empty_frozen_cluster_stays_empty() -> None:
    """It takes no row from others, and is no sign of too few distinct rows."""
    start = np.vstack([np.full(4, 1e6), ROWS[:2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kmeans(ROWS, 3, init=start, frozen_centroids=[0], tol=0)
    assert model.sizes[0] == 0
    assert model.centroids_in_units()[0].tolist() == [1e6] * 4
    assert np.array_equal(model.centroids[1:], kmeans(ROWS, 2, init=start[1:], tol=0).centroids)


@pytest.mark.parametrize(
    ("frozen", "init", "match"),
    [
        ([3], ROWS[:3], r"from 0 to 2; found \[3\]"),
        ([-1], ROWS[:3], r"from 0 to 2; found \[-1\]"),
        ([1, 1], ROWS[:3], r"different indices of centroids, from 0 to 2; found \[1, 1\]"),
        ([0.5], ROWS[:3], r"found \[0.5\]"),
        ([True, False, True], ROWS[:3], r"found \[True, False, True\]"),
        ([0], "random", r"centroids of a given start; init is 'random'"),
    ],
)
def test_bad_frozen_centroids(frozen: Any, init: Any, match: str) -> None:
    """Indices outside the start, twice, no integers, or without a start."""
    with pytest.raises(ConfigError, match=match):
        kmeans(ROWS, 3, init=init, frozen_centroids=frozen)


def test_a_start_for_each_restart() -> None:
    """The best of the given starts wins, as if each had been tried by itself."""
    starts = np.stack([ROWS[i : i + 4] for i in (0, 7, 90)])
    model = kmeans(ROWS, 4, init=starts)
    single = [kmeans(ROWS, 4, init=start) for start in starts]
    best = min(range(3), key=lambda i: single[i].inertia)
    assert (model.restart, model.inertia) == (best, single[best].inertia)
    with pytest.raises(ConfigError, match=r"init must have shape \(4, 4\) .*; found \(3, 3, 4\)"):
        kmeans(ROWS, 4, init=starts[:, :3])


def test_automatic_restarts() -> None:
    """One for a given start, as many as starts, else ten."""
    assert len(restarts_of(Settings(2))) == len(restarts_of(Settings(2, "random"))) == 10
    assert len(restarts_of(Settings(2, ROWS[:2], n_init=7))) == 1
    assert len(restarts_of(Settings(2, ROWS[:6].reshape(3, 2, 4), n_init=7))) == 3
    with pytest.raises(ConfigError, match=r"n_init must be 'auto' or an integer of at least 1; found 'many'"):
        kmeans(ROWS, 2, n_init="many")  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_job_with_cosine_and_frozen_centroids(scale: str, tmp_path: Path) -> None:
    """The job file's keys do the same: a second run from the first one's model keeps the frozen centroids."""
    job = write_job(tmp_path, noise=5.0, init="random", metric="cosine", max_iter=1, tol=0)
    first = run_job(load_job(job, [f"prepare.scale={scale}"]))
    sets = [f"prepare.scale={scale}", "kmeans.init=out", "kmeans.frozen_centroids=[1]", "kmeans.max_iter=9"]
    second = run_job(load_job(job, sets))
    assert first.model.preparation.metric == second.model.preparation.metric == "cosine"
    np.testing.assert_allclose(np.linalg.norm(second.model.centroids, axis=1), 1, atol=1e-15)
    assert second.model.centroids[1].tobytes() == first.model.centroids[1].tobytes()
    assert second.model.centroids[0].tobytes() != first.model.centroids[0].tobytes()
