"""The refinement of restarts: held against plain loops, never worse, and the same bits on every engine."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import api, breaths, kmeans, randoms, refine, search, spreads
from kmeans_dask.errors import ConfigError
from kmeans_dask.lloyd import FREE, Fit, Identity, Limits, Motion, Progress, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.model import from_bytes, to_bytes
from kmeans_dask.search import Search
from pipeline import run_job
from tests import naive, naive_search
from tests.blockings import Case, blocked, cases
from tests.engine_jobs import job, noise, result_files, write_files
from tests.test_minima import MINIMA, features

ME = Identity(2, 7)


def quiet(progress: Progress) -> None:
    """Do nothing."""


def refined(
    blocks: LocalBlocks, start: np.ndarray, motion: Motion = FREE, hook: Callable[[Progress], Any] = quiet
) -> tuple[Fit, Fit]:
    """Return the run from a start to its end, and what a refinement makes of it."""
    fit = lloyd(blocks, start, Limits(), ME, motion=motion)
    return fit, refine.refined(blocks, fit, Limits(), ME, hook, motion)


def rows_of(kind: str, n: int, seed: int) -> np.ndarray:
    """Return n rows of two features that sums and means hold exactly."""
    rng = np.random.default_rng(seed)
    if kind == "blobs":
        X = rng.integers(0, 3, (n, 2)) * 4 + rng.normal(size=(n, 2))
    elif kind == "grid":
        X = rng.integers(0, 4, (n, 2)).astype(float)
    else:
        X = np.repeat(rng.normal(size=(-(-n // 3), 2)), 3, axis=0)[:n]
    return np.round(X * 2**12) / 2**12


@pytest.mark.parametrize("kind", ["blobs", "grid", "copies"])
@pytest.mark.parametrize(("n", "k"), [(40, 4), (25, 3), (30, 7), (12, 2), (9, 9)])
def test_a_search_in_one_place_equals_the_loops(kind: str, n: int, k: int) -> None:
    """Every trial leads where plain loops lead, bit for bit: the same best centroids, and the same end."""
    X = rows_of(kind, n, seed=n + k)
    with blocked(X, (0, n // 2, n)) as blocks:
        fit, found = refined(blocks, X[:k])
    key, patience = (
        randoms.derived(ME.seed, "breaths"),
        max(5, 2 * k - 10, min(400, 40 * k, (90_000 // (n * 2 * k)) ** 2)),
    )
    expected = naive_search.searched(X, fit.centroids, key, patience, sq_shift=0.0)
    assert found.inertia == naive.inertia(X, naive.nearest(X, found.centroids), found.centroids)
    end = naive.lloyd(X, expected)
    if end.inertia < fit.inertia:
        assert found.centroids.tolist() == end.centroids.tolist()
        assert found.inertia < fit.inertia
    else:
        assert found.centroids.tolist() == fit.centroids.tolist()


@pytest.mark.parametrize("tol", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(4))
def test_passes_and_one_place_agree(seed: int, tol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search by passes over blocks takes the same way as one over the same rows at once."""
    monkeypatch.setattr(search, "_RUNS", 1000)
    monkeypatch.setattr(search, "_ALL", 1000)
    monkeypatch.setattr(search, "_patience", search._patience_of_few)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1500, 8)) + 2 * rng.integers(0, 3, (1500, 8)) * (rng.random(8) < 0.5)
    with blocked(X, (0, 700, 1100, 1500)) as blocks:
        fit = lloyd(blocks, X[:6], Limits(sq_shift=tol), ME)
        limits = Limits(sq_shift=tol)
        by_passes, at_once = (Search.after(fit, limits, ME, quiet, FREE) for _ in range(2))
        a, b = by_passes.by_passes(blocks), at_once.at_once(X, blocks.summary)
    assert a.tobytes() == b.tobytes()
    assert by_passes.breaths == at_once.breaths > 5
    assert by_passes.lowest.inertia == pytest.approx(
        at_once.lowest.inertia, rel=1e-12
    )  # sums of another order
    assert by_passes.lowest.inertia < fit.inertia


@settings(max_examples=15)
@given(cases(), st.booleans())
def test_never_worse_and_the_same_for_any_blocks(case: Case, passes: bool) -> None:
    """Whatever the rows, weights, duplicates and empty clusters: not above the run before, and no bit by blocks."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        if passes:
            patch.setattr(refine, "FEW", 0)
        patch.setattr(search, "_MOST", 10)
        for cuts, threads in ((case.cuts, case.n_threads), ((0, len(case.X)), 1)):
            with blocked(case.X, cuts, case.weights, threads) as blocks:
                fit, better = refined(blocks, case.start)
            assert better.inertia <= fit.inertia
            found.append(
                (better.centroids.tobytes(), better.sizes, better.inertia, better.n_iter, better.breaths)
            )
    assert found[0] == found[1]


@pytest.mark.parametrize("few", [True, False])
def test_weights_equal_repeats(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By passes over few rows, whole weights give the bits of repeated rows; times a power of two they change nothing.

    Of more rows than a sample holds, others may be drawn to tell the axes by.
    """
    monkeypatch.setattr(refine, "FEW", 2**20 if few else 0)
    X, weights = rows_of("blobs", 300, seed=5), np.random.default_rng(5).integers(1, 4, 300)
    found = kmeans(X, 7, init=X[:7], weights=weights, refine=True)
    assert found.breaths > 5
    scaled = kmeans(X, 7, init=X[:7], weights=weights * 0.25, refine=True)
    assert scaled.centroids.tobytes() == found.centroids.tobytes()
    assert (scaled.inertia * 4, scaled.n_iter) == (found.inertia, found.n_iter)
    monkeypatch.setattr(refine, "FEW", 0)
    with api.prepared_blocks_of(np.repeat(X, weights, axis=0), found.preparation) as blocks:
        again = kmeans(blocks, 7, init=X[:7], refine=True, preparation=found.preparation)
    assert again.centroids.tobytes() == found.centroids.tobytes()


def test_cosine_is_refined() -> None:
    """Centroids stay of unit length, and directions that a start lacks are found."""
    rng = np.random.default_rng(8)
    directions = np.eye(6)
    X = (directions[np.repeat(np.arange(6), 50)] + 0.1 * rng.normal(size=(300, 6))) * rng.lognormal(
        size=(300, 1)
    )
    plain, found = (kmeans(X, 6, init=X[:6], metric="cosine", refine=refine) for refine in (False, True))
    assert found.inertia < 0.5 * plain.inertia
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-15)
    assert sorted(found.centroids_in_units().argmax(axis=1).tolist()) == list(range(6))


def test_cosine_is_refined_where_directions_are_diffuse() -> None:
    """Means are far shorter than rows: the axes are around the means, not along the centroids."""
    rng = np.random.default_rng(9)
    directions = np.linalg.qr(rng.normal(size=(60, 60)))[0][:12]
    X = np.repeat(directions, 400, axis=0) + 0.11 * rng.normal(size=(4800, 60))
    X /= np.linalg.norm(X, axis=1)[:, None]
    with blocked(X, (0, len(X)), n_threads=1) as blocks:
        spread = spreads.Spread.of(blocks, 12, around_means=True)
        axes, _ = spread.shapes(directions)
        assert np.abs((axes * directions).sum(axis=1)).max() < 0.6
        along, _ = replace(spread, around_means=False).shapes(directions)
        assert np.abs((along * directions).sum(axis=1)).min() > 0.6
    # One direction has two centroids, and the last two directions share one.
    start = np.concatenate((X[:2], directions[1:10], directions[10:11] + directions[11:]))
    plain, found = (kmeans(X, 12, init=start, metric="cosine", refine=refine) for refine in (False, True))
    nearest = np.abs(found.centroids_in_units() @ directions.T)
    assert found.inertia < plain.inertia
    assert sorted(nearest.argmax(axis=1).tolist()) == list(range(12))


@pytest.mark.parametrize(("d", "weighted"), [(1, False), (3, True), (16, False), (16, True)])
def test_axes_are_those_of_the_rows(d: int, weighted: bool) -> None:
    """Against the eigenvectors of each cluster's scatter: the axis, and its share of the inertia, nearly."""
    rng = np.random.default_rng(d)
    stretched = rng.normal(size=(900, d)) * np.array([3.0, *np.linspace(1.0, 0.2, d - 1)])
    labels = rng.integers(0, 3, 900).astype(np.int32)
    turns = [np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(3)]
    rows = np.array([turns[j] @ x for j, x in zip(labels, stretched, strict=True)])
    weights = rng.integers(0, 4, 900).astype(float) if weighted else np.ones(900)
    centres = breaths.means_of(rows, weights, labels, np.zeros((5, d)))
    axes, shares = breaths.axes_of(rows, weights, labels, centres)
    for j in range(3):
        some = rows[labels == j] - np.average(rows[labels == j], axis=0, weights=weights[labels == j])
        values, vectors = np.linalg.eigh((some * weights[labels == j, None]).T @ some)
        assert abs(axes[j] @ vectors[:, -1]) > 0.99
        assert shares[j] == pytest.approx(values[-1] / values.sum(), rel=0.01)
    assert (axes[3:] == 0).all()
    assert (shares[3:] == 1).all()


@pytest.mark.parametrize(("d", "k", "n_rows"), [(2, 9, 4096), (3, 300, 4800), (1500, 300, 1398)])
def test_a_sample_of_enough_rows_tells_the_spread(d: int, k: int, n_rows: int) -> None:
    """The same rows from any blocks; more for many clusters, fewer of wide ones; clusters without a row are told of."""
    X = np.random.default_rng(1).normal(size=(5000, d)).astype(np.float32)
    found = []
    for cuts in ((0, 5000), (0, 100, 100, 3000, 5000)):
        with blocked(X, cuts) as blocks:
            spread = spreads.Spread.of(blocks, k, around_means=False)
            assert spread.rows.shape == (n_rows, d)
            found.append(spread.shapes(X[:k].astype(np.float64)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    lengths = np.linalg.norm(found[0][0], axis=1)
    assert (np.isclose(lengths, 1) | (lengths == 0)).all()


def test_a_search_ends_by_all_of_its_breaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many may fail in a row, a quarter more are made in all, and 20 in any case."""
    X = np.random.default_rng(4).normal(size=(1500, 8))
    monkeypatch.setattr(search, "_RUNS", 10**6)
    for patience, n_breaths in ((5, 20), (40, 50)):
        monkeypatch.setattr(search, "_patience", lambda size, k, patience=patience: patience)
        monkeypatch.setattr(breaths, "advance", counted)
        with blocked(X, (0, 700, 1500)) as blocks:
            one = Search.after(lloyd(blocks, X[:30], Limits(), ME), Limits(), ME, quiet, FREE)
            one.by_passes(blocks)
        assert one.breaths == n_breaths


def counted(state: np.ndarray, lowest: float, inertia: float) -> None:
    """Go on to the next breath as if none had failed."""
    state[2] += 1


def test_frozen_centroids_keep_their_bits_and_places() -> None:
    """Others are moved around them, and the inertia falls; all frozen: nothing to search."""
    X = rows_of("blobs", 400, seed=1)
    start = np.concatenate((X[:2], X[:1] + 0.01, X[:1] - 0.01, X[:1] + 0.02))
    for frozen in ((1,), (0, 3)):
        with blocked(X, (0, 150, 400)) as blocks:
            fit, found = refined(blocks, start, Motion(frozen=frozen))
        assert found.centroids[list(frozen)].tobytes() == start[list(frozen)].tobytes()
        assert found.inertia < fit.inertia
    with blocked(X, (0, 400)) as blocks:
        fit, found = refined(blocks, start, Motion(frozen=(0, 1, 2, 3, 4)))
    assert found is fit


def test_what_cannot_be_refined_is_left() -> None:
    """One cluster, no error left, or a run that met a limit."""
    X = rows_of("blobs", 50, seed=2)
    with blocked(X, (0, 50)) as blocks:
        for start, limits in ((X[:1], Limits()), (X, Limits()), (X[:5], Limits(max_iter=1))):
            fit = lloyd(blocks, start, limits, ME)
            assert refine.refined(blocks, fit, limits, ME, quiet, FREE) is fit
    with pytest.warns(UserWarning, match=r"distinct clusters \(2\) found smaller than n_clusters \(4\)"):
        assert kmeans([[0.0], [1.0], [1.0], [0.0]], 4, refine=True).inertia == 0


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("cuts", [(0, 1000, 3000), (0, 3000)])
def test_the_hook_ends_a_search(few: bool, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that says stop, and the deadline, end the search with the best so far; iterations are counted on."""
    monkeypatch.setattr(refine, "FEW", 2**20 if few else 0)
    X = rows_of("blobs", 3000, seed=3)
    seen: list[Progress] = []

    def hook(progress: Progress) -> bool:
        seen.append(progress)
        return progress.inertia < seen[0].inertia

    with blocked(X, cuts) as blocks:
        fit, found = refined(blocks, X[:9], hook=hook)
        assert (found.stop, found.n_iter) == ("stopped", seen[-1].iteration)
        assert found.inertia < fit.inertia
        assert found.inertia == pytest.approx(seen[-1].inertia, rel=1e-12)
        assert found.sizes == lloyd_sizes(X, found.centroids)
        assert [p.iteration for p in seen] == sorted({p.iteration for p in seen})
        assert seen[0].iteration > fit.n_iter
        late = replace(Limits(), deadline=time.monotonic())
        ended = refine.refined(blocks, fit, late, ME, quiet, FREE)
        assert ended.stop == "max_seconds"
        assert ended.inertia <= fit.inertia


def lloyd_sizes(X: np.ndarray, centroids: np.ndarray) -> tuple[int, ...]:
    """Return the rows of each cluster."""
    return tuple(np.bincount(naive.nearest(X, centroids), minlength=len(centroids)).tolist())


@pytest.mark.parametrize("name", MINIMA)
def test_few_refined_restarts_reach_the_proven_minima(shared_data: Path, name: str) -> None:
    """Five of them end within 1e-6 of the proven minimum of 2 to 10 clusters."""
    X = features(shared_data, name)
    for k, minimum in enumerate(MINIMA[name], start=2):
        found = kmeans(X, k, n_init=5, refine=True, tol=0, dtype="float64").inertia
        assert found == pytest.approx(minimum, rel=1e-6), k


def test_a_model_tells_its_search() -> None:
    """Breaths are stored; a model of before has none; a given start is left alone unless asked."""
    X = rows_of("blobs", 500, seed=4)
    model = kmeans(X, 5)
    assert model.breaths > 0
    assert model.n_iter > len(model.history)
    files = to_bytes(model)
    assert from_bytes(*files.values()).breaths == model.breaths
    old = files["model.json"].replace(b' "breaths": %d,\n' % model.breaths, b"")
    assert from_bytes(old, files["model.parquet"]).breaths == 0
    assert kmeans(X, 5, init=X[:5]).breaths == kmeans(X, 5, init=model).breaths == 0
    assert kmeans(X, 5, init=X[:5], refine=True).breaths > 0
    assert kmeans(X, 5, refine=False).breaths == 0
    with pytest.raises(ConfigError, match="refine must be 'auto', True or False; found 'yes'"):
        kmeans(X, 5, refine="yes")  # type: ignore[arg-type]


def test_a_job_refines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job file's key does the same on workers as here, by passes over their blocks; the manifest tells it."""
    monkeypatch.setattr(refine, "FEW", 0)
    source = write_files(tmp_path / "data", noise(4000), files=2, group_rows=500)
    runs = []
    for name, dask, keys in (
        ("here", None, {"n_init": "auto"}),
        ("workers", {"workers": 2, "block_bytes": "1KiB"}, {"n_init": "auto"}),
        ("plain", None, {"n_init": 1}),
    ):
        (tmp_path / name).mkdir()
        runs.append(run_job(job(tmp_path / name, source, dask=dask, n_clusters=12, **keys)))
    here, workers, plain = runs
    assert result_files(workers) == result_files(here)
    assert here.manifest["job"]["kmeans"]["refine"] == "auto"
    assert here.manifest["result"]["breaths"] == here.model.breaths > 5
    assert plain.model.breaths == 0
    assert here.model.inertia < plain.model.inertia
