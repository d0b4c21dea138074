"""The textbook's algorithm, and the loops of naive.py that every other test trusts."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans

from kmeans_dask.errors import ConfigError, DataError, KMeansError, TooFewSamplesError
from kmeans_dask.textbook import (
    compute_centroids,
    distortion,
    find_closest_centroids,
    kmeans_init_centroids,
    run_kmeans,
)
from tests import naive

SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])
WEIGHTS = [3.0, 1.0, 1.0, 3.0]

small_tables = st.integers(1, 4).flatmap(
    lambda d: arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.just(d)),
        elements=st.floats(-100, 100, width=16) | st.sampled_from([0.0, 1.0, -1.0]),
    )
)


def test_naive_weighted_case_worked_by_hand() -> None:
    """Weights 3,1,1,3 from the corners: inertia 0.375, centroids an eighth inside; pass 2 confirms."""
    run = naive.lloyd(SQUARE, [[0, 0], [1, 1]], weights=WEIGHTS)
    assert run.labels.tolist() == [0, 0, 1, 1]
    assert run.inertia == 0.375
    assert run.centroids.tolist() == [[0.125, 0], [0.875, 1]]
    assert run.n_iter == 2


def test_naive_refill_case_worked_by_hand() -> None:
    """All four rows are nearer to the first centroid: the second takes row 0, first of the farthest."""
    run = naive.lloyd(SQUARE, [[0.5, 0.5], [3, 3]])
    assert [p.refills for p in run.passes] == [{1: 0}, {}, {}]
    assert run.passes[0].centroids == [[2 / 3, 2 / 3], [0, 0]]
    assert run.labels.tolist() == [1, 1, 0, 0]
    assert run.inertia == 0.25


def test_naive_refills_in_order() -> None:
    """The lowest empty cluster takes the farthest row; a lone row and a row on its centroid stay."""
    X = [[0.0], [1.0], [5.0], [50.0], [0.0]]
    centroids = [[900.0], [0.0], [800.0], [70.0], [700.0]]
    labels = naive.nearest(X, centroids)
    assert labels == [1, 1, 1, 3, 1]
    assert naive.refills(X, labels, centroids) == {0: 2, 2: 1}


def test_naive_never_takes_rows_without_weight() -> None:
    """A row of weight zero refills no cluster, and a cluster that only it belongs to is empty."""
    assert naive.refills([[0.0], [1.0], [9.0]], [0, 0, 0], [[0.0], [99.0]], [1.0, 1.0, 0.0]) == {1: 1}
    assert naive.refills([[0.0], [1.0], [9.0]], [0, 0, 1], [[0.0], [9.0]], [1.0, 1.0, 0.0]) == {1: 1}


def test_naive_ties_go_to_the_lowest_centroid() -> None:
    """A row midway between two centroids, or on two equal ones, takes the lower index."""
    assert naive.nearest([[0.5], [1.0]], [[1.0], [0.0], [1.0]]) == [0, 0]


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_naive_agrees_with_scikit_learn(weighted: bool) -> None:
    """From starts without ties, also with a cluster to refill: labels, iterations and inertia are its."""
    rng = np.random.default_rng(4)
    for n_clusters in (1, 2, 7):
        X = rng.normal(size=(300, 3)) + rng.integers(0, 4, size=(300, 1))
        start = X[:n_clusters] + 0.05 * rng.normal(size=(n_clusters, 3))
        start[-1] += 100 * (n_clusters == 7)
        weights = rng.integers(1, 5, size=300).astype(np.float64) if weighted else None
        theirs = KMeans(n_clusters, init=start, n_init=1, tol=0, algorithm="lloyd").fit(
            X, sample_weight=weights
        )
        ours = naive.lloyd(X, start, weights=weights)
        assert ours.labels.tolist() == theirs.labels_.tolist()
        assert ours.n_iter == theirs.n_iter_
        # Sums of 300 rounded addends on their side.
        assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-12)
        np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, rtol=1e-11, atol=1e-13)


def test_naive_goes_on_while_a_cluster_can_be_filled() -> None:
    """Where the row just taken lies on another mean, no label changes; but the next farthest row does."""
    run = naive.lloyd([[1.0], [3.0], [2.0], [1.0]], [[3.0], [0.0], [0.0]])
    assert [(p.changed, p.refills) for p in run.passes] == [(4, {2: 0}), (0, {2: 1}), (1, {}), (0, {})]
    assert run.inertia == 0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_naive_means_are_exact(values: list[float]) -> None:
    """A mean is the rational mean, rounded once."""
    expected = float(sum(map(Fraction, values)) / len(values))
    assert naive.means([[v] for v in values], [0] * len(values), [[7.0]]) == [[expected]]


def test_naive_knows_float32() -> None:
    """Rows of float32 are compared with float64 centroids without rounding either."""
    X = np.array([[0.1]], dtype=np.float32)
    assert naive.sq_distance(naive.rows_of(X)[0], [0.1]) == (float(np.float32(0.1)) - 0.1) ** 2


@given(small_tables, st.data())
def test_labels_equal_the_loops(X: np.ndarray, data: st.DataObject) -> None:
    """Each label is the lowest index of the least canonical distance, exact ties and duplicates included."""
    rows = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=6))
    noise = data.draw(st.sampled_from([0.0, 0.5, 0.1]))
    centroids = X[rows] + noise
    assert find_closest_centroids(X, centroids).tolist() == naive.nearest(X, centroids)


@given(small_tables, st.integers(0, 2**32 - 1))
def test_a_run_equals_the_loops(X: np.ndarray, seed: int) -> None:
    """Where no cluster empties, a run ends with the labels of the loops and with their means to rounding."""
    K = min(3, len(np.unique(X, axis=0)))
    start = kmeans_init_centroids(X, K, seed)
    truth = naive.lloyd(X, start, max_iter=1)
    if truth.passes[0].refills:
        return
    centroids = compute_centroids(X, find_closest_centroids(X, start), K)
    # A mean of at most 12 values up to 100, rounded at each step.
    np.testing.assert_allclose(centroids, truth.centroids, rtol=1e-14, atol=1e-12)


def test_square_worked_by_hand() -> None:
    """From two corners the square's halves part along x; the path holds the start and each move."""
    centroids, idx, path = run_kmeans(SQUARE, [[0, 0], [1, 1]], max_iters=10, return_path=True)
    assert idx.tolist() == [0, 0, 1, 1]
    assert centroids.tolist() == [[0.25, 0], [0.75, 1]]
    assert path.tolist() == [[[0, 0], [1, 1]], [[0.25, 0], [0.75, 1]]]
    assert distortion(SQUARE, idx, centroids) == 0.0625


def test_a_run_stops_when_no_assignment_changes() -> None:
    """The path ends with the move that changed no label, long before `max_iters`."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    centroids, idx, path = run_kmeans(X, X[:4], max_iters=1000, return_path=True)
    before_last = find_closest_centroids(X, path[-2])
    assert len(path) < 100
    assert np.array_equal(idx, before_last)
    assert not np.array_equal(before_last, find_closest_centroids(X, path[-3]))
    costs = [distortion(X, find_closest_centroids(X, c), c) for c in path]
    assert costs == sorted(costs, reverse=True)
    assert np.array_equal(path[-1], centroids)


def test_idx_belongs_to_the_centroids_when_iterations_run_out() -> None:
    """After `max_iters` moves the labels are those of the last centroids, also after none."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    for max_iters in (0, 1, 2):
        centroids, idx = run_kmeans(X, X[:4], max_iters)
        assert np.array_equal(idx, find_closest_centroids(X, centroids))
        expected = naive.lloyd(X, X[:4], max_iter=max_iters)
        assert idx.tolist() == expected.labels.tolist()


def test_initial_centroids_are_random_distinct_rows() -> None:
    """K rows that differ, decided by the seed, even where most rows are copies."""
    X = np.repeat([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [50, 1, 1], axis=0)
    chosen = kmeans_init_centroids(X, 3, seed=1)
    assert sorted(chosen.tolist()) == [[0, 1], [2, 3], [4, 5]]
    assert np.array_equal(chosen, kmeans_init_centroids(X, 3, seed=1))
    assert len({kmeans_init_centroids(X, 1, seed).tobytes() for seed in range(200)}) == 3


def test_empty_cluster_is_an_error() -> None:
    """An empty cluster has no mean: an error that names it, never a NaN."""
    with pytest.raises(DataError, match=r"cluster 1 of K=3 has no samples"):
        compute_centroids(SQUARE, [0, 0, 2, 2], 3)
    with pytest.raises(DataError, match=r"cluster 1 of K=2"):
        run_kmeans(SQUARE, [[0.5, 0.5], [3, 3]], max_iters=5)


def test_more_clusters_than_distinct_rows_is_an_error() -> None:
    """The error names K, the distinct rows and the rows."""
    with pytest.raises(TooFewSamplesError, match=r"K=3 needs at least 3 distinct rows; X holds 2 among 4"):
        kmeans_init_centroids([[1], [1], [2], [2]], 3, seed=0)


@pytest.mark.parametrize(
    ("X", "rule"),
    [
        ([1.0, 2.0], "must be a table"),
        (np.empty((0, 2)), "must be a table"),
        ([[1.0, np.nan]], "must be finite; 1 of its values"),
        ([[np.inf, 1.0]], "must be finite; 1 of its values"),
        ([["a", "b"]], "must hold integers or floats"),
        ([[True, False]], "must hold integers or floats"),
        ([[1.0, 2.0, 3.0]], "X has 3 features, the centroids 2"),
    ],
    ids=["one axis", "no rows", "nan", "infinity", "text", "booleans", "other features"],
)
def test_bad_samples_are_refused(X: object, rule: str) -> None:
    """Each rule of the input has its own message."""
    with pytest.raises(DataError, match=rule):
        find_closest_centroids(X, [[0.0, 0.0]])  # type: ignore[arg-type]


@pytest.mark.parametrize("K", [0, -1, 2.0, True], ids=str)
def test_bad_counts_are_refused(K: object) -> None:
    """K is a positive integer."""
    with pytest.raises(ConfigError, match="K must be an integer of at least 1"):
        kmeans_init_centroids(SQUARE, K, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("idx", [[0, 0, 0], [0, 0, 0, 2], [0, 0, 0, -1], [0.0] * 4, [[0] * 4]], ids=str)
def test_bad_labels_are_refused(idx: object) -> None:
    """One integer for each sample, below K."""
    with pytest.raises(KMeansError, match="idx must"):
        compute_centroids(SQUARE, idx, 2)  # type: ignore[arg-type]
