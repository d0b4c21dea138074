"""What a Python user calls: arrays in, a model out, and a clear error for each mistake."""

import logging
import platform
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kmeans_dask
from kmeans_dask import api, blocks_of, kmeans, predict
from kmeans_dask.api import labels_of
from kmeans_dask.errors import (
    ConfigError,
    DataError,
    KMeansError,
    ModelError,
    StopRequested,
    TooFewSamplesError,
)
from kmeans_dask.lloyd import Progress
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.model import Model, to_bytes
from kmeans_dask.packing import RowRange, Wishes, final, finish, pack, provisional
from kmeans_dask.restarts import Restart, Settings, best, fit_of, restarts_of
from tests import naive
from tests.blockings import Case, cases

ROOT = Path(__file__).parents[1]
SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])


def blobs(n: int = 300, dtype: str = "float64") -> np.ndarray:
    """Return rows around four corners, (n, 3)."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(n, 3)) + 8 * rng.integers(0, 2, size=(n, 3))).astype(dtype)


def same(a: Model, b: Model) -> bool:
    """Whether two models are stored as the same bytes."""
    return to_bytes(a) == to_bytes(b)


# Results ------------------------------------------------------------------------------------


def test_the_square_worked_by_hand() -> None:
    """Weights 3,1,1,3 from the corners: inertia 0.375, centroids an eighth inside, 2 iterations."""
    model = kmeans(SQUARE, 2, init=[[0, 0], [1, 1]], weights=[3, 1, 1, 3], tol=0)
    assert model.centroids_in_units().tolist() == [[0.125, 0], [0.875, 1]]
    assert (model.inertia, model.distortion, model.n_iter, model.stop) == (0.375, 0.375 / 8, 2, "converged")
    assert predict(model, SQUARE).tolist() == [0, 0, 1, 1]
    assert model.sizes.tolist() == [2, 2]
    assert model.cluster_ids.tolist() == [0, 1]
    refilled = kmeans(SQUARE, 2, init=[[0.5, 0.5], [3, 3]], tol=0)
    assert refilled.inertia == 0.25


def test_the_model_tells_how_it_came_to_be() -> None:
    """Names, seeds, start, history and sizes of the winning restart."""
    X = blobs()
    model = kmeans(X, 4, init="k-means++", n_init=3, seed=5)
    assert model.feature_names == ("x0", "x1", "x2")
    assert (model.n_clusters, model.init) == (4, "k-means++")
    assert model.seed == restarts_of(Settings(4, n_init=3, seed=5))[model.restart].seed
    assert [h.iteration for h in model.history] == list(range(1, model.n_iter + 1))
    assert model.history[0].changed == len(X)
    assert model.sizes.sum() == len(X)
    assert model.distortion == model.inertia / len(X)
    assert kmeans(X, 4, init=model, tol=0).init == "given"


@settings(max_examples=40)
@given(cases())
def test_predict_gives_the_labels_of_the_fit(case: Case) -> None:
    """On the rows of a fit: its sizes, and the canonical labels of the stored rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            model = kmeans(case.X, len(case.start), n_init=1, max_iter=5, weights=case.weights)
        except TooFewSamplesError:
            return
    labels = predict(model, case.X, n_threads=case.n_threads)
    assert np.bincount(labels, minlength=model.n_clusters).tolist() == model.sizes.tolist()
    blocks, _ = blocks_of(case.X)
    with blocks:
        stored = np.concatenate([block.all_rows() for block in blocks.blocks])
    assert labels.tolist() == naive.nearest(stored, model.centroids)


@pytest.mark.parametrize("scaling", ["none", "standard"])
@pytest.mark.parametrize("nulls", ["error", "mean"])
def test_predict_prepares_as_the_model_was(scaling: str, nulls: str) -> None:
    """A model of scaled data labels raw rows by the prepared ones."""
    X = blobs() * [1.0, 1000.0, 0.001]
    columns = list(X.T)
    ready = provisional(columns, Wishes(("x0", "x1", "x2"), "float32", nulls, scaling))
    with LocalBlocks([pack(columns, RowRange(0, len(X)), ready)]) as packed:
        done = final(packed, ready)
        blocks = packed.map_blocks(finish, done)
    model = kmeans(blocks, 4, n_init=2, preparation=done)
    labels = predict(model, X)
    assert np.bincount(labels, minlength=4).tolist() == model.sizes.tolist()
    assert labels.tolist() == naive.nearest(blocks.blocks[0].all_rows(), model.centroids)
    blocks.close()


def test_float32_stays_float32() -> None:
    """float32 rows are stored as they are; other numbers as float64, where float32 does not do, or as asked for."""
    for given_dtype, asked, named, stored in (
        ("float32", None, "float32", "float32"), ("float64", None, "float64", "float64"),
        ("int32", None, "float64", "float32"), ("float16", None, "float64", "float32"),
        ("uint8", "float32", "float32", "float32"), ("float32", "float64", "float64", "float64"),
        ("int32", "float64", "float64", "float64"),
    ):  # fmt: skip
        blocks, preparation = blocks_of(
            blobs(dtype=given_dtype) if given_dtype != "uint8" else [[1], [2]], dtype=asked
        )
        with blocks:
            assert preparation.dtype == named
            assert str(blocks.dtype) == stored


@pytest.mark.parametrize("kind", ["integers", "halves", "far integers", "weighted"])
@pytest.mark.parametrize("refine", [False, True])
def test_float64_in_half_the_memory_changes_no_bit(
    kind: str, refine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that float32 holds exactly are stored in it, and everything comes out as if they were not."""
    rng = np.random.default_rng(3)
    X = rng.integers(0, 16, size=(6000, 5)) + 4.0 * rng.integers(0, 3, size=(6000, 1))
    X = X / 2 + 3 if kind == "halves" else X + 2.0**40 if kind == "far integers" else X
    weights = rng.integers(0, 3, size=6000) if kind == "weighted" else None
    monkeypatch.setattr("kmeans_dask.refine.FEW", 2**16)
    found = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr("kmeans_dask.api.narrowed", lambda columns, preparation: preparation)
        blocks, preparation = blocks_of(X, weights=weights)
        with blocks:
            assert blocks.dtype == ("float64" if patched else "float32")
            assert preparation.dtype == "float64"
            model = kmeans(blocks, 9, preparation=preparation, refine=refine)
            labels = labels_of(model, blocks)
        found.append((model.centroids.tobytes(), model.inertia, model.n_iter, labels.tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize("x", [0.1, 2.0**24 + 1, 1e30])
def test_numbers_that_float32_does_not_hold_stay_float64(x: float) -> None:
    """One of them is enough, also far down."""
    X = np.arange(10_000.0)[:, None] % 7
    X[9000] = x
    blocks, _ = blocks_of(X)
    with blocks:
        assert blocks.dtype == "float64"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_order_changes_no_bit(dtype: str) -> None:
    """C order, Fortran order, slices and lists: the same model."""
    X = blobs(dtype=dtype)
    expected = kmeans(X, 4, n_init=2)
    wide = np.zeros((600, 6), dtype)
    wide[::2, 1::2] = X
    for other in (np.asfortranarray(X), wide[::2, 1::2], X[::-1][::-1]):
        assert same(kmeans(other, 4, n_init=2), expected)
        assert np.array_equal(predict(expected, other), predict(expected, X))
    if dtype == "float64":
        assert same(kmeans(X.tolist(), 4, n_init=2), expected)


def test_inputs_are_never_changed() -> None:
    """Data, weights and start are only read, writable or not."""
    X, weights, start = blobs(), np.ones(300), blobs()[:4].copy()
    copies = X.copy(), weights.copy(), start.copy()
    for array in (X, weights, start):
        array.flags.writeable = False
    for dtype in ("float32", "float64"):
        model = kmeans(X, 4, init=start, weights=weights, dtype=dtype)  # type: ignore[arg-type]
        predict(model, X)
    model.centroids[:] = 0
    assert all(np.array_equal(a, b) for a, b in zip((X, weights, start), copies, strict=True))


def test_threads_change_no_bit() -> None:
    """1, 2 and 3 threads give the same bytes, over restarts that run side by side."""
    X = blobs(5000)
    expected = to_bytes(kmeans(X, 6, n_init=4, n_threads=1))
    for n_threads in (2, 3):
        assert to_bytes(kmeans(X, 6, n_init=4, n_threads=n_threads)) == expected


def test_blocks_are_taken_with_their_preparation() -> None:
    """Blocks in place of an array are fitted as they are, and left open; what they hold already is not given twice."""
    X = blobs()
    blocks, preparation = blocks_of(X)
    with blocks:
        model = kmeans(blocks, 4, n_init=2, preparation=preparation)
        again = kmeans(blocks, 4, n_init=2, preparation=preparation)
        for wrong in ({}, {"preparation": preparation, "weights": np.ones(len(X))}):
            with pytest.raises(ConfigError, match="need the preparation that made them"):
                kmeans(blocks, 4, **wrong)
    assert same(model, again)
    assert same(model, kmeans(X, 4, n_init=2))
    assert np.bincount(predict(model, X)).tolist() == model.sizes.tolist()


def test_threads_end_with_the_fit() -> None:
    """A fit that ends, or fails, leaves no thread behind."""
    before = set(threading.enumerate())
    kmeans(blobs(), 4, n_init=2, n_threads=2)
    with pytest.raises(TooFewSamplesError):
        kmeans(blobs(3), 4, n_threads=2)
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith(("kmeans", "restart"))]
    for thread in left:
        thread.join(timeout=5)
    assert not [thread for thread in left if thread.is_alive()]


# Restarts -------------------------------------------------------------------------------------


def test_the_best_restart_wins_and_the_first_among_equals() -> None:
    """Lowest inertia; of equal ones the lowest index."""
    X = blobs()
    blocks, _ = blocks_of(X)
    with blocks:
        settings_ = Settings(9, "random", n_init=8, tol=0)
        fit = fit_of(blocks, settings_)
        fits = [fit(restart, lambda progress: None) for restart in restarts_of(settings_)]
    inertias = [f.inertia for f in fits]
    assert len(set(inertias)) > 1
    assert best(fits).restart == inertias.index(min(inertias))
    assert kmeans(X, 9, init="random", n_init=8, tol=0).inertia == min(inertias)
    assert best([fits[3], fits[3]]) is fits[3]


def test_seeds_of_restarts() -> None:
    """Derived from one, the same whatever their number; one run alone where the start is given."""
    ten = restarts_of(Settings(3, n_init=10, seed=7))
    assert ten[:3] == restarts_of(Settings(3, n_init=3, seed=7))
    assert len({restart.seed for restart in ten}) == 10
    assert all(0 <= restart.seed < 2**63 for restart in ten)
    assert ten[0] != restarts_of(Settings(3, n_init=10, seed=8))[0]
    given_start = restarts_of(Settings(3, np.zeros((3, 1)), n_init=10, seed=7))
    assert given_start == (Restart(0, ten[0].seed),)


# How a fit can be ended -----------------------------------------------------------------------


def test_the_hook_sees_every_restart_and_stops_one() -> None:
    """It is called once an iteration of each; True ends that restart, the others go on."""
    seen: list[Progress] = []
    lock = threading.Lock()

    def hook(progress: Progress) -> bool:
        with lock:
            seen.append(progress)
        return progress.restart == 1 and progress.iteration == 2

    X = np.random.default_rng(0).normal(size=(3000, 2))
    kmeans(X, 10, init="random", n_init=3, tol=0, hook=hook, n_threads=2)
    counts = [sum(p.restart == restart for p in seen) for restart in range(3)]
    assert counts[1] == 2
    assert min(counts[0], counts[2]) > 5
    only = kmeans(X, 10, init="random", n_init=1, tol=0, hook=lambda p: p.iteration == 3)
    assert (only.stop, only.n_iter) == ("stopped", 3)


@pytest.mark.parametrize("error", [StopRequested, KeyboardInterrupt, RuntimeError])
def test_what_the_hook_raises_comes_out(error: type[BaseException]) -> None:
    """An error in the hook abandons the fit and reaches the caller."""

    def hook(progress: Progress) -> None:
        raise error

    with pytest.raises(error):
        kmeans(blobs(), 4, hook=hook, n_threads=2)


def test_max_seconds_ends_a_fit() -> None:
    """The limit counts from the start of the fit, over all restarts."""
    X = np.random.default_rng(0).normal(size=(20_000, 3))
    started = time.monotonic()
    model = kmeans(
        X,
        60,
        init="random",
        n_init=2,
        tol=0,
        max_iter=100_000,
        max_seconds=0.2,
        hook=lambda p: time.sleep(0.02),
    )
    assert model.stop == "max_seconds"
    # An iteration under way is finished, and the restarts may run one after the other.
    assert time.monotonic() - started < 20
    assert np.bincount(predict(model, X), minlength=60).tolist() == model.sizes.tolist()
    assert kmeans(X, 3, n_init=1, max_seconds=0).n_iter == 1


def test_max_iter_and_tol() -> None:
    """Either ends a run with labels of its final centroids."""
    X = np.random.default_rng(0).normal(size=(2000, 2))
    two = kmeans(X, 20, init="random", n_init=1, tol=0, max_iter=2)
    loose = kmeans(X, 20, init="random", n_init=1, tol=0.1)
    tight = kmeans(X, 20, init="random", n_init=1, tol=0)
    assert (two.stop, two.n_iter) == ("max_iter", 2)
    assert (loose.stop, tight.stop) == ("tol", "converged")
    assert loose.n_iter < tight.n_iter
    for model in (two, loose, tight):
        assert np.bincount(predict(model, X), minlength=20).tolist() == model.sizes.tolist()


# Few distinct rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fewer_distinct_rows_than_clusters(init: str, dtype: str) -> None:
    """A warning names both numbers; the clusters left over have size 0 and inertia is 0."""
    X = np.repeat([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], 20, axis=0).astype(dtype)
    with pytest.warns(
        UserWarning,
        match=r"clusters \(3\) found smaller than n_clusters \(5\)\. Possibly due to duplicate points",
    ) as caught:
        model = kmeans(X, 5, init=init)
    assert caught[0].filename == __file__
    assert sorted(model.sizes.tolist()) == [0, 0, 20, 20, 20]
    assert model.inertia == 0
    assert np.isfinite(model.centroids).all()
    assert len(set(predict(model, X).tolist())) == 3


def test_a_cluster_left_empty_by_a_limit_is_told_apart() -> None:
    """Where the run may have ended too early to refill it, the warning says so."""
    X = np.arange(8.0)[:, None]
    start = [[3.5], [100.0], [200.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kmeans(X, 3, init=start, tol=0).sizes.min() > 0
    X = np.array([[1.0], [3.0], [2.0], [1.0]])
    with pytest.warns(UserWarning, match=r"\(2\) .* \(3\)\. .* or the run ended \(max_iter\) before"):
        kmeans(X, 3, init=[[3.0], [0.0], [0.0]], tol=0, max_iter=1)


def test_as_many_clusters_as_rows() -> None:
    """Each row is a cluster; one more is refused."""
    X = np.random.default_rng(0).normal(size=(7, 2))
    model = kmeans(X, 7)
    assert (model.inertia, model.sizes.tolist()) == (0, [1] * 7)
    with pytest.raises(
        TooFewSamplesError, match=r"n_clusters=8 needs at least 8 rows; the data hold 7\. Lower n_clusters"
    ):
        kmeans(X, 8)
    with pytest.raises(
        TooFewSamplesError, match=r"needs at least 3 rows of positive weight; the data hold 2"
    ):
        kmeans(X, 3, weights=[1, 1, 0, 0, 0, 0, 0])


def test_one_row_and_one_cluster() -> None:
    """The smallest data there are."""
    model = kmeans([[3.0, 4.0]], 1)
    assert model.centroids_in_units().tolist() == [[3, 4]]
    assert (model.inertia, model.n_iter, model.stop) == (0, 1, "tol") or model.stop == "converged"


# A start --------------------------------------------------------------------------------------


def test_a_stored_model_goes_on_where_it_ended() -> None:
    """As a start it is taken bit for bit: nothing changes, whatever the shift of the data."""
    X = blobs() + 1e6
    model = kmeans(X, 4, tol=0, seed=3)
    again = kmeans(X, 4, init=model, tol=0)
    assert again.n_iter == 2
    assert again.centroids.tobytes() == model.centroids.tobytes()
    assert again.inertia == model.inertia
    other = kmeans(X.astype(np.float32), 4, init=model, tol=0)
    np.testing.assert_allclose(
        other.centroids_in_units(), model.centroids_in_units(), rtol=1e-6
    )  # float32 rows


# Errors ---------------------------------------------------------------------------------------


def test_numbers_are_checked_on_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows, each thread checks a part: all that are wrong are counted."""
    parts, check = list[int](), api.n_not_finite

    def noted(X: np.ndarray, n_threads: int = 1) -> int:
        parts.append(len(X))
        return check(X, n_threads)

    monkeypatch.setattr(api, "n_not_finite", noted)
    X = np.zeros((300_001, 4), np.float32)
    X[[0, 100_000, 200_000, 300_000], 3] = np.nan, np.inf, -np.inf, np.nan
    with pytest.raises(DataError, match="data must be finite; found 4 NaN or infinite values"):
        kmeans(X, 2, n_threads=3)
    assert sorted(parts) == [99_999, 100_001, 100_001, 300_001]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ([1.0, 2.0], r"data must be \(n_samples, n_features\), neither zero; found shape \(2,\)\. Reshape it"),
        (np.empty((0, 3)), r"found shape \(0, 3\)"),
        (np.empty((3, 0)), r"found shape \(3, 0\)"),
        (np.zeros((2, 2, 2)), r"found shape \(2, 2, 2\)"),
        ([["a"], ["b"]], r"data must be numbers; found dtype <U1\. Encode them"),
        ([[True], [False]], r"data must be numbers; found dtype bool"),
        ([[1j]], r"data must be numbers; found dtype complex128"),
        ([[None], [1.0]], r"data must be numbers; found dtype object"),
        (np.array([["2026-11-21"]], "datetime64[D]"), r"data must be numbers; found dtype datetime64"),
        ([[1.0], [1.0, 2.0]], r"data must be an array of numbers \(.*\)\. Give rows of equal length"),
        ([[np.nan], [np.inf]], r"data must be finite; found 2 NaN or infinite values\. Drop or fill"),
        (np.array([[np.inf]], np.float32), r"data must be finite; found 1"),
    ],
    ids=["1-d", "no rows", "no columns", "3-d", "text", "bool", "complex", "object", "dates", "ragged", "nan", "inf"],
)  # fmt: skip
def test_bad_data_are_refused(data: Any, rule: str) -> None:
    """Each rule has its message, in a fit and in a prediction."""
    for call in (lambda: kmeans(data, 1), lambda: predict(kmeans([[1.0]], 1), data), lambda: blocks_of(data)):
        with pytest.raises(DataError, match=rule):
            call()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"n_clusters": 0}, r"n_clusters must be an integer of at least 1; found 0"),
        ({"n_clusters": -3}, r"n_clusters must be an integer of at least 1; found -3"),
        ({"n_clusters": 2.0}, r"n_clusters must be an integer of at least 1; found 2\.0"),
        ({"n_clusters": "2"}, r"n_clusters must be an integer of at least 1; found '2'"),
        ({"n_init": 0}, r"n_init must be an integer of at least 1; found 0"),
        ({"max_iter": 0}, r"max_iter must be an integer of at least 1; found 0"),
        ({"max_iter": 1.5}, r"max_iter must be an integer of at least 1; found 1\.5"),
        ({"tol": -1e-9}, r"tol must be >= 0; found -1e-09\. Use 0"),
        ({"tol": float("nan")}, r"tol must be >= 0; found nan"),
        ({"tol": None}, r"tol must be >= 0; found None"),
        ({"init": "kmeans++"}, r"init must be one of k-means\|\|, k-means\+\+, random, or centr.*; found 'kmeans\+\+'"),
        ({"init": [[1.0, 2.0]]}, r"init must have shape \(2, 3\) \(n_clusters, n_features\); found \(1, 2\)"),
        ({"init": [[1.0], [2.0]]}, r"init must have shape \(2, 3\).* found \(2, 1\)"),
        ({"init": [1.0, 2.0, 3.0]}, r"init must have shape \(2, 3\).* found \(3,\)"),
        ({"init": np.full((2, 3), np.nan)}, r"init must be finite; found NaN or infinity\. Mend"),
        ({"init": np.full((2, 3), 1e200)}, r"init must lie within 3\.12175e\+144 of the data; found 1e\+200"),
        ({"init": [["a"] * 3] * 2}, r"init must be an array of numbers"),
        ({"seed": 1.0}, r"seed must be an integer; found 1\.0"),
        ({"seed": None}, r"seed must be an integer; found None"),
        ({"seed": True}, r"seed must be an integer; found True"),
        ({"hook": 3}, r"hook must be a function of a Progress; found 3"),
        ({"preparation": blocks_of(blobs())[1]}, r"preparation belongs to blocks, and data is an array\. Give the bl"),
        ({"dtype": "float16"}, r"dtype must be 'float32' or 'float64'; found 'float16'"),
        ({"weights": [1.0, 2.0]}, r"weights must have shape \(300,\); found \(2,\)\. Give one weight per row"),
        ({"weights": np.ones((300, 1))}, r"weights must have shape \(300,\); found \(300, 1\)"),
        ({"weights": ["a"] * 300}, r"weights must be an array of numbers"),
        ({"weights": -np.ones(300)}, r"weights must be finite and >= 0; found -1\.0"),
        ({"weights": np.full(300, np.nan)}, r"weights must be finite and >= 0; found nan"),
        ({"weights": np.full(300, np.inf)}, r"weights must be finite and >= 0; found inf"),
        ({"weights": np.zeros(300)}, r"rows of positive weight; the data hold 0"),
        ({"weights": np.full(300, 1e308)}, r"the largest of weights must lie between .*; found 1e\+308"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_bad_arguments_are_refused(arguments: dict[str, Any], rule: str) -> None:
    """Each names the argument, the rule and the value found."""
    with pytest.raises(KMeansError, match=rule) as caught:
        kmeans(blobs(), **{"n_clusters": 2, **arguments})
    assert caught.value.exit_code == 2


def test_a_start_of_other_features_is_refused() -> None:
    """A model with other features, or another number of clusters, is no start; other columns are no prediction."""
    X = blobs()
    model = kmeans(X, 4, n_init=1)
    with pytest.raises(
        ModelError, match=r"init: the model has features x0, x1, x2; the data have x0, x1\. Choose"
    ):
        kmeans(X[:, :2], 4, init=model)
    with pytest.raises(ConfigError, match=r"init must have shape \(5, 3\).* found \(4, 3\)"):
        kmeans(X, 5, init=model)
    with pytest.raises(DataError, match=r"the model has 3 features; the data have 2\. Pass the same columns"):
        predict(model, X[:, :2])


def test_values_that_float32_cannot_square_are_refused() -> None:
    """The error names the feature and the dtype that would do."""
    X = blobs()
    X[7, 1] = 1e30
    with pytest.raises(DataError, match=r"feature 'x1': .*Set dtype = \"float64\""):
        kmeans(X, 2, dtype="float32")
    assert kmeans(X, 2, n_init=2, dtype="float64").sizes.min() == 1


# The package ----------------------------------------------------------------------------------


def test_the_public_names() -> None:
    """What the package offers, and nothing under another name."""
    assert sorted(kmeans_dask.__all__) == [
        "KMeansError",
        "Model",
        "blocks_of",
        "choose_k",
        "kmeans",
        "predict",
    ]
    assert all(getattr(kmeans_dask, name) is not None for name in kmeans_dask.__all__)
    with pytest.raises(AttributeError, match="no attribute 'KMean'"):
        kmeans_dask.KMean  # noqa: B018


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it compiles most kernels anew
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for the oldest x86-64")
def test_other_processors_give_the_same_bits(plain_processor: dict[str, str]) -> None:
    """Compiled for this processor, or for the oldest of its kind: the same bytes."""
    code = (
        "import sys, numpy as np; from kmeans_dask import kmeans; from kmeans_dask.model import to_bytes\n"
        "X = np.random.default_rng(1).normal(size=(3000, 5))\n"
        "for dtype in ('float32', 'float64'):\n"
        "    for data in to_bytes(kmeans(X, 9, n_init=1, tol=0, dtype=dtype)).values(): sys.stdout.buffer.write(data)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, env=env
        ).stdout
        for env in (None, plain_processor)
    ]
    assert found[0] == found[1] != b""


@given(st.integers(-(2**70), 2**70))
@settings(max_examples=10)
def test_any_integer_is_a_seed(seed: int) -> None:
    """Also a negative or a huge one."""
    assert kmeans(SQUARE, 2, n_init=1, seed=seed).n_clusters == 2


def test_nothing_is_printed_or_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A fit is silent; its hook is where progress goes."""
    with caplog.at_level(logging.INFO):
        kmeans(blobs(), 3, n_init=2)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("init", ["k-means++", "k-means||"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_fits_on_the_same_blocks_at_once_do_not_touch_each_other(init: str, n_threads: int) -> None:
    """Of the same seed, with other numbers of clusters: each is what it is alone."""
    X = np.random.default_rng(0).normal(size=(30_000, 3))
    blocks, preparation = blocks_of(X, n_threads=n_threads)
    numbers = (2, 7, 12, 20)

    def fit(n_clusters: int) -> bytes:
        model = kmeans(blocks, n_clusters, seed=5, n_init=1, init=init, max_iter=3, preparation=preparation)
        return model.centroids.tobytes()

    with blocks, ThreadPoolExecutor(4) as pool:
        alone = list(map(fit, numbers))
        for _ in range(15):
            assert list(pool.map(fit, numbers)) == alone


def test_numbers_below_all_others_are_packed() -> None:
    """Multiples of the smallest number, whose spread has no exponent of its own."""
    X = np.array([[0, 0], [0, 1], [3, 3], [3, 2.0]]) * 5e-324
    with pytest.warns(UserWarning, match="Number of distinct clusters"):  # their squares are 0
        assert kmeans(X, 2).sizes.sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_threads": -1}, "n_threads must be an integer of at least 1; found -1"),
        ({"n_threads": "2"}, "n_threads must be an integer of at least 1; found '2'"),
        ({"metric": "x"}, "metric must be one of euclidean, cosine; found 'x'"),
        ({"names": ["a"]}, "names must be a different one for each of the 4 features of the data; found"),
        ({"names": ["a", "a", "b", "c"]}, "names must be a different one for each of the 4 features"),
        ({"names": "abcd"}, "names must be a different one for each of the 4 features"),
    ],
)
def test_blocks_refuse_what_they_cannot_be(arguments: dict[str, Any], message: str) -> None:
    """Before any row is packed."""
    with pytest.raises(ConfigError, match=message):
        blocks_of(np.eye(4), **arguments)
