"""Rows in an order of nearness: the same rows under the same ids, near ones side by side, and the same results."""

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmeans_dask import kmeans, ordering, predict
from kmeans_dask.farthest import farthest, farthest_rows
from kmeans_dask.ordering import order_tiles
from kmeans_dask.passes import Partials, balls_of
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track
from tests import naive
from tests.blockings import KINDS, blocked, cut, labels_under, rows_of_kind


def blobs(n: int, d: int, k: int) -> np.ndarray:
    """Return n rows in k normal blobs far apart, (n, d) float32."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(k, d))[rng.integers(0, k, n)] * 9 + rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("n", [4096, 5000, 20_001])
def test_an_ordered_block_holds_the_same_rows(n: int) -> None:
    """Every row once, under its id and with its weight; only the last tile has padding."""
    X, weights = blobs(n, 5, 7), np.arange(n, dtype=np.float64)
    (block,) = cut(X, (0, n), weights)
    row_ids = block.row_ids()
    assert (np.diff(row_ids) < 0).any()
    assert sorted(row_ids.tolist()) == list(range(n))
    assert np.array_equal(block.all_rows(), X[row_ids].astype(np.float64))
    assert np.array_equal(block.weights, weights[row_ids])


@settings(max_examples=60)
@given(
    st.sampled_from(("even", "equal", "one part", "missing", "huge")), st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 2, 3, 9]), st.integers(1024, 6000), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_tiles_are_ordered_in_place(kind: str, dtype: type, d: int, n: int, seed: int) -> None:
    """Every row once, bit by bit, however many go to one part; padding stays zero."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(dtype)
    match kind:
        case "equal":
            X[:] = X[0]
        case "one part":
            X[rng.random(n) < 0.9] *= dtype(1e-6)
        case "missing":
            X[rng.random(X.shape) < 0.3] = np.nan
        case "huge":
            X *= dtype(np.finfo(dtype).max / 8)
    tiles = np.zeros((-(-n // 128), -(-d // 4) * 4, 128), dtype)
    for r in range(n):
        tiles[r // 128, :d, r % 128] = X[r]
    was = order_tiles(tiles, n, d)
    rows = tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1])
    assert np.sort(was).tolist() == list(range(n))
    assert rows[:n, :d].tobytes() == X[was].tobytes()
    assert not rows[n:].any()
    assert not rows[:, d:].any()


def test_near_rows_share_tiles() -> None:
    """Of 30 blobs of radius about 4, far apart, nearly all tiles hold one; in the order of the source none did."""
    X = blobs(60_000, 8, 30)
    (block,) = cut(X, (0, len(X)))
    radii = balls_of(block)[1]
    assert np.mean(radii < 7) > 0.8
    rows = X[: 100 * 128].reshape(100, 128, 8).astype(np.float64)
    assert np.sqrt(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=2)).max(axis=1).min() > 14


def test_balls_hold_their_rows() -> None:
    """No row lies outside its tile's ball."""
    for kind in KINDS:
        X = rows_of_kind(kind, 5000, 3, np.random.default_rng(0)).astype(np.float32)
        (block,) = cut(X, (0, 5000))
        centres, radii = balls_of(block)
        rows = block.all_rows()
        distances = np.sqrt(((rows - centres[np.arange(5000) // 128]) ** 2).sum(axis=1))
        assert (distances <= radii[np.arange(5000) // 128]).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 2, 5, 9]),
    st.sampled_from([1, 3, 12, 40]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_labels_and_sums_of_ordered_blocks_are_the_loops(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str, d: int, k: int, seed: int
) -> None:
    """Over kinds of data, in small blocks that are ordered too: the canonical labels, farthest rows and sums."""
    monkeypatch.setattr(ordering, "LEAST_ROWS", 1)
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 900, d, rng).astype(dtype)
    start = X[rng.integers(900, size=k)].astype(np.float64)
    expected = naive.nearest(X, start)
    with blocked(X, (0, 500, 900)) as blocks:
        assert labels_under(blocks, start) == expected
        step = Track("run", start).step(blocks, exact=True)
        ordered = blocks.map_reduce(lloyd_pass, step, combine=Partials.combined)
        far = [c.row_id for c in farthest_rows(blocks.blocks, start, 5)]
        known = ("run", step.names[1])  # the labels of the pass, where blocks remember them
        again = blocks.map_reduce(farthest_rows, start, 5, known, combine=partial(farthest, m=5))
        assert [c.row_id for c in again] == far
    monkeypatch.setattr(ordering, "LEAST_ROWS", 10**9)
    with blocked(X) as blocks:
        plain = blocks.map_reduce(lloyd_pass, step, combine=Partials.combined)
    assert ordered.rows.tolist() == np.bincount(expected, minlength=k).tolist()
    assert np.array_equal(ordered.sums, plain.sums)
    assert ordered.inertia == plain.inertia
    distances = [naive.sq_distance(x, start[j]) for x, j in zip(naive.rows_of(X), expected, strict=True)]
    by_distance = sorted(range(900), key=lambda i: (-distances[i], i))
    assert far == [i for i in by_distance if distances[i] > 0][:5]


@pytest.mark.parametrize("init", ["random", "k-means++", "k-means||"])
def test_the_order_changes_no_bit_of_a_model(monkeypatch: pytest.MonkeyPatch, init: str) -> None:
    """Seeds, centroids and labels of ordered rows are those of rows as they come."""
    X = blobs(9000, 3, 6)
    found = []
    for least in (4096, 10**9):
        monkeypatch.setattr(ordering, "LEAST_ROWS", least)
        model = kmeans(X, 8, init=init, n_init=2, seed=3)
        found.append((model.centroids.tobytes(), model.inertia, predict(model, X).tolist()))
    assert found[0] == found[1]
