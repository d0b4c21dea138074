"""KMeans as scikit-learn's users know it: on NumPy arrays and on Dask arrays without a cluster."""

import os
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kmeans_dask
from kmeans_dask import BisectingKMeans, KMeans, MiniBatchKMeans, api
from kmeans_dask.errors import ConfigError, DataError, TooFewSamplesError
from kmeans_dask.model import to_bytes
from tests.estimator_data import KINDS, SQUARE, array, as_kind, blobs, same

X = blobs()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """NumPy or Dask."""
    return str(request.param)


# Results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_square_worked_by_hand(kind: str, dtype: str) -> None:
    """Weights 3,1,1,3 from the corners: labels, inertia, centroids and iterations."""
    data, weights = as_kind(kind, SQUARE.astype(dtype)), as_kind(kind, [3.0, 1, 1, 3])
    km = KMeans(2, init=SQUARE[[0, 3]]).fit(data, sample_weight=weights)
    assert array(km.labels_).tolist() == [0, 0, 1, 1]
    assert km.cluster_centers_.tolist() == [[0.125, 0], [0.875, 1]]
    assert (km.inertia_, km.distortion_, km.n_iter_) == (0.375, 0.375 / 8, 2)
    assert km.cluster_centers_.dtype == np.dtype(dtype)
    assert array(km.labels_).dtype == np.int32
    assert [h.iteration for h in km.history_] == [1, 2]


def test_one_iteration_by_hand(kind: str) -> None:
    """After one iteration: the means of the first labels, the labels by those means, and their inertia."""
    start = X[:5]
    km = KMeans(5, init=start, max_iter=1, tol=0).fit(as_kind(kind, X))
    first = ((X[:, None] - start) ** 2).sum(axis=2).argmin(axis=1)
    means = np.array([X[first == j].mean(axis=0) for j in range(5)])
    squares = ((X[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_allclose(km.cluster_centers_, means, rtol=1e-13)
    assert array(km.labels_).tolist() == squares.argmin(axis=1).tolist()
    assert km.inertia_ == pytest.approx(squares.min(axis=1).sum(), rel=1e-12)
    assert km.n_iter_ == 1


@pytest.mark.parametrize(
    ("start", "rows", "weights", "centers"),
    [
        (SQUARE[[1, 1]] + [[0, 0.5], [2.5, 3]], SQUARE, None, [[0.25, 0], [0.75, 1]]),
        ([[-1.0], [10.0]], [[-1.0], [1.0]], [1.9, 0.1], [[-1], [1]]),
    ],
)
def test_an_empty_cluster_takes_the_farthest_row(
    kind: str, start: Any, rows: Any, weights: Any, centers: Any
) -> None:
    """It is refilled, also where the farthest row weighs little."""
    km = KMeans(2, init=np.array(start), tol=0)
    km.fit(as_kind(kind, rows), sample_weight=None if weights is None else as_kind(kind, weights))
    assert sorted(set(array(km.labels_).tolist())) == [0, 1]
    assert sorted(km.cluster_centers_.tolist()) == centers


def test_refilling_among_duplicates_ends() -> None:
    """Many equal rows far away: refills go to distinct rows or none, and the fit ends."""
    rows = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]] + [[100.0, 100]] * 5)
    with pytest.warns(ConvergenceWarning, match=r"clusters \(5\) found smaller than n_clusters \(6\)"):
        km = KMeans(6, init=np.vstack([rows[:1]] * 6), tol=0).fit(rows)
    assert km.inertia_ == 0


def test_duplicates_warn(kind: str) -> None:
    """Fewer distinct rows than clusters: a ConvergenceWarning with both numbers, and labels without gaps."""
    rows = as_kind(kind, [[0.0, 0], [0, 1], [1, 0], [1, 0]])
    with pytest.warns(
        ConvergenceWarning, match=r"clusters \(3\) found smaller than n_clusters \(4\)"
    ) as caught:
        km = KMeans(4, random_state=0).fit(rows)
    assert caught[0].filename == __file__
    assert len(set(array(km.labels_).tolist())) == 3


@pytest.mark.parametrize("tol", [0, 1e-2])
def test_convergence(kind: str, tol: float) -> None:
    """Both kinds of end come well before max_iter; the strict one leaves every label at its nearest centroid."""
    rows = np.random.default_rng(2).normal(size=(2000, 6))
    km = KMeans(8, init=rows[:8], tol=tol, max_iter=1000).fit(as_kind(kind, rows))
    assert km.n_iter_ < 1000
    assert km.model_.stop == ("tol" if tol else "converged")
    again = KMeans(8, init=km.cluster_centers_, tol=tol, max_iter=1000).fit(rows)
    assert tol or np.array_equal(again.labels_, array(km.labels_))


def test_score_rises_with_iterations(kind: str) -> None:
    """More iterations, a higher score; and the score of the fit's rows is minus its inertia."""
    rows = np.random.default_rng(0).normal(size=(200, 4))
    fits = [KMeans(8, init=rows[:8], max_iter=n).fit(as_kind(kind, rows)) for n in (1, 2, 30)]
    scores = [km.score(as_kind(kind, rows)) for km in fits]
    assert scores == sorted(scores)
    assert scores[0] < scores[2]
    assert scores == [-km.inertia_ for km in fits]


def test_more_restarts_are_never_worse(kind: str) -> None:
    """The best of the first n restarts, for growing n."""
    rows = as_kind(kind, np.random.default_rng(1).normal(size=(300, 2)))
    inertias = [KMeans(9, init="random", n_init=n, random_state=0).fit(rows).inertia_ for n in (1, 4, 16)]
    assert inertias == sorted(inertias, reverse=True)


# Weights ------------------------------------------------------------------------------------


def test_weights_equal_repeats() -> None:
    """Whole weights: the same centroids and labels as repeating each row so often."""
    weights = np.random.default_rng(3).integers(1, 5, len(X))
    start = X[:6]
    weighted = KMeans(6, init=start).fit(X, sample_weight=weights)
    repeated = KMeans(6, init=start).fit(np.repeat(X, weights, axis=0))
    assert np.array_equal(np.repeat(weighted.labels_, weights), repeated.labels_)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-12)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-12)


def test_weights_are_relative(kind: str) -> None:
    """Ones change nothing; weights times a factor change the inertia alone."""
    plain = KMeans(4, random_state=0).fit(as_kind(kind, X))
    assert same(plain, KMeans(4, random_state=0).fit(as_kind(kind, X), sample_weight=np.ones(len(X))))
    weights = np.random.default_rng(3).integers(1, 5, len(X)) / 4
    once = KMeans(4, random_state=0).fit(as_kind(kind, X), sample_weight=weights)
    eight = KMeans(4, random_state=0).fit(as_kind(kind, X), sample_weight=as_kind(kind, weights * 8))
    assert np.array_equal(once.cluster_centers_, eight.cluster_centers_)
    one = KMeans(4, random_state=0).fit(as_kind(kind, X), sample_weight=8)
    assert (plain.inertia_ * 8, plain.distortion_) == (one.inertia_, one.distortion_)
    assert (once.inertia_ * 8, once.distortion_) == (eight.inertia_, eight.distortion_)


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
def test_rows_without_weight_never_count(kind: str, init: str) -> None:
    """Clusters lie among the rows of positive weight, whatever lies elsewhere; those elsewhere are labelled."""
    weights = (X[:, 0] < 4).astype(float)
    km = KMeans(3, init=init, random_state=0).fit(as_kind(kind, X), sample_weight=as_kind(kind, weights))
    assert (km.cluster_centers_[:, 0] < 4).all()
    assert len(array(km.labels_)) == len(X)
    score = km.score(as_kind(kind, X), sample_weight=as_kind(kind, weights))
    assert score == -km.inertia_


def test_weights_and_rows_stay_unchanged(kind: str) -> None:
    """Data, weights and start are only read, and share no memory with results."""
    rows, weights, start = X.copy(), np.ones(len(X)), X[:4].copy()
    for values in (rows, weights, start):
        values.flags.writeable = False
    km = KMeans(4, init=start).fit(as_kind(kind, rows), sample_weight=as_kind(kind, weights))
    assert not np.shares_memory(km.cluster_centers_, start)
    before = km.cluster_centers_.copy()
    array(km.predict(as_kind(kind, rows)))
    assert np.array_equal(km.cluster_centers_, before)


# Kinds of numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["int32", "int64", "uint8", "bool", "float16"])
def test_other_numbers_become_float64(kind: str, given: str) -> None:
    """Integers, booleans and half floats are stored as float64, with the results of those."""
    rows = X > 4 if given == "bool" else (np.abs(X) * 3).astype(given)
    km = KMeans(3, random_state=0).fit(as_kind(kind, rows))
    assert km.cluster_centers_.dtype == np.float64
    assert same(km, KMeans(3, random_state=0).fit(rows.astype(np.float64)))


def test_float32_against_float64(kind: str) -> None:
    """float32 rows stay float32, and give the results of float64 up to rounding."""
    narrow = KMeans(5, random_state=0).fit(as_kind(kind, X.astype(np.float32)))
    wide = KMeans(5, random_state=0).fit(as_kind(kind, X.astype(np.float32).astype(np.float64)))
    assert narrow.model_.preparation.dtype == "float32"
    assert narrow.transform(as_kind(kind, X.astype(np.float32))).dtype == np.float32
    np.testing.assert_allclose(narrow.cluster_centers_, wide.cluster_centers_, rtol=1e-5)
    assert narrow.inertia_ == pytest.approx(wide.inertia_, rel=1e-5)
    assert np.array_equal(array(narrow.labels_), array(wide.labels_))
    asked = KMeans(5, random_state=0, dtype="float32").fit(as_kind(kind, X))
    assert asked.model_.preparation.dtype == "float32"


def test_memory_order_changes_no_bit() -> None:
    """C order, Fortran order, slices, lists, read-only arrays: the same model."""
    expected = KMeans(4, random_state=0).fit(X)
    wide = np.zeros((600, 6))
    wide[::2, 1::2] = X
    for other in (np.asfortranarray(X), wide[::2, 1::2], X[::-1][::-1], X.tolist()):
        assert same(KMeans(4, random_state=0).fit(other), expected)


def test_any_number_of_threads() -> None:
    """One core or all: the same bytes."""
    rows = blobs(20_000)
    cores = os.sched_getaffinity(0)
    expected = KMeans(6, n_init=3, random_state=0).fit(rows)
    try:
        os.sched_setaffinity(0, {min(cores)})
        alone = KMeans(6, n_init=3, random_state=0).fit(rows)
    finally:
        os.sched_setaffinity(0, cores)
    assert same(alone, expected)


def test_rows_for_one_pass_are_not_ordered() -> None:
    """The fit orders its rows by nearness, predict and score do not: the same labels and the same inertia."""
    rows = blobs(20_000)
    km = KMeans(6, n_init=1, random_state=0).fit(rows)
    with api.blocks_of(rows)[0] as ordered, api.prepared_blocks_of(rows, km.model_.preparation) as plain:
        assert all(block.kept is not None for block in ordered.blocks)
        assert all(block.kept is None for block in plain.blocks)
    assert km.predict(rows).tolist() == km.labels_.tolist()
    assert km.score(rows) == -km.inertia_


def test_the_fit_is_that_of_the_function() -> None:
    """`kmeans` with the same seed finds the same clusters, numbered by their seeds instead of by place."""
    km = KMeans(5, random_state=7).fit(X)
    model = kmeans_dask.kmeans(X, 5, seed=7)
    assert (km.inertia_, km.n_iter_) == (model.inertia, model.n_iter)
    assert sorted(km.cluster_centers_.tolist()) == sorted(model.centroids_in_units().tolist())
    assert km.cluster_centers_.tolist() == sorted(km.cluster_centers_.tolist())


# Methods ------------------------------------------------------------------------------------


def test_predict_and_fit_predict(kind: str) -> None:
    """They give the labels of the fit; each centroid belongs to itself; pickling changes nothing."""
    km = KMeans(6, random_state=0)
    labels = array(km.fit_predict(as_kind(kind, X)))
    for fitted in (km, pickle.loads(pickle.dumps(km))):
        assert array(fitted.predict(as_kind(kind, X))).tolist() == labels.tolist()
        assert array(fitted.labels_).tolist() == labels.tolist()
        assert array(fitted.predict(as_kind(kind, km.cluster_centers_))).tolist() == list(range(6))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transform(kind: str, dtype: str) -> None:
    """Distances to each centroid; exactly zero from a centroid to itself, also far from the origin."""
    rows = (X + 1000).astype(dtype)
    km = KMeans(5, random_state=0).fit(as_kind(kind, rows))
    found = array(km.transform(as_kind(kind, km.cluster_centers_)))
    assert np.diag(found).tolist() == [0] * 5
    assert (found[~np.eye(5, dtype=bool)] > 0).all()
    far = array(km.transform(as_kind(kind, rows)))
    expected = np.sqrt(((rows[:, None].astype(float) - km.cluster_centers_) ** 2).sum(axis=2))
    np.testing.assert_allclose(far, expected, rtol=1e-6 if dtype == "float32" else 1e-12)
    assert np.array_equal(array(clone(km).fit_transform(as_kind(kind, rows))), far)
    assert (far**2).min(axis=1).sum() == pytest.approx(km.inertia_, rel=1e-5)


def test_replaced_centroids_are_used(kind: str) -> None:
    """Who sets `cluster_centers_` gets labels, distances and a score by those."""
    km = KMeans(2, init=X[:2]).fit(as_kind(kind, X))
    km.cluster_centers_ = km.cluster_centers_[::-1].copy()
    assert array(km.predict(as_kind(kind, X))).tolist() == (1 - array(km.labels_)).tolist()
    km.cluster_centers_ = np.zeros((2, 3))
    assert km.score(as_kind(kind, X)) == pytest.approx(-(X**2).sum(), rel=1e-12)
    assert set(array(km.predict(as_kind(kind, X))).tolist()) == {0}


def test_params_clone_pipeline_and_html() -> None:
    """The conventions that check_estimator does not try by name."""
    for estimator in (KMeans, BisectingKMeans, MiniBatchKMeans):
        km = estimator(3, metric="cosine", random_state=1, callback=print)
        assert clone(km).get_params() == km.get_params()
        assert km.set_params(n_clusters=4).n_clusters == 4
        assert estimator.__name__ in km._repr_html_()
        assert "n_clusters=4" in repr(km)
        fitted = clone(km).set_params(metric="euclidean", callback=None, n_init=1).fit(X)
        assert fitted.transform(X).tolist() == pickle.loads(pickle.dumps(fitted)).transform(X).tolist()
    pipe = make_pipeline(StandardScaler(), KMeans(3, random_state=0))
    assert (
        pipe.fit_predict(X).tolist()
        == KMeans(3, random_state=0).fit(StandardScaler().fit_transform(X)).labels_.tolist()
    )
    assert KMeans(3, random_state=0).fit(X).get_feature_names_out().tolist() == [
        "kmeans0",
        "kmeans1",
        "kmeans2",
    ]
    search = GridSearchCV(KMeans(n_init=1, random_state=0), {"n_clusters": [2, 8]}, cv=2).fit(X)
    assert search.best_params_ == {"n_clusters": 8}
    frame = KMeans(3, random_state=0).set_output(transform="pandas").fit_transform(X)
    assert frame.columns.tolist() == ["kmeans0", "kmeans1", "kmeans2"]
    with pytest.raises(NotFittedError):
        KMeans().predict(X)


# Start and end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "init", ["k-means||", "k-means++", "random", X[:4], X[:4].tolist(), lambda X, k, random_state: X[:k]]
)
def test_every_start(kind: str, init: Any) -> None:
    """Methods, arrays, lists and functions; NumPy scalars as numbers."""
    km = KMeans(np.int64(4), init=init, max_iter=np.int32(20), n_init=1, random_state=0)
    labels = array(km.fit(as_kind(kind, X)).labels_)
    assert set(labels.tolist()) == {0, 1, 2, 3}


def test_a_function_is_asked_for_each_restart() -> None:
    """It gets the data, n_clusters and another random state each time; the best start wins."""
    asked: list[float] = []

    def init(data: np.ndarray, k: int, random_state: np.random.RandomState) -> np.ndarray:
        assert data is X
        rows = random_state.randint(len(data), size=k)
        asked.append(float(data[rows].sum()))
        return data[rows]

    km = KMeans(5, init=init, n_init=4, random_state=3).fit(X)
    assert len(set(asked)) == 4
    assert km.inertia_ == min(
        KMeans(5, init=init, n_init=n, random_state=3).fit(X).inertia_ for n in (1, 2, 3, 4)
    )


def test_warm_start_from_a_model(kind: str) -> None:
    """The end of a fit as the start of another: nothing moves, bit for bit, and one pass confirms it."""
    first = KMeans(5, random_state=0, tol=0).fit(as_kind(kind, X))
    second = KMeans(5, init=first.model_, tol=0).fit(as_kind(kind, X))
    assert second.model_.centroids.tobytes() == first.model_.centroids.tobytes()
    assert second.n_iter_ <= 2
    third = KMeans(5, init=first.cluster_centers_, tol=0).fit(as_kind(kind, X))
    assert array(third.labels_).tolist() == array(first.labels_).tolist()


def test_cosine_and_frozen_centroids(kind: str) -> None:
    """Directions alone count: in labels, distances and scores; frozen centroids keep their bits."""
    rows = as_kind(kind, X + 10)
    km = KMeans(4, metric="cosine", random_state=0).fit(rows)
    np.testing.assert_allclose(np.linalg.norm(km.cluster_centers_, axis=1), 1, rtol=1e-12)
    assert array(km.predict(rows * 8)).tolist() == array(km.labels_).tolist()
    cosines = (X + 10) / np.linalg.norm(X + 10, axis=1, keepdims=True) @ km.cluster_centers_.T
    np.testing.assert_allclose(array(km.transform(rows)) ** 2, 2 - 2 * cosines, atol=1e-12)
    assert km.score(rows) == -km.inertia_
    frozen = KMeans(4, metric="cosine", init=km.model_, frozen_centroids=[0, 2]).fit(rows[:100])
    assert frozen.cluster_centers_[[0, 2]].tobytes() == km.cluster_centers_[[0, 2]].tobytes()
    assert frozen.cluster_centers_[1].tobytes() != km.cluster_centers_[1].tobytes()


def test_random_states() -> None:
    """The same number, the same bytes; a generator goes on; None differs."""
    once = KMeans(9, init="random", n_init=1, random_state=0).fit(X)
    assert same(once, KMeans(9, init="random", n_init=1, random_state=0).fit(X))
    for make in (np.random.RandomState, np.random.default_rng):
        state = make(5)
        first, second = (KMeans(9, init="random", n_init=1, random_state=state).fit(X) for _ in range(2))
        assert first.model_.seed != second.model_.seed
        assert (
            first.model_.seed == KMeans(9, init="random", n_init=1, random_state=make(5)).fit(X).model_.seed
        )
    assert len({KMeans(9, init="random", n_init=1).fit(X).model_.seed for _ in range(3)}) > 1


def test_verbose_and_callback(capsys: pytest.CaptureFixture[str]) -> None:
    """Each iteration is printed and told; a callback that returns True ends its restart."""
    seen: list[Any] = []
    km = KMeans(4, init=X[:4], verbose=1, callback=seen.append).fit(X)
    assert [p.inertia for p in seen] == [h.inertia for h in km.history_]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == km.n_iter_ + 1
    assert lines[0].startswith(f"restart 0: iteration 1, inertia {km.history_[0].inertia:.6g}, distortion")
    assert lines[-1] == f"restart 0 is the best, after {km.n_iter_} iterations: {km.model_.stop}"
    stopped = KMeans(4, init=X[:4], callback=lambda p: p.iteration == 2).fit(X)
    assert (stopped.n_iter_, stopped.model_.stop) == (2, "stopped")
    assert capsys.readouterr().out == ""
    timed = KMeans(8, init=np.random.default_rng(0).normal(size=(8, 3)), max_seconds=0, tol=0).fit(X)
    assert (timed.n_iter_, timed.model_.stop) == (1, "max_seconds")


def test_a_given_start_needs_one_restart(kind: str) -> None:
    """n_init beside centroids is warned of; "auto" is one, for a method without refinement ten."""
    with pytest.warns(RuntimeWarning, match="performing only one init instead of n_init=10") as caught:
        KMeans(4, init=X[:4], n_init=10).fit(as_kind(kind, X))
    assert caught[0].filename == __file__
    restarts: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KMeans(4, init=X[:4], callback=lambda p: restarts.add(p.restart)).fit(as_kind(kind, X))
        assert restarts == {0}
        KMeans(4, callback=lambda p: restarts.add(p.restart)).fit(as_kind(kind, X))
        assert restarts == {0}
        KMeans(4, refine=False, callback=lambda p: restarts.add(p.restart)).fit(as_kind(kind, X))
    assert restarts == set(range(10))


# Errors -------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n_clusters": 301}, r"n_samples=300 should be >= n_clusters=301"),
    ({"n_clusters": 0}, r"n_clusters must be an integer of at least 1; found 0"),
    ({"n_clusters": 2.5}, r"n_clusters must be an integer of at least 1; found 2\.5"),
    ({"init": X[:2]}, r"shape of the initial centers \(2, 3\) does not match the number of clusters 8"),
    ({"init": X[:8, :2]}, r"initial centers \(8, 2\) does not match the number of features of the data 3"),
    ({"init": lambda X, k, random_state: np.zeros((2, 3))}, r"\(2, 3\) does not match the number of clusters 8"),
    ({"init": lambda X, k, random_state: np.zeros((8, 2))}, r"\(8, 2\) does not match the number of features"),
    ({"init": np.full((8, 3), np.nan)}, r"init must be finite"),
    ({"init": "kmeans++"}, r"init must be one of k-means\|\|, k-means\+\+, random.*found 'kmeans\+\+'"),
    ({"init": 5}, r"initial centers \(\) does not match the number of clusters 8"),
    ({"init": {"a": 1}}, r"init must be a method, a model, a function, or an array of centroids"),
    ({"n_init": 0}, r"n_init must be an integer of at least 1; found 0"),
    ({"n_init": "many"}, r"n_init must be 'auto' or an integer of at least 1; found 'many'"),
    ({"max_iter": 0}, r"max_iter must be an integer of at least 1; found 0"),
    ({"tol": -1}, r"tol must be >= 0; found -1"),
    ({"tol": "low"}, r"tol must be >= 0; found 'low'"),
    ({"max_seconds": -1}, r"max_seconds must be >= 0, or None for no limit; found -1"),
    ({"random_state": "x"}, r"random_state must be an int .*; found 'x'"),
    ({"metric": "l1"}, r"metric must be one of euclidean, cosine; found 'l1'"),
    ({"dtype": "int8"}, r"dtype must be 'float32', 'float64' or None; found 'int8'"),
    ({"frozen_centroids": [1]}, r"frozen_centroids are centroids of a given start; init is 'k-means\|\|'"),
    ({"callback": 5}, r"callback must be a function or None; found 5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "match"), WRONG, ids=[f"{next(iter(p))}-{i}" for i, (p, _) in enumerate(WRONG)]
)
def test_wrong_parameters(kind: str, params: dict[str, Any], match: str) -> None:
    """Each is a ValueError that names the parameter, the rule and what was found."""
    with pytest.raises(ValueError, match=match) as caught:
        KMeans(**params).fit(as_kind(kind, X))
    assert isinstance(caught.value, ConfigError | TooFewSamplesError)


@pytest.mark.parametrize(
    ("rows", "weights", "match"),
    [
        (X[:, 0], None, "Expected 2D"),
        (np.where(X[7, 1] == X, np.nan, X), None, "NaN"),
        (np.where(X[7, 1] == X, np.inf, X), None, "infin"),
        (X[:0], None, "0 sample|n_samples=0"),
        (X, np.ones(299), r"\(300,\); found \(299,\)"),
        (X, np.ones((300, 1)), r"\(300,\); found \(300, 1\)"),
        (X, -np.ones(300), r"sample_weight must be finite and >= 0; found -1"),
        (X, np.zeros(300), r"n_clusters=3 needs at least 3 rows of positive weight; the data hold 0"),
        (np.full((300, 3), "a"), None, "could not convert|must be numbers; found dtype <U1"),
    ],
)
def test_wrong_data(kind: str, rows: Any, weights: Any, match: str) -> None:
    """ValueErrors with the numbers in them."""
    with pytest.raises(ValueError, match=match):
        KMeans(3).fit(as_kind(kind, rows), sample_weight=weights)


def test_other_features_than_in_the_fit(kind: str) -> None:
    """predict, transform and score tell both numbers."""
    km = KMeans(3, random_state=0).fit(as_kind(kind, X))
    for method in (km.predict, km.transform, km.score):
        with pytest.raises(ValueError, match="X has 2 features, but KMeans is expecting 3 features"):
            method(as_kind(kind, X[:, :2]))


def test_a_row_without_direction(kind: str) -> None:
    """Under cosine it is named, in fit and in transform."""
    rows = X.copy()
    km = KMeans(3, metric="cosine", random_state=0).fit(as_kind(kind, rows))
    rows[150] = 0
    with pytest.raises(DataError, match="row 150 has length 0"):
        KMeans(3, metric="cosine").fit(as_kind(kind, rows))
    with pytest.raises(DataError, match="has length 0"):
        array(km.transform(as_kind(kind, rows)))


def test_models_of_equal_fits_are_equal_bytes() -> None:
    """What is stored holds neither times nor places."""
    a, b = (KMeans(3, random_state=0).fit(as_kind(k, X)) for k in KINDS)
    assert to_bytes(a.model_) == to_bytes(b.model_)
