"""Skipped rows and sums by difference: each pass of a run equals the same pass computed from nothing."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import kernels, lloyd, passes, pruning
from kmeans_dask.blocks import Blocks
from kmeans_dask.means import updated
from kmeans_dask.passes import Partials
from kmeans_dask.steps import Step, lloyd_pass
from kmeans_dask.tiles import TILE
from kmeans_dask.tracks import Track
from tests.blockings import KINDS, blocked, labels_under, rows_of_kind

MOVES = ("means", "small", "jump", "none")


def passed(blocks: Blocks, step: Step) -> Partials:
    """Return what a pass gives."""
    return blocks.map_reduce(lloyd_pass, step, combine=Partials.combined)


def assert_equal(a: Partials, b: Partials) -> None:
    """The same counts, weights, sums and inertia, to the bit."""
    assert a.rows.tolist() == b.rows.tolist()
    assert np.array_equal(a.weight, b.weight)
    assert np.array_equal(a.sums, b.sums)
    assert a.inertia == b.inertia


def moved(move: str, centroids: np.ndarray, means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the next centroids: the means, or others that no run would take, to which bounds apply as well."""
    spread = np.abs(centroids).max(axis=0)
    if move == "small":
        return means + spread * 2.0**-20 * rng.normal(size=means.shape)
    if move == "jump":
        jumped = means.copy()
        jumped[rng.integers(len(means))] = spread * rng.normal(size=means.shape[1])
        return jumped
    return means if move == "means" else centroids.copy()


def reaches(X: np.ndarray, blocks: Blocks, centroids: np.ndarray) -> np.ndarray:
    """Return how far the farthest row of each cluster is from its centroid, (k,), less what rounding can do."""
    labels = np.array(labels_under(blocks, centroids))
    found = np.zeros(len(centroids))
    np.maximum.at(found, labels, np.sqrt(((X - centroids[labels]) ** 2).sum(axis=1)) * (1 - 1e-9))
    return found


def runs(
    X: np.ndarray,
    k: int,
    seed: int,
    n_passes: int,
    weights: np.ndarray | None,
    start: np.ndarray | None = None,
) -> Iterator[int]:
    """Compare n_passes of one run with fresh passes; yield the labels that changed in each."""
    rng = np.random.default_rng(seed)
    n = len(X)
    start = X[rng.integers(n, size=k)].astype(np.float64) if start is None else start
    with blocked(X, (0, n // 3, n // 3, n), weights, n_threads=2) as blocks:
        track = Track("run", start)
        for i in range(n_passes):
            step = track.step(blocks, exact=True)
            pruned = passed(blocks, step)
            fresh = passed(blocks, Track(f"fresh {i}", step.centroids).step(blocks, exact=True))
            assert_equal(pruned, fresh)
            assert (pruned.radii >= reaches(X, blocks, step.centroids)).all()
            again = replace(step, run="again")
            assert passed(blocks, again).changed == pruned.changed
            for run in ("again", f"fresh {i}"):
                blocks.map_reduce(passes.forget, run, combine=int.__add__)
            yield pruned.changed
            means = updated(blocks, step.centroids, fresh, step.scales)
            track.move(
                moved(str(rng.choice(MOVES, p=(0.7, 0.1, 0.1, 0.1))), step.centroids, means, rng),
                pruned.radii,
            )


@settings(max_examples=30)
@given(
    st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 2, 5, 16]),
    st.sampled_from([1, 2, 5, 24, 60]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_pruned_passes_equal_fresh_ones(
    kind: str, dtype: str, d: int, k: int, weighted: bool, seed: int
) -> None:
    """Over kinds of data, small moves, jumps and refills: the same sums, inertia and changes, 12 passes long."""
    rng = np.random.default_rng(seed)
    X = rows_of_kind(kind, 900, d, rng).astype(dtype)
    weights = rng.integers(0, 4, size=900).astype(np.float64) if weighted else None
    assert len(list(runs(X, k, seed, 12, weights))) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_short_pruned_runs(kind: str) -> None:
    """A few passes of each kind of data, few enough to be run without compilation too."""
    rng = np.random.default_rng(0)
    X = rows_of_kind(kind, 200, 2, rng).astype("float32")
    assert len(list(runs(X, 4, 1, 4, rng.integers(0, 4, size=200).astype(np.float64)))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pruned_passes_equal_fresh_ones_millions_of_times(kind: str, dtype: str) -> None:
    """Two million row-passes of each kind of data, in runs long enough for bounds to wear out."""
    for seed in range(5):
        rng = np.random.default_rng([seed, len(kind)])
        X = rows_of_kind(kind, 8000, int(rng.choice([1, 3, 8, 20])), rng).astype(dtype)
        changed = list(runs(X, int(rng.choice([3, 20, 150])), seed, 50, None))
        assert changed[0] == 8000


@pytest.mark.parametrize("exponent", [-460, -150, -145, -140, -126, -60, 60, 126, 130, 460])
def test_bounds_at_the_edges_of_float32(exponent: int) -> None:
    """Bounds are kept in float32: rows whose distances it cannot tell apart, or hold, are scanned."""
    X = np.random.default_rng(0).normal(size=(2000, 2)) * 2.0**exponent
    assert len(list(runs(X, 20, 0, 15, None))) == 15


def test_a_centroid_beyond_float32_takes_no_row_from_the_others() -> None:
    """A start so far away that thresholds are infinite: every row is decided, in each pass."""
    X = np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)
    start = np.array([[0.0], [1e40], [0.5], [-0.5], [1.0]])
    with blocked(X) as blocks:
        fit = lloyd.lloyd(blocks, start, lloyd.Limits(50), lloyd.Identity())
        assert list(fit.sizes) == list(lloyd.evaluated(blocks, fit.centroids).sizes)
        assert list(fit.sizes) == np.bincount(labels_under(blocks, fit.centroids), minlength=5).tolist()


def test_most_rows_are_skipped() -> None:
    """Once centroids hardly move, few rows are scanned: the bounds are of use."""
    X = np.random.default_rng(0).normal(size=(20_000, 4)) + np.repeat(np.arange(20) * 9.0, 1000)[:, None]
    start = X[::1000].copy()
    with blocked(X) as blocks:
        track = Track("run", start)
        for _ in range(4):
            step = track.step(blocks, exact=False)
            partials = passed(blocks, step)
            track.move(updated(blocks, step.centroids, partials, step.scales), partials.radii)
        step = track.step(blocks, exact=False)
        scanned = 0
        for state in (group[0].cache["run"] for group in blocks._groups):
            for labels, slack, owners, gaps in state.known:
                for t, owner in enumerate(owners.tolist()):
                    rows = slice(t * TILE, (t + 1) * TILE)
                    if owner >= 0:
                        scanned += 0 if step.thresholds[owner] < gaps[t] else len(labels[rows])
                    elif not step.drift < gaps[t]:
                        scanned += kernels.count_open(step.thresholds, labels[rows], slack[rows])
    assert scanned < len(X) / 10


@pytest.mark.parametrize("is_compiled", [True, False])
def test_rows_without_label_or_slack_are_open(is_compiled: bool) -> None:
    """As at the start of a run from the end of another; no place before the thresholds is read for them."""
    open_rows = pruning.open_rows if is_compiled else getattr(pruning.open_rows, "py_func", pruning.open_rows)
    labels = np.array([1, -1, 0, 1, 0], np.int32)
    slack = np.array([2.0, -np.inf, 1.0, np.nan, 0.5], np.float32)
    which = np.full(TILE + 1, -9)
    assert open_rows(np.array([1.0, 1.5], np.float32), labels, slack, which) == 4
    assert which[:4].tolist() == [1, 2, 3, 4]
    assert open_rows(np.zeros(2, np.float32), labels[:1], slack[:1], which) == 0


def test_a_shard_that_lost_the_run_counts_the_same_changes() -> None:
    """In mid-run, blocks that remember nothing label by the centroids before and give the same totals."""
    X = np.random.default_rng(5).normal(size=(3000, 3))
    with blocked(X, (0, 1000, 3000)) as blocks:
        track = Track("run", X[:8].copy())
        for lost in (False, False, True, False, True, True):
            step = track.step(blocks, exact=True)
            fresh = replace(step, run="fresh")
            if lost:
                assert blocks.map_reduce(passes.forget, "run", combine=int.__add__) > 0
            ours, theirs = passed(blocks, step), passed(blocks, fresh)
            assert_equal(ours, theirs)
            assert ours.changed == theirs.changed > 0
            blocks.map_reduce(passes.forget, "fresh", combine=int.__add__)
            track.move(updated(blocks, step.centroids, ours, step.scales), ours.radii)


# Means by long division ---------------------------------------------------------------------


@settings(max_examples=400)
@given(
    st.one_of(st.integers(-(2**93), 2**93), st.integers(-(2**40), 2**40), st.integers(-300, 300)),
    st.one_of(st.integers(1, 2**31 - 1), st.integers(1, 300), st.sampled_from([2**30, 3, 2**31 - 1])),
    st.integers(-900, 400),
)
def test_a_mean_is_rounded_once(total: int, n: int, unit: int) -> None:
    """A total of 94 bits over a count is the nearest float64 to the ratio."""
    digits = np.empty(6, np.uint64)
    high, low = np.int64(total >> 32), np.int64(total & 0xFFFFFFFF)
    found = kernels.quotient(high, low, np.uint64(n), unit, digits)
    assert found == float(Fraction(total, n) * Fraction(2) ** unit)


@settings(max_examples=400)
@given(st.integers(2**52, 2**53 - 1), st.integers(1, 2**31 - 1), st.integers(-3, 3), st.booleans())
def test_a_mean_next_to_a_tie_is_rounded_right(mantissa: int, n: int, off: int, negative: bool) -> None:
    """Midway between two float64 the even one; a hair beside it, that side's."""
    total = (2 * mantissa + 1) * n + off
    total = -total if negative else total
    digits = np.empty(6, np.uint64)
    high, low = np.int64(total >> 32), np.int64(total & 0xFFFFFFFF)
    assert kernels.quotient(high, low, np.uint64(n), 0, digits) == float(Fraction(total, n))
