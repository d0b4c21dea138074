"""Rows with many centroids in question, scanned in groups of one cluster: the same passes as without."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmeans_dask import grouping, ordering
from kmeans_dask.costs import groups_pay_off
from kmeans_dask.means import updated
from kmeans_dask.tiles import TILE
from kmeans_dask.tracks import Track
from tests.blockings import blocked
from tests.test_pruning import passed, runs
from tests.test_resume import changed_start, run_of

K, D = 520, 16  # with more than 512 clusters the movements of all count at once
KINDS = ("clumps", "near ties", "far", "copies", "tiny", "large")


def crowd(
    kind: str, n: int, rng: np.random.Generator, k: int = K, d: int = D
) -> tuple[np.ndarray, np.ndarray]:
    """Return n rows, most of them in seven clumps, in no order, and k start centroids, two in each of two clumps.

    The other centroids are rows of their own around all clumps: every tile leaves all of them in question. Most clumps
    begin without a centroid, so that clusters hold several.
    """
    middles = rng.normal(size=(7, d)) * 6.0
    alone = rng.normal(size=(k - 4, d)) * 9.0
    rows = np.concatenate(
        (alone, middles[rng.integers(7, size=n - len(alone))] + rng.normal(size=(n - len(alone), d)))
    )
    start = np.concatenate((alone, middles[:2], middles[:2] + 0.5))
    if kind == "near ties":
        rows = np.round(rows) + rng.integers(-2, 3, size=rows.shape) * 2.0**-22
        start = np.round(start)
    if kind == "copies":
        rows[len(alone) :] = rows[len(alone) + rng.integers(40, size=n - len(alone))]
    offset, factor = {"far": (1e5, 1.0), "tiny": (0.0, 2.0**-120), "large": (0.0, 2.0**50)}.get(
        kind, (0.0, 1.0)
    )
    return rng.permutation(rows) * factor + offset, start * factor + offset


@pytest.fixture(autouse=True)
def in_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave rows as they come, or most tiles would lie in one clump."""
    monkeypatch.setattr(ordering, "LEAST_ROWS", 10**9)


def either(kernel: Any) -> list[Any]:
    """Return a kernel as it is compiled, and as it is written."""
    return [pytest.param(kernel, id="compiled"), pytest.param(getattr(kernel, "py_func", kernel), id="plain")]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([430, K]), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_passes_in_groups_equal_fresh_ones(kind: str, dtype: str, k: int, weighted: bool, seed: int) -> None:
    """With several clumps to a cluster, ties, copies, offsets, moves and jumps: the same sums, inertia and changes."""
    assert groups_pay_off(D, k)
    rng = np.random.default_rng(seed)
    X, start = crowd(kind, 2500, rng, k)
    weights = rng.integers(0, 4, size=2500).astype(np.float64) if weighted else None
    assert len(list(runs(X.astype(dtype), k, seed, 8, weights, start))) == 8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_filled", [1, 2, 3])
def test_clusters_side_by_side_in_groups_equal_fresh_ones(n_filled: int, dtype: str) -> None:
    """Rows without gaps between clusters, so that many are nearly as near to a neighbour, at twice their distance."""
    rng = np.random.default_rng(n_filled)
    X = np.zeros((24_000, D))
    X[:, :n_filled] = rng.random((24_000, n_filled))
    start = X[rng.integers(24_000, size=K)]
    assert len(list(runs(X.astype(dtype), K, n_filled, 8, None, start))) == 8


@pytest.mark.parametrize("weighted", [False, True])
def test_wide_rows_in_groups(weighted: bool) -> None:
    """With 300 features, scanned and moved some at a time."""
    assert groups_pay_off(300, 120)
    rng = np.random.default_rng(2)
    X, start = crowd("clumps", 1500, rng, 120, 300)
    weights = rng.integers(0, 4, size=1500).astype(np.float64) if weighted else None
    assert len(list(runs(X.astype(np.float32), 120, 0, 6, weights, start))) == 6


def test_more_rows_than_are_grouped_at_a_time() -> None:
    """A block of 200,000 rows, of which 180,224 are grouped at a time, most of them of few clusters."""
    X, start = crowd("clumps", 300_000, np.random.default_rng(3), 352)
    assert groups_pay_off(D, 352)
    assert len(list(runs(X.astype(np.float32), 352, 0, 4, None, start))) == 4


@pytest.mark.parametrize("seed", range(4))
def test_resumed_passes_in_groups_equal_fresh_ones(seed: int) -> None:
    """From the end of another run: rows without a label, and tiles that had an owner."""
    rng = np.random.default_rng(seed)
    X, start = crowd("clumps", 2500, rng)
    X = X.astype(np.float32)
    with blocked(X, (0, 900, 2500), n_threads=2) as blocks:
        end = run_of(blocks, X, Track("run", start), 3)
        for _ in range(4):
            start, places = changed_start(end, rng, X)
            end = run_of(blocks, X, Track.after("run", start, 0, end, places), int(rng.integers(1, 4)))


@pytest.mark.parametrize("kind", ["clumps", "near ties", "large"])
def test_no_slack_is_wider_than_what_a_row_has(kind: str) -> None:
    """A row's slack, less the threshold of its label, is by how much its centroid is nearer than any other, or less."""
    X, start = crowd(kind, 3000, np.random.default_rng(len(kind)))
    X = X.astype(np.float32)
    n_grouped = n_bounded = 0
    with blocked(X, n_threads=1) as blocks:
        track = Track("run", start)
        for _ in range(6):
            step = track.step(blocks, exact=False)
            partials = passed(blocks, step)
            labels, slack, owners, _ = blocks.blocks[0].cache["run"].known[0]
            distances = np.sqrt(((X.astype(np.float64)[:, None] - step.centroids) ** 2).sum(axis=2))
            nearest, second = np.partition(distances, 1, axis=1)[:, :2].T
            unowned = np.repeat(owners < 0, TILE)[: len(X)] & np.isfinite(slack)
            bound = slack.astype(np.float64) - step.thresholds[np.maximum(labels, 0)]
            assert (bound <= (second - nearest) * (1 + 1e-9) + 1e-9 * nearest)[unowned].all()
            n_grouped += int((owners < -1).sum())
            n_bounded += int((bound > 0.01 * nearest)[unowned].sum())
            track.move(updated(blocks, step.centroids, partials, step.scales), partials.radii)
    assert n_grouped > 50
    assert n_bounded > 3000  # bounds that say nothing would be sound too


@pytest.mark.parametrize("by_cluster", either(grouping.by_cluster))
def test_chosen_rows_by_cluster(by_cluster: Any) -> None:
    """In the order of their labels, and of rows within each; those without a label first."""
    labels = np.array([2, 0, -1, 2, 0, 1, -1, 2], np.int32)
    chosen, order, ends = (
        np.array([0, 1, 2, 4, 6, 7], np.uint32),
        np.empty(6, np.uint32),
        np.empty(4, np.int64),
    )
    by_cluster(labels, chosen, order, ends)
    assert order.tolist() == [2, 6, 1, 4, 0, 7]
    assert ends.tolist() == [2, 4, 4, 6]


@pytest.mark.parametrize("sort_by", either(grouping.sort_by))
@pytest.mark.parametrize("keys", [[5.0, 1.0, 3.0], [2.0, 2.0, 2.0], [np.inf, 1.0, 2.0], [np.nan, 1.0, 0.0]])
def test_an_order_by_keys_holds_every_row_once(sort_by: Any, keys: list[float]) -> None:
    """About in the order of the keys, and of whatever keys each row once."""
    order = np.empty(3, np.uint32)
    with np.errstate(invalid="ignore"):
        sort_by(np.array(keys), np.array([7, 8, 9], np.uint32), order, np.empty(257, np.int64))
    assert sorted(order.tolist()) == [7, 8, 9]
    if keys[0] == 5.0:
        assert order.tolist() == [8, 9, 7]


@pytest.mark.parametrize("within", either(grouping.within))
def test_centroids_in_question_within_a_radius(within: Any) -> None:
    """Those no farther than twice the radius, and some more; and how far the nearest of the others is."""
    found = np.empty(5, np.int64)
    n, far = within(np.array([0.0, 9.0, 4.1, 100.0, 3.9]), 1.0, found)
    assert found[:n].tolist() == [0, 2, 4]
    assert far == 3.0
    assert within(np.array([0.0, 1.0]), 1.0, found)[1] == np.inf
