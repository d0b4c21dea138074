"""MiniBatchKMeans: each centroid is the mean of the rows it has followed, and a seed gives the same bits anywhere."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from kmeans_dask import KMeans, MiniBatchKMeans, api
from kmeans_dask.batches import Rows, batches, taken
from kmeans_dask.errors import ConfigError, TooFewSamplesError
from kmeans_dask.model import to_bytes
from tests.estimator_data import KINDS, array, as_kind, blobs, same

X = blobs(3000, 3)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """NumPy or Dask."""
    return str(request.param)


def test_two_batches_by_hand(kind: str) -> None:
    """The first batch is clustered; the second moves each centroid to the mean of all its rows so far."""
    km = MiniBatchKMeans(2, random_state=0).partial_fit(as_kind(kind, [[0.0], [1], [10], [11]]))
    assert km.cluster_centers_.tolist() == [[0.5], [10.5]]
    assert (km.inertia_, km.n_iter_, array(km.labels_).tolist()) == (1.0, 1, [0, 0, 1, 1])
    km.partial_fit(as_kind(kind, [[2.0], [12], [12]]))
    assert km.cluster_centers_.tolist() == [[1.0], [11.25]]
    assert (km.inertia_, km.n_iter_, array(km.labels_).tolist()) == (1 + 2 * 0.75**2, 2, [0, 1, 1])
    assert km.model_.sizes.tolist() == [3, 4]
    km.partial_fit(as_kind(kind, [[5.0], [100]]), sample_weight=as_kind(kind, [3.0, 0]))
    assert km.cluster_centers_.tolist() == [[3.0], [11.25]]


def followed(centroids: np.ndarray, weights: np.ndarray, batch: np.ndarray, of_rows: np.ndarray) -> None:
    """Let centroids follow the rows of a batch, in place."""
    labels = ((batch[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    for j in range(len(centroids)):
        mine = labels == j
        total = of_rows[mine].sum()
        if total:
            centroids[j] = (centroids[j] * weights[j] + of_rows[mine] @ batch[mine]) / (weights[j] + total)
            weights[j] += total


def test_a_stream_as_loops_follow_it(kind: str) -> None:
    """Every centroid is the weighted mean of the rows that were nearest to it when their batch came."""
    rows = np.random.default_rng(0).normal(size=(2000, 4))
    weights = np.random.default_rng(1).integers(0, 4, 2000).astype(float)
    km = MiniBatchKMeans(6, random_state=0)
    centroids = totals = np.empty(0)
    for first in range(0, 2000, 250):
        some = slice(first, first + 250)
        km.partial_fit(as_kind(kind, rows[some]), sample_weight=as_kind(kind, weights[some]))
        if first == 0:
            centroids, totals = km.cluster_centers_.copy(), np.bincount(array(km.labels_), weights[some])
        else:
            followed(centroids, totals, rows[some], weights[some])
        np.testing.assert_allclose(km.cluster_centers_, centroids, rtol=1e-9, atol=1e-12)
    assert km.n_iter_ == 8
    assert array(km.labels_).tolist() == km.predict(rows[1750:]).tolist()


def test_the_first_batch_is_clustered_exactly() -> None:
    """One call alone is `KMeans` without a search."""
    km = MiniBatchKMeans(5, random_state=3).partial_fit(X)
    expected = KMeans(5, random_state=3, refine=False).fit(X)
    assert km.cluster_centers_.tobytes() == expected.cluster_centers_.tobytes()
    assert km.labels_.tolist() == expected.labels_.tolist()


def test_fit_finds_the_blobs(kind: str) -> None:
    """Nearly the inertia of exact k-means; labels, inertia and score belong to the centroids in the end."""
    km = MiniBatchKMeans(8, batch_size=200, random_state=0).fit(as_kind(kind, X))
    exact = KMeans(8, random_state=0).fit(X)
    assert exact.inertia_ < km.inertia_ < 1.02 * exact.inertia_
    assert array(km.predict(as_kind(kind, X))).tolist() == array(km.labels_).tolist()
    assert km.score(as_kind(kind, X)) == -km.inertia_
    assert km.model_.sizes.tolist() == np.bincount(array(km.labels_)).tolist()
    assert km.n_iter_ == len(km.history_) + 1 > 20


@pytest.mark.parametrize("chunks", [(3000, 3), (700, 2), ((0, 1, 0, 2999), (1, 2))])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_chunks_change_no_bit(chunks: Any, metric: str) -> None:
    """The same batches are drawn whatever the chunks, and twice the same; another seed draws others."""
    weights = np.random.default_rng(0).integers(0, 3, len(X)) / 2

    def fit(rows: Any, seed: int = 0) -> MiniBatchKMeans:
        km = MiniBatchKMeans(6, batch_size=100, metric=metric, random_state=seed)
        return km.fit(rows, sample_weight=weights).partial_fit(rows[:500])

    expected = fit(X)
    found = fit(da.from_array(X, chunks=chunks))
    assert isinstance(found.labels_, da.Array)
    assert same(found, expected)
    assert same(fit(X), expected)
    assert not np.array_equal(fit(X, 1).cluster_centers_, expected.cluster_centers_)
    lengths = np.linalg.norm(found.cluster_centers_, axis=1)
    assert np.allclose(lengths, 1, rtol=1e-12) == (metric == "cosine")


def test_rows_by_their_ids() -> None:
    """However a block orders its rows, the drawn ids name the rows of the source, repeats included."""
    rows = np.random.default_rng(2).normal(size=(20_000, 3))
    weights = np.arange(20_000) % 7.0
    blocks, preparation = api.blocks_of(rows, weights=weights, n_threads=2)
    ids = np.sort(np.random.default_rng(0).integers(0, 20_000, 500))
    ids[1] = ids[0]
    with blocks:
        assert any(block.kept is not None for block in blocks.blocks)
        found = blocks.map_reduce(taken, ids, combine=Rows.joined)
    order = np.argsort(found.row_ids, kind="stable")
    assert found.row_ids[order].tolist() == ids.tolist()
    np.testing.assert_allclose(preparation.in_units(found.values[order]), rows[ids], rtol=1e-12)
    assert found.weights[order].tolist() == weights[ids].tolist()


def test_every_row_is_drawn_alike() -> None:
    """Over many batches each row comes about equally often; a batch as large as the data is the data."""
    rows = np.arange(50.0)[:, None]
    blocks, preparation = api.blocks_of(rows)
    drawn = []
    for _, batch in zip(range(400), batches(blocks, 20, seed=0), strict=False):
        drawn.append(preparation.in_units(batch.blocks[0].all_rows()).ravel())
        assert len(drawn[-1]) == 20
    counts = np.bincount(np.concatenate(drawn).astype(int), minlength=50)
    # 8000 draws: 160 of each row, with a standard deviation of 12.5
    assert counts.sum() == 8000
    assert np.abs(counts - 160).max() < 60
    whole = next(batches(blocks, 50, seed=0)).blocks[0]
    assert preparation.in_units(whole.all_rows()).ravel().tolist() == rows.ravel().tolist()


def test_a_stored_model_goes_on(tmp_path: Path) -> None:
    """Loaded, or given as init, it weighs as many rows as it was fitted to; `KMeans` may have fitted it."""
    first = MiniBatchKMeans(4, random_state=0).partial_fit(X[:1000])
    first.save(tmp_path)
    loaded = MiniBatchKMeans.load(tmp_path).partial_fit(X[1000:1500])
    given = MiniBatchKMeans(4, init=first.model_, random_state=0).partial_fit(X[1000:1500])
    copied = pickle.loads(pickle.dumps(first)).partial_fit(X[1000:1500])
    first.partial_fit(X[1000:1500])
    for other in (loaded, copied):
        assert to_bytes(other.model_) == to_bytes(first.model_)
    np.testing.assert_allclose(given.cluster_centers_, first.cluster_centers_, rtol=1e-12)
    exact = KMeans(4, random_state=0).fit(X)
    exact.save(tmp_path)
    moved = MiniBatchKMeans.load(tmp_path).partial_fit(exact.cluster_centers_[:1])
    np.testing.assert_allclose(moved.cluster_centers_, exact.cluster_centers_, rtol=1e-12)
    assert moved.to_sklearn().predict(X).tolist() == moved.predict(X).tolist()


@pytest.mark.parametrize(
    "init", ["k-means||", "k-means++", "random", X[:8], lambda X, k, random_state: X[:k]]
)
def test_every_start(kind: str, init: Any) -> None:
    """Methods, arrays and functions, in fit and in partial_fit; warnings name the caller's line."""
    km = MiniBatchKMeans(8, init=init, n_init=1, random_state=0).fit(as_kind(kind, X))
    assert km.inertia_ == -km.score(X)
    km = MiniBatchKMeans(8, init=init, n_init=1, random_state=0)
    for _ in range(3):
        km.partial_fit(as_kind(kind, X))
    assert km.n_iter_ == 3
    if isinstance(init, np.ndarray):
        for method in ("fit", "partial_fit"):
            with pytest.warns(RuntimeWarning, match="performing only one init instead of n_init=3") as caught:
                getattr(MiniBatchKMeans(8, init=init, n_init=3), method)(X)
            assert caught[0].filename == __file__


def test_limits(capsys: pytest.CaptureFixture[str]) -> None:
    """max_iter counts rows drawn, max_no_improvement batches; the callback sees each and may end it."""
    km = MiniBatchKMeans(8, batch_size=300, max_iter=3, max_no_improvement=None, random_state=0).fit(X)
    assert (km.n_iter_, km.model_.stop) == (31, "max_iter")
    km = MiniBatchKMeans(8, batch_size=300, max_no_improvement=5, random_state=0).fit(X)
    assert km.model_.stop == "tol"
    means = [float(np.mean([h.distortion for h in km.history_[a:b]])) for a, b in ((-5, None), (-10, -5))]
    assert means[0] >= means[1]
    seen: list[Any] = []
    km = MiniBatchKMeans(
        8, batch_size=300, random_state=0, verbose=1, callback=lambda p: seen.append(p) or p.iteration == 4
    ).fit(X)
    assert (km.n_iter_, km.model_.stop, len(seen)) == (5, "stopped", 4)
    assert len(capsys.readouterr().out.splitlines()) == 4
    km.partial_fit(X[:50])
    assert (seen[-1].iteration, seen[-1].inertia) == (6, km.inertia_)


def test_few_rows_with_weight() -> None:
    """The first batch grows until enough of its rows have weight; the others move nothing."""
    weights = np.zeros(len(X))
    weights[::500] = 1.0
    km = MiniBatchKMeans(3, batch_size=10, random_state=0).fit(X, sample_weight=weights)
    alone = KMeans(3, random_state=0).fit(X[::500])
    np.testing.assert_allclose(km.cluster_centers_, alone.cluster_centers_, rtol=1e-9)


def test_fewer_distinct_rows_than_clusters_warn() -> None:
    """As KMeans does, with both numbers."""
    with pytest.warns(
        ConvergenceWarning, match=r"clusters \(3\) found smaller than n_clusters \(4\)"
    ) as caught:
        MiniBatchKMeans(4, random_state=0).fit([[0.0, 0], [0, 1], [1, 0], [1, 0]])
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_kinds_of_numbers(kind: str, dtype: str) -> None:
    """float32 stays so, through batches of other kinds too; other numbers become float64."""
    km = MiniBatchKMeans(4, random_state=0).fit(as_kind(kind, (X * 3).astype(dtype)))
    expected = np.float32 if dtype == "float32" else np.float64
    assert km.cluster_centers_.dtype == expected
    assert km.partial_fit(as_kind(kind, X[:3].astype(dtype))).cluster_centers_.dtype == expected
    assert km.partial_fit(X[:3]).cluster_centers_.dtype == expected


def test_data_stay_unchanged() -> None:
    """Rows, weights and start are only read."""
    rows, weights, start = X.copy(), np.ones(len(X)), X[:4].copy()
    for values in (rows, weights, start):
        values.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        km = MiniBatchKMeans(4, init=start).fit(rows, sample_weight=weights).partial_fit(rows[:10])
    assert not np.shares_memory(km.cluster_centers_, start)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n_clusters": 4000}, r"n_samples=3000 should be >= n_clusters=4000"),
    ({"n_clusters": 0}, r"n_clusters must be an integer of at least 1; found 0"),
    ({"init": X[:2]}, r"initial centers \(2, 3\) does not match the number of clusters 8"),
    ({"init": X[:8, :2]}, r"initial centers \(8, 2\) does not match the number of features of the data 3"),
    ({"init": "means"}, r"init must be one of .*; found 'means'"),
    ({"n_init": "many"}, r"n_init must be 'auto' or an integer of at least 1; found 'many'"),
    ({"max_iter": 0}, r"max_iter must be an integer of at least 1; found 0"),
    ({"batch_size": 2.5}, r"batch_size must be an integer of at least 1; found 2\.5"),
    ({"max_no_improvement": 0}, r"max_no_improvement must be an integer of at least 1; found 0"),
    ({"tol": -1}, r"tol must be >= 0; found -1"),
    ({"metric": "l1"}, r"metric must be one of euclidean, cosine; found 'l1'"),
    ({"dtype": "int8"}, r"dtype must be 'float32', 'float64' or None; found 'int8'"),
    ({"random_state": "x"}, r"random_state must be an int .*; found 'x'"),
    ({"callback": 5}, r"callback must be a function or None; found 5"),
]


@pytest.mark.parametrize(
    ("params", "match"), WRONG, ids=[f"{next(iter(p))}-{i}" for i, (p, _) in enumerate(WRONG)]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_wrong_parameters(kind: str, method: str, params: dict[str, Any], match: str) -> None:
    """Each is a ValueError that names the parameter, the rule and what was found."""
    with pytest.raises(ValueError, match=match) as caught:
        getattr(MiniBatchKMeans(**params), method)(as_kind(kind, X))
    assert isinstance(caught.value, ConfigError | TooFewSamplesError)


def test_other_features_than_before(kind: str) -> None:
    """A later batch must have the features of the first."""
    km = MiniBatchKMeans(3, random_state=0).partial_fit(as_kind(kind, X))
    with pytest.raises(ValueError, match="X has 2 features, but MiniBatchKMeans is expecting 3 features"):
        km.partial_fit(as_kind(kind, X[:, :2]))
