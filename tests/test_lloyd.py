"""Lloyd's algorithm on packed blocks, held against the loops of naive.py in every iteration."""

import itertools
import threading
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from kmeans_dask import lloyd, passes, steps
from kmeans_dask.blocks import Blocks
from kmeans_dask.lloyd import Identity, Limits, Progress
from kmeans_dask.means import inertia_of, total_weight, updated
from kmeans_dask.passes import Partials
from kmeans_dask.tracks import Track
from tests import naive
from tests.blockings import EXACT_KINDS, Case, addend_means, blocked, cases, labels_under

SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])
WEIGHTS = np.array([3.0, 1.0, 1.0, 3.0])
ME = Identity()


def pass_over(blocks: Blocks, track: Track) -> Partials:
    """Return what the next pass of the engine gives."""
    step = track.step(blocks, exact=True)
    return blocks.map_reduce(steps.lloyd_pass, step, combine=Partials.combined)


@settings(max_examples=150)
@given(cases())
def test_every_pass_equals_the_loops(case: Case) -> None:
    """In each iteration labels, counts, changes, inertia, refills and means are those of the loops.

    A mean is that of addends cut off 63 bits below their column's bound, rounded once.
    """
    weights = case.weights
    track, old, centroids = Track("test", case.start), None, case.start
    with case.blocks() as blocks:
        for _ in range(5):
            labels = naive.nearest(case.X, centroids)
            assert labels_under(blocks, centroids) == labels
            scales = passes.exponents(blocks.summary, centroids)
            partials = pass_over(blocks, track)
            assert partials.rows.tolist() == np.bincount(labels, minlength=len(centroids)).tolist()
            assert partials.changed == (
                len(labels) if old is None else sum(a != b for a, b in zip(labels, old, strict=True))
            )
            # Addends are cut off 95 bits below the farthest possible square.
            exact = naive.inertia(case.X, labels, centroids, weights)
            assert inertia_of(partials, scales) == pytest.approx(
                exact, rel=2.0**-52, abs=len(labels) * 2.0 ** (scales.inertia - 95)
            )
            taken = naive.refills(case.X, labels, centroids, weights)
            members = list(labels)
            for cluster, row in taken.items():
                members[row] = cluster
            new = updated(blocks, centroids, partials, scales)
            assert new.tolist() == addend_means(case.X, members, centroids, weights)
            track.move(new, partials.radii)
            old, centroids = labels, new


@settings(max_examples=100)
@given(cases(EXACT_KINDS, weighted=False, moves=False))
def test_a_run_equals_the_loops_to_the_bit(case: Case) -> None:
    """On a grid, where every addend fits: centroids, inertia, sizes, iterations and history, whatever the blocks."""
    truth = naive.lloyd(case.X, case.start, max_iter=12)
    with case.blocks() as blocks:
        fit = lloyd.lloyd(blocks, case.start, Limits(12), ME)
        labels = labels_under(blocks, fit.centroids)
        again = lloyd.evaluated(blocks, fit.centroids)
    last = truth.passes[-1]
    assert labels == truth.labels.tolist()
    assert fit.centroids.tolist() == truth.centroids.tolist()
    assert fit.inertia == again.inertia == truth.inertia
    assert fit.distortion == truth.inertia / len(case.X)
    assert list(fit.sizes) == list(again.sizes) == np.bincount(labels, minlength=len(fit.centroids)).tolist()
    assert fit.n_iter == truth.n_iter
    assert [p.changed for p in fit.history] == [p.changed for p in truth.passes]
    # Between the first pass and the end, inertia is the difference of sums at most 2**24 times as large.
    costs = [p.inertia for p in truth.passes]
    assert [p.inertia for p in fit.history] == pytest.approx(costs, rel=2.0**-24)
    assert fit.history[0].inertia == costs[0]
    ended = fit.n_iter > 1 and last.changed == 0 and not last.refills
    assert fit.stop == ("converged" if ended else "max_iter")


@settings(max_examples=60)
@given(cases())
def test_blocks_and_threads_change_no_bit(case: Case) -> None:
    """One block on one thread, or any cutting, empty blocks included: the same run."""
    with case.blocks() as cut, blocked(case.X, weights=case.weights) as whole:
        ours = lloyd.lloyd(cut, case.start, Limits(8), ME)
        theirs = lloyd.lloyd(whole, case.start, Limits(8), ME)
    assert ours.centroids.tobytes() == theirs.centroids.tobytes()
    assert (ours.inertia, ours.sizes, ours.n_iter, ours.stop) == (
        theirs.inertia, theirs.sizes, theirs.n_iter, theirs.stop,
    )  # fmt: skip
    assert [(p.changed, p.inertia) for p in ours.history] == [(p.changed, p.inertia) for p in theirs.history]


@settings(max_examples=60)
@given(cases(weighted=False))
def test_inertia_never_rises(case: Case) -> None:
    """Each pass, a refill included, lowers inertia or leaves it, to the rounding of a mean."""
    with case.blocks() as blocks:
        fit = lloyd.lloyd(blocks, case.start, Limits(10), ME)
        reach = float(np.abs(case.X.astype(np.float64)).max())
    costs = [*(p.inertia for p in fit.history), fit.inertia]
    # A rounded mean of values up to `reach` is off by reach * 2**-53, the sum's addends by 2**-63 of it.
    slack = case.X.size * (reach * 2.0**-52) ** 2
    # In between, inertia is the difference of sums at most 2**24 times as large.
    assert all(b <= a * (1 + 2.0**-24) + slack for a, b in itertools.pairwise(costs)), costs


@pytest.mark.parametrize("n", [126, 127, 128, 129, 255, 256, 257, 383, 384, 385])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts_and_sums_equal_a_bincount(n: int, dtype: str) -> None:
    """At n mod 128 = 0, 1 and 127 no padding row is counted or summed, in any cluster."""
    rng = np.random.default_rng(n)
    for d, k in ((1, 1), (3, 5), (8, 16), (5, 33)):
        X = rng.integers(-50, 50, size=(n, d)).astype(dtype)
        start = X[rng.integers(n, size=k)] + rng.integers(-1, 2, size=(k, d))
        with blocked(X, (0, n // 3, n), n_threads=2) as blocks:
            partials = pass_over(blocks, Track("test", start))
            labels = labels_under(blocks, start)
            new = updated(blocks, start, partials, passes.exponents(blocks.summary, start))
        counts = np.bincount(labels, minlength=k)
        assert partials.rows.tolist() == counts.tolist()
        taken = naive.refills(X, labels, start)
        for cluster, row in taken.items():
            labels[row] = cluster
        counts = np.bincount(labels, minlength=k)
        for f in range(d):
            sums = np.bincount(labels, weights=X[:, f], minlength=k)  # integers: exact in any order
            expected = np.divide(sums, counts, out=start[:, f].astype(np.float64), where=counts > 0)
            assert new[:, f].tolist() == expected.tolist()


def test_weighted_case_worked_by_hand() -> None:
    """Weights 3,1,1,3 from the corners: inertia 0.375, centroids an eighth inside, 2 iterations."""
    with blocked(SQUARE, (0, 1, 4), WEIGHTS) as blocks:
        fit = lloyd.lloyd(blocks, np.array([[0.0, 0.0], [1.0, 1.0]]), Limits(), ME)
        assert labels_under(blocks, fit.centroids) == [0, 0, 1, 1]
    assert fit.centroids.tolist() == [[0.125, 0], [0.875, 1]]
    assert (fit.inertia, fit.distortion, fit.n_iter, fit.stop) == (0.375, 0.375 / 8, 2, "converged")
    assert fit.sizes == (2, 2)


def test_refill_case_worked_by_hand() -> None:
    """All rows are nearer to the first centroid: the second takes row 0, the first of the farthest."""
    start = np.array([[0.5, 0.5], [3.0, 3.0]])
    with blocked(SQUARE, (0, 2, 4)) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(), ME)
        first = lloyd.lloyd(blocks, start, Limits(1), ME)
    assert first.centroids.tolist() == [[2 / 3, 2 / 3], [0, 0]]
    assert (fit.inertia, fit.stop) == (0.25, "converged")


def test_a_run_goes_on_while_a_cluster_can_be_filled() -> None:
    """Where the row just taken lies on another mean, no label changes; but the next farthest row does."""
    with blocked(np.array([[1.0], [3.0], [2.0], [1.0]])) as blocks:
        fit = lloyd.lloyd(blocks, np.array([[3.0], [0.0], [0.0]]), Limits(), ME)
    assert (fit.inertia, fit.n_iter, sorted(fit.sizes)) == (0.0, 4, [1, 1, 2])


def test_refills_leave_each_cluster_a_row_of_weight() -> None:
    """The only row of positive weight in a cluster stays, though rows without weight are there too."""
    X, weights = np.array([[0.0], [1.0], [2.0], [100.0], [103.0]]), np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    start = np.array([[1.0], [104.0], [900.0]])
    assert naive.refills(X, naive.nearest(X, start), start, weights) == {2: 0}
    with blocked(X, (0, 2, 5), weights) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(1), ME)
    assert fit.centroids.tolist() == [[1.5], [100.0], [0.0]]


def test_heavy_weights_whose_limbs_are_whole_numbers() -> None:
    """With a heaviest weight of 2**62 the unit of weights is 1; a moved row still moves its weight."""
    X, weights = np.array([[0.0], [1.0], [8.0]]), np.array([2.0**62, 2.0**61, 2.0**62])
    start = np.array([[1.0], [99.0]])
    truth = naive.lloyd(X, start, weights=weights)
    with blocked(X, weights=weights) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(), ME)
    assert fit.centroids.tolist() == truth.centroids.tolist()
    assert fit.inertia == truth.inertia


def test_one_outlier_takes_no_digit_of_inertia() -> None:
    """A row of 1e9 among normal ones leaves the sum of the others' squares as it is."""
    X = np.random.default_rng(0).normal(size=(300, 1))
    X[77] = 1e9
    start = np.array([[0.0], [1e9]])
    with blocked(X) as blocks:
        value = lloyd.evaluated(blocks, start)
    # 300 addends cut off at 2**(62 - 95).
    assert value.inertia == pytest.approx(
        naive.inertia(X, naive.nearest(X, start), start), abs=300 * 2.0**-33
    )


def test_the_last_pass_counts_in_its_own_units() -> None:
    """A centroid that comes in from far away changes the exponents of a run; what is returned is that of its end."""
    X = np.random.default_rng(0).normal(size=(129, 1)) * 0.1
    for max_iter in (1, 2, 3):
        with blocked(X) as blocks:
            fit = lloyd.lloyd(blocks, np.array([[2.2], [0.1], [1.4]]), Limits(max_iter), ME)
            assert fit.stop == "max_iter"
            assert fit.inertia == lloyd.evaluated(blocks, fit.centroids).inertia < fit.history[-1].inertia


def test_a_pass_repeated_or_without_its_cache_gives_the_same() -> None:
    """What blocks remember is a cache: a pass asked twice, or of blocks that lost it, answers alike."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, 3))
    first, second = X[:4].copy(), X[:4] + 0.3
    with blocked(X, (0, 200, 500)) as blocks:
        track = Track("test", first)
        track.move(second, pass_over(blocks, track).radii)
        answers = [pass_over(blocks, track), pass_over(blocks, track)]
        forgotten = blocks.map_reduce(passes.forget, "test", combine=int.__add__)
        answers.append(pass_over(blocks, track))
    assert forgotten > 0
    assert 0 < answers[0].changed < 500
    for other in answers[1:]:
        assert other.changed == answers[0].changed
        assert other.inertia == answers[0].inertia
        assert np.array_equal(other.sums, answers[0].sums)


def test_a_finished_run_leaves_nothing_in_the_blocks() -> None:
    """Every label a run remembered is dropped at its end."""
    with blocked(np.random.default_rng(0).normal(size=(300, 2))) as blocks:
        lloyd.lloyd(blocks, np.zeros((1, 2)), Limits(), ME)
        assert blocks.map_reduce(passes.forget, ME.run, combine=int.__add__) == 0


def test_blocks_without_rows_do_not_hide_weights() -> None:
    """Partials of empty blocks combine with those of weighted ones, in either order."""
    X, weights = np.array([[0.0], [2.0]]), np.array([1.0, 3.0])
    with blocked(X, (0, 0, 2), weights) as blocks:
        scales = passes.exponents(blocks.summary, X[:1])
        one = partial(steps.lloyd_pass, step=Track("test", X[:1]).step(blocks, exact=True))
        empty, full = one([blocks.blocks[0]]), one([blocks.blocks[1]])
    for both in (empty.combined(full), full.combined(empty)):
        assert total_weight(both, scales) == 4


# How a run ends ------------------------------------------------------------------


def spread_out() -> tuple[np.ndarray, np.ndarray]:
    """Return rows that take many iterations, and a start."""
    X = np.random.default_rng(3).normal(size=(2000, 2))
    return X, X[:12].copy()


def test_max_iter_ends_a_run_with_labels_of_its_centroids() -> None:
    """After max_iter updates inertia and sizes are those of the final centroids."""
    X, start = spread_out()
    with blocked(X) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(max_iter=3), ME)
        value = lloyd.evaluated(blocks, fit.centroids)
    assert (fit.stop, fit.n_iter, len(fit.history)) == ("max_iter", 3, 3)
    assert (fit.inertia, fit.sizes) == (value.inertia, value.sizes)
    assert fit.inertia < fit.history[-1].inertia


def test_tol_ends_a_run_at_the_first_small_shift() -> None:
    """The squared shift is compared with tol times the mean population variance of the features."""
    X, start = spread_out()
    with blocked(X) as blocks:
        limit = lloyd.sq_shift_of(1e-3, blocks)
        fit = lloyd.lloyd(blocks, start, Limits(sq_shift=limit), ME)
        path = [
            start,
            *(lloyd.lloyd(blocks, start, Limits(i), ME).centroids for i in range(1, fit.n_iter + 1)),
        ]
        assert lloyd.sq_shift_of(0, blocks) == 0
    assert limit == pytest.approx(1e-3 * X.var(axis=0).mean(), rel=1e-12)  # numpy's sums round
    shifts = [float(((b - a) ** 2).sum()) for a, b in itertools.pairwise(path)]
    assert fit.stop == "tol"
    assert shifts[-1] <= limit < min(shifts[:-1])
    assert np.array_equal(fit.centroids, path[-1])


def test_the_hook_sees_each_iteration_and_can_stop() -> None:
    """It is called once an iteration, and True ends the run after that iteration's update."""
    X, start = spread_out()
    seen: list[Progress] = []

    def hook(progress: Progress) -> bool:
        seen.append(progress)
        return progress.iteration == 4

    with blocked(X) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(), Identity(2, 77), hook)
        expected = lloyd.lloyd(blocks, start, Limits(4), Identity(2, 77))
    assert (fit.stop, fit.n_iter) == ("stopped", 4)
    assert fit.history == tuple(seen)
    assert [(p.restart, p.seed, p.iteration) for p in seen] == [(2, 77, i) for i in range(1, 5)]
    assert all(p.distortion == p.inertia / len(X) and p.seconds >= 0 for p in seen)
    assert seen[0].changed == len(X)
    assert np.array_equal(fit.centroids, expected.centroids)


def test_the_deadline_ends_a_run() -> None:
    """A run past its deadline ends after the iteration under way."""
    X, start = spread_out()
    with blocked(X) as blocks:
        fit = lloyd.lloyd(blocks, start, Limits(deadline=time.monotonic()), ME)
    assert (fit.stop, fit.n_iter) == ("max_seconds", 1)


def test_concurrent_runs_do_not_disturb_each_other() -> None:
    """Four runs at once on the same blocks give what each gives alone."""
    X, _ = spread_out()
    starts = [X[10 * i : 10 * i + 7].copy() for i in range(4)]
    together: dict[int, bytes] = {}
    with blocked(X, (0, 700, 2000), n_threads=2) as blocks:
        alone = [
            lloyd.lloyd(blocks, s, Limits(20), Identity(i)).centroids.tobytes() for i, s in enumerate(starts)
        ]

        def run(i: int) -> None:
            together[i] = lloyd.lloyd(blocks, starts[i], Limits(20), Identity(i)).centroids.tobytes()

        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [together[i] for i in range(4)] == alone


def test_a_hook_that_fails_leaves_nothing_with_the_blocks() -> None:
    """What a run remembers of rows goes with it."""
    rng = np.random.default_rng(0)
    with blocked(rng.normal(size=(3000, 2)), (0, 1000, 3000)) as blocks:
        before = [set(block.cache) for block in blocks.blocks]
        with pytest.raises(ZeroDivisionError):
            lloyd.lloyd(blocks, rng.normal(size=(5, 2)), Limits(), Identity(), lambda progress: 1 // 0 > 0)
        after = [{name for name in block.cache if name.startswith("lloyd")} for block in blocks.blocks]
    assert after == [set[str]()] * 2
    assert not any(name.startswith("lloyd") for names in before for name in names)
