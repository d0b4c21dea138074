"""Scores: scikit-learn's where it has them, plain loops where it has not, and the same bits for any blocks."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from sklearn.datasets import load_digits, load_iris, load_wine

from kmeans_dask import api
from kmeans_dask.agreement import adjusted_rand, normalised_mutual_information, pairs
from kmeans_dask.errors import ConfigError, DataError
from kmeans_dask.metrics import Metrics, metrics
from kmeans_dask.samples import sampled, silhouettes
from tests import naive
from tests.blockings import Case, blocked, cases

SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])
MIDDLES = np.array([[0.25, 0.0], [0.75, 1.0]])


def bits(found: Metrics) -> list[object]:
    """Return every score, arrays as bytes."""
    values = [getattr(found, name) for name in Metrics.__slots__]
    return [value.tobytes() if isinstance(value, np.ndarray) else repr(value) for value in values]


def test_worked_by_hand() -> None:
    """The square in two pairs: each row 1/4 from its mean, the means sqrt(5)/2 apart."""
    with blocked(SQUARE) as blocks:
        found = metrics(blocks, MIDDLES)
        sample = sampled(blocks, 10, seed=0)
    assert (found.inertia, found.distortion) == (0.25, 0.0625)
    assert found.sizes.tolist() == [2, 2]
    assert found.spreads.tolist() == [0.25, 0.25]
    assert found.distance_quantiles.tolist() == [[0.25] * 4] * 2
    assert found.davies_bouldin == 0.5 / math.sqrt(1.25)
    assert found.calinski_harabasz == 1.25 * 2 / 0.25  # between the pairs 4 * 5/16; within 4 * 1/16
    others = [math.sqrt(0.75**2 + 1), math.sqrt(0.25**2 + 1)]
    assert found.simplified_silhouette == pytest.approx(sum(1 - 0.25 / b for b in others) / 2, rel=1e-15)
    apart = [(1 + math.sqrt(1.25)) / 2, (math.sqrt(1.25) + math.sqrt(2)) / 2]  # to the other pair's rows
    assert silhouettes(sample, [sample.labels(MIDDLES)]) == [
        pytest.approx(1 - 0.5 * np.mean([1 / b for b in apart]))
    ]


@pytest.mark.parametrize("max_iter", [1, 300])
@pytest.mark.parametrize(("load", "k"), [(load_iris, 3), (load_wine, 7), (load_digits, 10)])
def test_real_data_score_as_in_scikit_learn(load: object, k: int, max_iter: int) -> None:
    """Davies-Bouldin, Calinski-Harabasz and the silhouette equal scikit-learn's, also before convergence."""
    X = load().data  # type: ignore[operator]
    blocks, preparation = api.blocks_of(X)
    with blocks:
        model = api.kmeans(blocks, k, preparation=preparation, n_init=1, max_iter=max_iter)
        found, sample = metrics(blocks, model.centroids), sampled(blocks, len(X), seed=3)
    labels = api.predict(model, X)
    assert found.davies_bouldin == pytest.approx(sklearn.davies_bouldin_score(X, labels), rel=1e-12)
    assert found.calinski_harabasz == pytest.approx(sklearn.calinski_harabasz_score(X, labels), rel=1e-12)
    assert found.inertia == model.inertia
    assert found.sizes.tolist() == np.bincount(labels, minlength=k).tolist()
    assert sample.row_ids.tolist() == list(range(len(X)))
    (silhouette,) = silhouettes(sample, [sample.labels(model.centroids)])
    assert silhouette == pytest.approx(sklearn.silhouette_score(X, labels), rel=1e-9)


def test_many_labellings_at_once_are_those_of_each_alone() -> None:
    """Silhouettes of forty labellings into 250 clusters, held a few rows at a time, are those of one."""
    draw = np.random.default_rng(4)
    with blocked(draw.normal(size=(300, 2))) as blocks:
        sample = sampled(blocks, 300, seed=0)
    labellings = [draw.integers(0, 250, 300).astype(np.int32) for _ in range(40)]
    assert silhouettes(sample, labellings) == [silhouettes(sample, [one])[0] for one in labellings]


@settings(max_examples=80)
@given(cases())
def test_scores_are_the_plain_loops_on_any_blocks(case: Case) -> None:
    """Sizes, spreads, quantiles and simplified silhouettes are those of loops over rows; blocks change no bit."""
    with case.blocks() as blocks, blocked(case.X, (), case.weights) as one:
        found = metrics(blocks, case.start, quantiles=(0, 0.3, 0.5, 1))
        assert bits(metrics(one, case.start, quantiles=(0, 0.3, 0.5, 1))) == bits(found)
        samples = [sampled(some, 40, seed=1) for some in (blocks, one)]
    assert samples[0].row_ids.tolist() == samples[1].row_ids.tolist()
    assert samples[0].values.tobytes() == samples[1].values.tobytes()
    expected = naive.simplified_silhouettes(case.X, case.start, case.weights)
    assert found.silhouettes == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9, nan_ok=True)
    labels = naive.nearest(case.X, case.start)
    for j in range(len(case.start)):
        own = sorted(
            np.float32(math.sqrt(naive.sq_distance(x, case.start[j].tolist())))
            for x, label in zip(naive.rows_of(case.X), labels, strict=True)
            if label == j
        )
        assert found.sizes[j] == len(own)
        if own:
            ranks = [max(1, math.ceil(q * len(own))) for q in (0, 3 / 10, 0.5, 1)]
            assert found.distance_quantiles[j].tolist() == [own[rank - 1] for rank in ranks]
        else:
            assert np.isnan(found.distance_quantiles[j]).all()


@settings(max_examples=40)
@given(cases(kinds=("normal", "grid", "copies"), weighted=False))
def test_random_data_score_as_in_scikit_learn(case: Case) -> None:
    """Empty clusters and clusters of one row included; scikit-learn wants 2 to n - 1 clusters."""
    labels = naive.nearest(case.X, case.start)
    X = case.X.astype(np.float64)
    assume(2 <= len(set(labels)) < len(X))
    spread = max(np.ptp(X[np.array(labels) == j], axis=0).max() for j in set(labels))
    assume(spread > 1e-6)  # below, scikit-learn's Davies-Bouldin calls clusters points
    with case.blocks() as blocks:
        found, sample = metrics(blocks, case.start), sampled(blocks, len(X), seed=0)
        (silhouette,) = silhouettes(sample, [sample.labels(case.start)])
    # Means of labels can coincide up to rounding, where the index is not defined.
    score = sklearn.davies_bouldin_score(X, labels)
    assert found.davies_bouldin == pytest.approx(score, rel=1e-6) or score > 1e6
    assert found.calinski_harabasz == pytest.approx(
        sklearn.calinski_harabasz_score(X, labels), rel=1e-9, abs=1e-9
    )
    # scikit-learn's distances come from a matrix product, which loses half the digits of small ones.
    assert silhouette == pytest.approx(sklearn.silhouette_score(X, labels), abs=1e-6)


def test_weights_count_as_repeats() -> None:
    """A row of weight 3 scores as three equal rows, but for the sizes and the quantiles."""
    rng = np.random.default_rng(4)
    X, weights = rng.normal(size=(300, 3)), rng.integers(0, 4, 300).astype(np.float64)
    start = X[:5]
    repeated = np.repeat(X, weights.astype(int), axis=0)
    with blocked(X, (), weights) as weighted, blocked(repeated) as plain:
        a, b = metrics(weighted, start), metrics(plain, start)
    for name in ("inertia", "distortion", "simplified_silhouette", "davies_bouldin", "calinski_harabasz"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-12)
    assert a.weights.tolist() == b.sizes.tolist()


def test_one_cluster_has_no_scores_between_clusters() -> None:
    """A single cluster, or only one that has rows, has neither silhouette nor the two indices."""
    for centroids in (MIDDLES[:1], np.array([[0.5, 0.5], [100.0, 100.0]])):
        with blocked(SQUARE) as blocks:
            found, sample = metrics(blocks, centroids), sampled(blocks, 3, seed=0)
        assert (found.simplified_silhouette, found.davies_bouldin, found.calinski_harabasz) == (None,) * 3
        assert silhouettes(sample, [sample.labels(centroids)]) == [None]


def test_a_sample_is_of_rows_of_positive_weight() -> None:
    """As many as asked for, other ones for another seed, none that weighs nothing."""
    X, weights = np.arange(1000.0)[:, None], np.arange(1000) % 2.0
    with blocked(X, (0, 300, 1000), weights) as blocks:
        a, b = (sampled(blocks, 50, seed=seed) for seed in (0, 1))
    assert len(a.row_ids) == len(b.row_ids) == 50
    assert a.row_ids.tolist() != b.row_ids.tolist()
    assert (a.row_ids % 2 == 1).all()
    assert a.values[:, 0].tolist() == a.row_ids.tolist()


def test_quantiles_are_shares() -> None:
    """A share beyond 1 is refused with the values."""
    with (
        blocked(SQUARE) as blocks,
        pytest.raises(ConfigError, match=r"must lie in \[0, 1\]; found \[0.5, 95\]"),
    ):
        metrics(blocks, MIDDLES, quantiles=(0.5, 95))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=1, max_size=40))
def test_agreement_is_scikit_learns(rows: list[tuple[int, str]]) -> None:
    """Adjusted Rand and normalised mutual information, by numbers against text."""
    clusters, groups = zip(*rows, strict=True)
    counts = pairs(clusters, groups)
    assert adjusted_rand(counts) == pytest.approx(sklearn.adjusted_rand_score(groups, clusters), abs=1e-12)
    expected = sklearn.normalized_mutual_info_score(groups, clusters)
    assert normalised_mutual_information(counts) == pytest.approx(expected, abs=1e-12)


def test_agreement_of_parts_adds_up_and_leaves_out_nulls() -> None:
    """Nulls and NaN in either column count nowhere; chunks and parts make no difference."""
    clusters = pa.chunked_array([[0, 1, None], [1, 2, 2]], pa.int32())
    groups = np.array([1.0, 1.0, 2.0, np.nan, 3.0, 3.0])
    whole = pairs(clusters, groups)
    assert whole == {(0, 1.0): 1, (1, 1.0): 1, (2, 3.0): 2}
    assert pairs(clusters[:3], groups[:3]) + pairs(clusters[3:], groups[3:]) == whole


def test_agreement_needs_a_group_for_each_row() -> None:
    """Columns of other lengths are refused with both, and values of no one type with Arrow's reason."""
    with pytest.raises(DataError, match="clusters has 2 rows and groups 3"):
        pairs([0, 1], ["a", "b", "c"])
    with pytest.raises(DataError, match="groups must be a column of one type"):
        pairs([0, 1], ["a", object()])
