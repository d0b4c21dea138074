"""BisectingKMeans: each split is a 2-means of its cluster, the worst cluster is split, leaves are labels."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from kmeans_dask import BisectingKMeans, KMeans
from kmeans_dask.errors import ConfigError, DataError, TooFewSamplesError
from kmeans_dask.splits import STRATEGIES
from tests.estimator_data import KINDS, array, as_kind, blobs, same

X = np.random.default_rng(5).normal(size=(1500, 3))
INITS = ("k-means||", "k-means++", "random")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """NumPy or Dask."""
    return str(request.param)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("init", INITS)
def test_three_clusters_by_hand(kind: str, strategy: str, init: str) -> None:
    """Two towers, then the taller one in two: scikit-learn's example, and its centroids."""
    rows = [[1, 1], [10, 1], [3, 1], [10, 0], [2, 1], [10, 2], [10, 8], [10, 9], [10, 10]]
    km = BisectingKMeans(3, init=init, bisecting_strategy=strategy, random_state=0).fit(as_kind(kind, rows))
    assert array(km.labels_).tolist() == [0, 1, 0, 1, 0, 1, 2, 2, 2]
    assert km.cluster_centers_.tolist() == [[2, 1], [10, 1], [10, 9]]
    assert (km.inertia_, km.distortion_) == (6.0, 6 / 9)
    assert km.score(as_kind(kind, rows)) == -6.0


def halves(km: Any, rows: np.ndarray, strategy: str) -> None:
    """Assert that km with one cluster more splits one cluster, the worst, into two that are each other's 2-means."""
    finer = clone(km).set_params(n_clusters=km.n_clusters + 1).fit(rows)
    pairs = sorted(set(zip(km.labels_.tolist(), finer.labels_.tolist(), strict=True)))
    parents = [parent for parent, _ in pairs]
    (split,) = {parent for parent in parents if parents.count(parent) == 2}
    costs = [
        ((rows[km.labels_ == j] - km.cluster_centers_[j]) ** 2).sum()
        if strategy == "biggest_inertia"
        else (km.labels_ == j).sum()
        for j in range(km.n_clusters)
    ]
    assert split == int(np.argmax(costs))
    within = rows[km.labels_ == split]
    a, b = (child for parent, child in pairs if parent == split)
    squares = ((within[:, None] - finer.cluster_centers_[[a, b]]) ** 2).sum(axis=2)
    assert np.array([a, b])[squares.argmin(axis=1)].tolist() == finer.labels_[km.labels_ == split].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_split(strategy: str) -> None:
    """From one cluster to nine: the worst alone is split, by the nearer of the halves' own means."""
    for k in range(1, 9):
        km = BisectingKMeans(k, bisecting_strategy=strategy, tol=0, n_init=2, random_state=3).fit(X)
        for j in range(k):
            np.testing.assert_allclose(km.cluster_centers_[j], X[km.labels_ == j].mean(axis=0), rtol=1e-9)
        assert km.inertia_ == pytest.approx(((X - km.cluster_centers_[km.labels_]) ** 2).sum(), rel=1e-12)
        assert km.model_.sizes.tolist() == np.bincount(km.labels_).tolist()
        halves(km, X, strategy)


def test_a_leaf_need_not_be_the_nearest_centroid() -> None:
    """Labels follow the splits, in fit, predict and score alike; scikit-learn's follow them too."""
    km = BisectingKMeans(12, random_state=0).fit(X)
    nearest = km.transform(X).argmin(axis=1)
    assert (nearest != km.labels_).any()
    assert km.predict(X).tolist() == km.labels_.tolist()
    assert km.predict(X[::-7]).tolist() == km.labels_[::-7].tolist()
    assert km.score(X) == -km.inertia_
    assert pickle.loads(pickle.dumps(km)).predict(X).tolist() == km.labels_.tolist()


@pytest.mark.parametrize("chunks", [(1500, 3), (400, 2), ((0, 7, 0, 1493), (1, 2))])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_chunks_change_no_bit(chunks: Any, metric: str) -> None:
    """Any chunks give the model and the labels of the array, weighted too."""
    da = pytest.importorskip("dask.array")
    weights = np.random.default_rng(0).integers(0, 3, len(X)) / 2
    km = BisectingKMeans(6, n_init=2, metric=metric, random_state=0)
    expected = clone(km).fit(X, sample_weight=weights)
    found = km.fit(da.from_array(X, chunks=chunks), sample_weight=weights)
    assert isinstance(found.labels_, da.Array)
    assert same(found, expected)
    assert found.score(da.from_array(X, chunks=chunks), sample_weight=weights) == -expected.inertia_
    lengths = np.linalg.norm(found.cluster_centers_, axis=1)
    assert np.allclose(lengths, 1, rtol=1e-12) == (metric == "cosine")


def test_weights_equal_repeats() -> None:
    """Whole weights: the clusters of repeated rows; rows without weight are labelled and move nothing."""
    rows = blobs(200, 2)
    weights = np.random.default_rng(3).integers(0, 4, len(rows))
    weighted = BisectingKMeans(4, random_state=0).fit(rows, sample_weight=weights)
    repeated = BisectingKMeans(4, random_state=0).fit(np.repeat(rows, weights, axis=0))
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-12)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-12)
    assert np.repeat(weighted.labels_, weights).tolist() == repeated.labels_.tolist()


def test_one_cluster_is_the_mean(kind: str) -> None:
    """Nothing to split: one label, one mean."""
    km = BisectingKMeans(1, random_state=0).fit(as_kind(kind, X))
    np.testing.assert_allclose(km.cluster_centers_, X.mean(axis=0, keepdims=True), rtol=1e-9, atol=1e-15)
    assert set(array(km.labels_).tolist()) == {0}


def test_two_clusters_are_those_of_k_means(kind: str) -> None:
    """One split of all rows: KMeans with the best of many restarts."""
    rows = blobs(400, 2)
    km = BisectingKMeans(2, tol=0, random_state=0).fit(as_kind(kind, rows))
    assert km.inertia_ == KMeans(2, tol=0, random_state=1).fit(rows).inertia_


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_duplicates_warn(kind: str, strategy: str) -> None:
    """Fewer distinct rows than clusters: a warning with both numbers, and inertia 0."""
    rows = [[0.0, 0], [0, 1], [1, 0], [1, 0], [1, 0]]
    with pytest.warns(
        ConvergenceWarning, match=r"clusters \(3\) found smaller than n_clusters \(5\)"
    ) as caught:
        km = BisectingKMeans(5, bisecting_strategy=strategy, random_state=0).fit(as_kind(kind, rows))
    assert caught[0].filename == __file__
    assert km.inertia_ == 0
    assert len(set(array(km.labels_).tolist())) == 3
    assert array(km.predict(as_kind(kind, rows))).tolist() == array(km.labels_).tolist()


def test_cut_short_and_far_rows() -> None:
    """One iteration of each split, and rows far from those of the fit: every label is a leaf."""
    km = BisectingKMeans(10, max_iter=1, n_init=1, init="random", random_state=0).fit(X)
    assert sorted(set(km.labels_.tolist())) == list(range(10))
    far = km.predict(50 * np.random.default_rng(0).random((100, 3)))
    assert set(far.tolist()) <= set(range(10))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinds_of_numbers(kind: str, dtype: str) -> None:
    """float32 stays float32 and finds the clusters of float64."""
    rows = blobs(300, 2).astype(dtype)
    km = BisectingKMeans(4, random_state=0).fit(as_kind(kind, rows))
    assert km.cluster_centers_.dtype == km.transform(as_kind(kind, rows)).dtype == np.dtype(dtype)
    wide = BisectingKMeans(4, random_state=0).fit(rows.astype(np.float64))
    np.testing.assert_allclose(km.cluster_centers_, wide.cluster_centers_, rtol=1e-5)
    assert array(km.labels_).tolist() == wide.labels_.tolist()


def test_callback_and_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """The iterations of every split are told and printed."""
    seen: list[Any] = []
    BisectingKMeans(3, n_init=1, verbose=1, callback=seen.append, random_state=0).fit(X)
    assert len(capsys.readouterr().out.splitlines()) == len(seen) > 3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n_clusters": 0}, r"n_clusters must be an integer of at least 1; found 0"),
    ({"n_clusters": 2000}, r"n_samples=1500 should be >= n_clusters=2000"),
    ({"init": X[:2]}, r"init must be one of k-means\|\|, k-means\+\+, random; found array"),
    ({"init": "means"}, r"init must be one of .*; found 'means'"),
    ({"n_init": 0}, r"n_init must be an integer of at least 1; found 0"),
    ({"tol": -1}, r"tol must be >= 0; found -1"),
    ({"max_iter": 0}, r"max_iter must be an integer of at least 1; found 0"),
    ({"metric": "l1"}, r"metric must be one of euclidean, cosine; found 'l1'"),
    ({"dtype": "int8"}, r"dtype must be 'float32', 'float64' or None; found 'int8'"),
    ({"bisecting_strategy": "worst"}, r"bisecting_strategy must be one of .*; found 'worst'"),
    ({"random_state": "x"}, r"random_state must be an int .*; found 'x'"),
    ({"callback": 5}, r"callback must be a function or None; found 5"),
]


@pytest.mark.parametrize(
    ("params", "match"), WRONG, ids=[f"{next(iter(p))}-{i}" for i, (p, _) in enumerate(WRONG)]
)
def test_wrong_parameters(kind: str, params: dict[str, Any], match: str) -> None:
    """Each is a ValueError that names the parameter, the rule and what was found."""
    with pytest.raises(ValueError, match=match) as caught:
        BisectingKMeans(**params).fit(as_kind(kind, X))
    assert isinstance(caught.value, ConfigError | TooFewSamplesError)


def test_a_row_without_direction(kind: str) -> None:
    """Under cosine it is refused."""
    rows = X.copy()
    rows[150] = 0
    with pytest.raises(DataError, match="row 150 has length 0"):
        BisectingKMeans(3, metric="cosine").fit(as_kind(kind, rows))
