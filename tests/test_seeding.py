"""Start centroids: distinct rows of positive weight that depend on the rows and the seed alone."""

from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import closer, draw_kernels, draws, passes, randoms, seeding, sums
from kmeans_dask.blocks import NO_WEIGHTS, Blocks
from kmeans_dask.draws import Known
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import block_of_rows
from kmeans_dask.reclustering import greedy
from tests import naive
from tests.blockings import Case, blocked, cases, cut, tables

METHODS = pytest.mark.parametrize("method", seeding.METHODS)


def places(seeds: np.ndarray, X: np.ndarray) -> list[int]:
    """Return the first row that each seed is a copy of."""
    rows = {tuple(x): i for i, x in reversed(list(enumerate((X.astype(np.float64) + 0.0).tolist())))}
    return [rows[tuple(seed)] for seed in (seeds + 0.0).tolist()]


def distinct(X: np.ndarray) -> int:
    """Return the number of distinct rows."""
    return len(np.unique(X + 0.0, axis=0))


@METHODS
@settings(max_examples=40)
@given(cases(), st.integers(0, 2**63 - 1))
def test_blocks_and_threads_change_no_bit(method: str, case: Case, seed: int) -> None:
    """Any cutting of the rows, on any threads, has the seeds of one block on one thread."""
    k = len(case.start)
    with case.blocks() as cut_up, blocked(case.X, weights=case.weights) as whole:
        ours, theirs = (seeding.seeds(blocks, k, seed, method) for blocks in (cut_up, whole))
    assert ours.shape == case.start.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("method", ["random", "k-means++"])
@settings(max_examples=60)
@given(cases(), st.integers(0, 2**63 - 1))
def test_seeds_are_distinct_rows_of_positive_weight(method: str, case: Case, seed: int) -> None:
    """As many as asked for, or as there are; a row of weight zero never is one, nor a copy of another seed."""
    weights = np.ones(len(case.X)) if case.weights is None else case.weights
    k = len(case.start)
    with case.blocks() as blocks:
        seeds = seeding.seeds(blocks, k, seed, method)
    weighty = case.X[weights > 0]
    places(seeds, weighty)  # each is a row
    assert distinct(seeds) == min(k, distinct(weighty))


@settings(max_examples=40)
@given(cases(), st.integers(0, 2**63 - 1))
def test_parallel_seeds_lie_among_the_rows(case: Case, seed: int) -> None:
    """k-means|| gives means of candidates: within the rows of positive weight, distinct where these are enough."""
    weights = np.ones(len(case.X)) if case.weights is None else case.weights
    k = len(case.start)
    with case.blocks() as blocks:
        seeds = seeding.seeds(blocks, k, seed, "k-means||")
    weighty = case.X[weights > 0].astype(np.float64)
    # A mean of float64 values may round past the largest of them.
    slack = 1e-12 * np.abs(weighty).max(axis=0)
    assert (seeds >= weighty.min(axis=0) - slack).all()
    assert (seeds <= weighty.max(axis=0) + slack).all()
    if distinct(weighty) <= k:
        assert distinct(seeds) == distinct(weighty)


@METHODS
@pytest.mark.parametrize("scale", [1e-155, 1e-30, 1e-6, 1.0, 1e30, 1e140])
def test_seeds_do_not_depend_on_the_scale(method: str, scale: float) -> None:
    """Data in other units, by a power of two, have the same rows for seeds."""
    X = np.random.default_rng(0).normal(size=(500, 3))
    factor = 2.0 ** round(np.log2(scale))
    with blocked(X) as plain, blocked(X * factor) as scaled:
        expected = seeding.seeds(plain, 12, 5, method) * factor
        found = seeding.seeds(scaled, 12, 5, method)
    if scale > 1e-100:  # below, squares lose digits
        assert np.array_equal(found, expected)
    assert distinct(found) == 12


def test_rows_too_close_for_the_first_exponent_are_still_found() -> None:
    """Where what is left costs less than a unit of the total, the unit becomes smaller: no seed is missing."""
    X = np.array([[0.0], [1e-9], [2e-9], [1e12]])
    with blocked(X) as blocks:
        for seed in range(20):
            assert distinct(seeding.seeds(blocks, 4, seed, "k-means++")) == 4


@METHODS
def test_few_distinct_rows_are_all_found(method: str) -> None:
    """With k-1, k or k+1 distinct rows among many copies, the seeds hold k distinct ones or all."""
    for n_distinct in (4, 5, 6):
        X = np.repeat(np.arange(n_distinct * 2.0).reshape(-1, 2), 40, axis=0)
        with blocked(X, (0, 50, 100, len(X))) as blocks:
            for seed in range(10):
                assert distinct(seeding.seeds(blocks, 5, seed, method)) == min(5, n_distinct)


@METHODS
def test_seeds_differ_from_seed_to_seed(method: str) -> None:
    """Another seed, other rows; the same seed, the same."""
    X = np.random.default_rng(0).normal(size=(400, 2))
    with blocked(X) as blocks:
        found = [seeding.seeds(blocks, 5, seed, method).tobytes() for seed in (*range(20), 0)]
    assert len(set(found)) == 20
    assert found[0] == found[-1]


def first_rows(blocks: Blocks, X: np.ndarray, method: str, n: int) -> Counter[int]:
    """Return how often each row is the only seed."""
    return Counter(places(seeding.seeds(blocks, 1, seed, method), X)[0] for seed in range(n))


@pytest.mark.parametrize("method", ["random", "k-means++"])
def test_the_first_row_is_drawn_in_proportion_to_its_weight(method: str) -> None:
    """Of 2,000 seeds, weights 1, 0, 2, 5 get about 1/8, none, 1/4, 5/8; random rows count alike."""
    X, weights = np.arange(4.0)[:, None], np.array([1.0, 0.0, 2.0, 5.0])
    with blocked(X, (0, 2, 4), weights) as blocks:
        found = first_rows(blocks, X, method, 2000)
    expected = [1 / 3, 0, 1 / 3, 1 / 3] if method == "random" else [1 / 8, 0, 1 / 4, 5 / 8]
    assert found[1] == 0
    for row, p in enumerate(expected):
        # Five standard deviations of a count of 2,000 draws.
        assert abs(found[row] - 2000 * p) <= 5 * np.sqrt(2000 * p * (1 - p))


def test_plus_plus_draws_by_weighted_squared_distance() -> None:
    """After the first row the second is drawn with chance w * D^2 / total, over 4,000 seeds."""
    X, weights = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([1.0, 2.0, 1.0, 0.5])
    pairs: Counter[tuple[int, ...]] = Counter()
    with blocked(X, (0, 1, 4), weights) as blocks:
        for seed in range(4000):
            pairs[tuple(places(seeding.plus_plus(blocks, 2, seed, n_draws=1), X))] += 1
    for first in range(4):
        costs = weights * (X[:, 0] - X[first, 0]) ** 2
        for second in range(4):
            p = weights[first] / weights.sum() * costs[second] / costs.sum()
            assert abs(pairs[first, second] - 4000 * p) <= 5 * np.sqrt(4000 * p * (1 - p))


@settings(max_examples=60)
@given(cases())
def test_gains_are_what_the_exact_cost_falls_by(case: Case) -> None:
    """A choice's gain is the cost of all rows without it less that with it, to the last unit."""
    chosen, others = np.split(case.X[:: max(1, len(case.X) // 6)].astype(np.float64), [1])
    with case.blocks() as blocks:
        known = Known.nothing(blocks.summary).extended(chosen)
        limbs = blocks.map_reduce(draws.gains, "run", known, others, combine=sums.added)
        before = blocks.map_reduce(draws.total, "run", known, combine=int.__add__)
        after = [
            blocks.map_reduce(draws.total, f"with {i}", known.extended(row[None]), combine=int.__add__)
            for i, row in enumerate(others)
        ]
    assert sums.integers(limbs) == [before - cost for cost in after]


@settings(max_examples=100)
@given(cases(), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_rows_in_order_are_drawn_as_by_ranges(case: Case, k: int, n_draws: int, seed: int) -> None:
    """One look at the rows of one block draws what looks level by level draw, until no row costs anything."""
    block = block_of_rows(case.X.astype(np.float64), NO_WEIGHTS if case.weights is None else case.weights)
    with LocalBlocks([block], n_threads=1) as blocks:
        by_ranges = seeding.plus_plus(blocks, k, seed, n_draws)
    assert greedy(block, k, seed, n_draws).tobytes() == by_ranges.tobytes()


def test_many_rows_in_order_are_drawn_as_by_ranges() -> None:
    """The same where rows are so many that ranges have two levels, with weights of all magnitudes."""
    rng = np.random.default_rng(0)
    block = block_of_rows(rng.normal(size=(20_000, 3)), 10.0 ** rng.uniform(-9, 9, size=20_000))
    with LocalBlocks([block], n_threads=1) as blocks:
        by_ranges = seeding.plus_plus(blocks, 30, 1, 5)
    assert greedy(block, 30, 1, 5).tobytes() == by_ranges.tobytes()


def test_greedy_plus_plus_takes_the_best_of_the_rows_it_draws() -> None:
    """Each seed after the first is that of its drawn rows under which all cost least; all cost less than plain ones."""
    X = np.random.default_rng(3).normal(size=(300, 2)) + 8 * np.random.default_rng(4).integers(0, 3, (300, 1))
    plain, greedy = 0.0, 0.0

    def cost(chosen: np.ndarray) -> float:
        return float(((X[:, None] - chosen) ** 2).sum(axis=2).min(axis=1).sum())

    with blocked(X, (0, 100, 300)) as blocks:
        for seed in range(40):
            found = seeding.plus_plus(blocks, 6, seed, n_draws=4)
            for n in range(1, 6):
                chosen = seeding._Chosen(blocks, "run", Known.nothing(blocks.summary).extended(found[:n]))
                drawn = chosen.draw(seed, [f"plus plus {n}", *(f"plus plus {n} draw {i}" for i in (1, 2, 3))])
                assert drawn is not None
                costs = [cost(np.vstack((found[:n], row))) for row in drawn]
                assert (drawn[int(np.argmin(costs))] == found[n]).all()
            greedy += cost(found)
            plain += cost(seeding.plus_plus(blocks, 6, seed, n_draws=1))
    assert greedy < 0.9 * plain


@settings(max_examples=60)
@given(cases())
def test_a_chosen_row_costs_exactly_nothing(case: Case) -> None:
    """Squared distances to the choices are canonical: 0 for a chosen row, the loops' for all, in steps or at once."""
    chosen = case.X[:: max(1, len(case.X) // 4)].astype(np.float64)
    with case.blocks() as blocks:
        at_once = Known.nothing(blocks.summary).extended(chosen)
        in_steps = Known.nothing(blocks.summary).extended(chosen[:1])
        for block in blocks.blocks:
            draws.nearest(block, "steps", in_steps)
        in_steps = in_steps.extended(chosen[1:])
        found = [
            [np.concatenate(parts).tolist() for parts in zip(*pairs, strict=True)]
            for pairs in (
                [draws.nearest(block, run, known) for block in blocks.blocks]
                for run, known in (("once", at_once), ("steps", in_steps))
            )
        ]
    labels = naive.nearest(case.X, chosen)
    expected = [naive.sq_distance(x, chosen[j]) for x, j in zip(naive.rows_of(case.X), labels, strict=True)]
    assert found == [[expected, labels]] * 2
    assert all(found[0][0][i] == 0 for i in range(0, len(case.X), max(1, len(case.X) // 4)))


@settings(max_examples=40)
@given(
    st.sampled_from(("grid", "blobs", "far")), st.integers(1, 6), st.sampled_from(("float32", "float64")),
    st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 2**32),
)  # fmt: skip
def test_choices_that_are_passed_over_were_not_closer(
    kind: str, d: int, dtype: str, steps: list[int], seed: int
) -> None:
    """Rows ordered by nearness have the first of their nearest choices, and exactly its distance, in any steps."""
    rng = np.random.default_rng(seed)
    n = 5000  # enough that they are ordered
    X = rng.integers(0, 6, size=(n, d)).astype(np.float64)
    if kind != "grid":
        X = 20 * rng.normal(size=(8, d))[rng.integers(0, 8, n)] + rng.normal(size=(n, d))
    X = (X + (2.0**16 if kind == "far" else 0.0)).astype(dtype)
    chosen = X[rng.integers(0, n, sum(steps))].astype(np.float64)
    with blocked(X, (0, n)) as blocks:
        known = Known.nothing(blocks.summary)
        for stop in np.cumsum(steps):
            known = known.extended(chosen[len(known.centroids) : stop])
            found = [draws.nearest(block, "run", known) for block in blocks.blocks]
        row_ids = np.concatenate([block.row_ids() for block in blocks.blocks])
    sq_distances, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert (np.diff(row_ids) < 0).any()
    expected = np.zeros((n, len(chosen)))
    for f in range(d):  # features in their order
        expected += (X[row_ids, f].astype(np.float64)[:, None] - chosen[:, f]) ** 2
    assert np.array_equal(labels, expected.argmin(axis=1))
    assert np.array_equal(sq_distances, expected.min(axis=1))


@settings(max_examples=100)
@given(tables(), st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**32))
def test_rows_by_their_choices_get_what_tiles_get(X: np.ndarray, n_before: int, n: int, seed: int) -> None:
    """Looking at the rows of each choice in turn leaves the labels and squared distances that tile by tile leaves."""
    rng = np.random.default_rng(seed)
    before, after = (X[rng.integers(0, len(X), m)].astype(np.float64) for m in (n_before, n))
    [block] = cut(X, (0, len(X)))
    balls, (first, scan) = passes.balls_of(block), (passes.scan_of(c, X.dtype) for c in (before, after))
    state = np.full(len(X), -1, np.int32), np.full(len(X), np.inf), np.full(len(block.tiles), np.inf)
    draw_kernels.take_closer(block.tiles, len(X), balls, first, before, 0, state)
    others = tuple(part.copy() for part in state)
    draw_kernels.take_closer(block.tiles, len(X), balls, scan, after, n_before, state)
    closer.take_closer_by_choice(block.tiles, len(X), scan, np.concatenate((before, after)), n_before, others)
    assert [part.tolist() for part in others] == [part.tolist() for part in state]


def test_many_new_choices_are_taken_by_the_choices_that_rows_have() -> None:
    """Of rows and choices enough that this is done, some at a time, no bit differs from those of plain distances."""
    X = np.random.default_rng(0).normal(size=(10_000, 4)) + 9 * np.random.default_rng(1).integers(
        0, 3, (10_000, 1)
    )
    chosen = X[::9]
    with blocked(X) as blocks:
        known = Known.nothing(blocks.summary).extended(chosen[:200])
        draws.nearest(blocks.blocks[0], "run", known)
        sq_distances, labels = draws.nearest(blocks.blocks[0], "run", known.extended(chosen[200:]))
        row_ids = blocks.blocks[0].row_ids()
    expected = np.zeros((len(X), len(chosen)))
    for f in range(4):
        expected += (X[row_ids, f][:, None] - chosen[:, f]) ** 2
    assert np.array_equal(sq_distances, expected.min(axis=1))
    assert np.array_equal(labels, expected.argmin(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_rows_in_order_are_drawn_as_by_ranges(dtype: type) -> None:
    """The same where scores are added up from parts of the features."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(300, 261)) + 5 * rng.integers(0, 4, size=(300, 1))).astype(dtype).astype(np.float64)
    block = block_of_rows(X)
    with LocalBlocks([block], n_threads=1) as blocks:
        by_ranges = seeding.plus_plus(blocks, 20, 3, 4)
    assert block.tiles.dtype == dtype
    assert greedy(block, 20, 3, 4).tobytes() == by_ranges.tobytes()


def test_rows_are_drawn_by_their_uniform_numbers() -> None:
    """The compiled hash is that of `randoms`, whatever the order of rows and their first id."""
    rng = np.random.default_rng(5)
    key = randoms.derived(3, "parallel", 1)
    sq_distances, weights = rng.random(4000), rng.integers(0, 3, 4000).astype(np.float64)
    for kept in (np.empty(0, np.uint32), rng.permutation(4000).astype(np.uint32)):
        ids = 2**40 + (kept.astype(np.int64) if kept.size else np.arange(4000))
        for some in (np.empty(0), weights):
            drawn = np.empty(4000, np.int64)
            n = draw_kernels.draw_rows(sq_distances, some, (kept, 2**40), np.uint64(key), 30.0, 40.0, drawn)
            chances = sq_distances * some if some.size else sq_distances
            expected = np.flatnonzero(randoms.uniforms(key, ids) * 40.0 < 30.0 * chances)
            assert drawn[:n].tolist() == expected.tolist()
            assert 100 < n < 3900


def test_costs_are_exact_and_draws_follow_them() -> None:
    """The total is the sum of the rows' costs, and each unit of it belongs to one row, whatever the blocks."""
    X = np.arange(6.0)[:, None]
    weights = np.array([1.0, 0.0, 2.0, 1.0, 3.0, 1.0])
    for cuts in ((0, 6), (0, 3, 3, 6), (0, 1, 2, 3, 4, 5, 6)):
        with blocked(X, cuts, weights) as blocks:
            known = Known.nothing(blocks.summary).extended(X[:1])
            costs = blocks.map_reduce(draws.costs, "run", known, 0, combine=draws.Buckets.joined)
            unit = 2 ** (sums.SQUARE_BITS - known.cost_exponent)
            per_row, running = (weights * X[:, 0] ** 2).astype(int).tolist(), costs.added_up()
            assert sum(costs.totals()) == sum(per_row) * unit
            picked = [
                running.at(drawn)[0]
                for whole in range(sum(per_row))
                for drawn in (whole * unit, whole * unit + unit - 1)
            ]
        assert picked == [i for i, cost in enumerate(per_row) for _ in range(2 * cost)]


def test_ranges_within_a_range_hold_its_rows_and_no_others() -> None:
    """Costs by row id >> shift add up level by level, in blocks whose rows are ordered by nearness too."""
    X = np.random.default_rng(0).normal(size=(9000, 2))
    with blocked(X, (0, 4500, 9000)) as blocks:
        assert any((np.diff(block.row_ids()) < 0).any() for block in blocks.blocks)
        known = Known.nothing(blocks.summary).extended(X[:3])
        levels = [
            blocks.map_reduce(draws.costs, "run", known, *asked, combine=draws.Buckets.joined)
            for asked in ((10,), (4, (3, 10)), (0, (200, 4)))
        ]
        rows = blocks.map_reduce(draws.costs, "run", known, 0, combine=draws.Buckets.joined)
    per_row = dict(zip(rows.ids.tolist(), rows.totals(), strict=True))
    assert sorted(per_row) == list(range(9000))
    for found, shift, first, stop in (
        (levels[0], 10, 0, 9000),
        (levels[1], 4, 3072, 4096),
        (levels[2], 0, 3200, 3216),
    ):
        expected: dict[int, int] = {}
        for i in range(first, stop):
            expected[i >> shift] = expected.get(i >> shift, 0) + per_row[i]
        assert dict(zip(found.ids.tolist(), found.totals(), strict=True)) == expected


def test_parallel_draws_about_l_rows_a_round() -> None:
    """Each row is drawn with chance l * w * D^2 / cost, at most 1: counts and chances match over 300 keys."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(600, 2))
    weights = rng.integers(0, 3, size=600).astype(np.float64)
    with blocked(X, (0, 200, 600), weights, n_threads=2) as blocks:
        known = Known.nothing(blocks.summary).extended(X[:3])
        sq_distances = np.concatenate([draws.nearest(block, "run", known)[0] for block in blocks.blocks])
        chances = np.minimum(1, 20 * weights * sq_distances / (weights * sq_distances).sum())
        drawn = np.zeros(600)
        for r in range(300):
            cost = float((weights * sq_distances).sum())
            key = randoms.derived(7, "parallel", r)
            rows = blocks.map_reduce(draws.sample, "run", known, key, 20.0, cost, combine=draws.Rows.joined)
            drawn[rows.row_ids] += 1
    assert (drawn[(weights == 0) | (sq_distances == 0)] == 0).all()
    # Five standard deviations: of all draws, and of each row's.
    assert abs(drawn.sum() - 300 * chances.sum()) <= 5 * np.sqrt(300 * (chances * (1 - chances)).sum())
    assert (np.abs(drawn - 300 * chances) <= 5 * np.sqrt(300 * chances * (1 - chances)) + 1).all()


@pytest.mark.parametrize("n_levels", [1, 4])
def test_parallel_goes_on_while_rounds_halve_the_cost(n_levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds over clusters of one size; more where groups lie in groups, each a hundredth as far apart."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(4000, 3))
    for level in range(1, n_levels + 1):
        X += 100.0**level * rng.normal(size=(3, 3))[rng.integers(3, size=len(X))]
    costs, cost = list[int](), seeding._Chosen.cost

    def noted(chosen: seeding._Chosen) -> int:
        costs.append(cost(chosen))
        return costs[-1]

    monkeypatch.setattr(seeding._Chosen, "cost", noted)
    with blocked(X, (0, len(X)), n_threads=1) as blocks:
        seeding.parallel(blocks, 3, 1)
    fell = [after <= before / 2 for before, after in pairwise(costs)]
    assert len(costs) == 4 if n_levels == 1 else 5 <= len(costs) <= 8
    assert all(fell[2:-1])  # of the rounds that another one followed, though they need not have
    assert not fell[-1] or len(costs) == 8


def test_weights_of_the_candidates_are_those_of_their_rows() -> None:
    """Reclustering weighs each candidate by the rows nearest to it; a second copy of a candidate weighs nothing."""
    X = np.arange(10.0)[:, None]
    weights = np.arange(10.0)
    chosen = np.array([[0.0], [9.0], [0.0]])
    with blocked(X, (0, 4, 10), weights) as blocks:
        known = Known.nothing(blocks.summary).extended(chosen)
        limbs = blocks.map_reduce(draws.weights_of, "run", known, combine=sums.added)
    assert [sums.value(t, known.weight_exponent) for t in sums.integers(limbs)] == [10.0, 35.0, 0.0]


def test_the_smallest_hashes_of_distinct_rows() -> None:
    """Random rows are those of the lowest hash of each distinct row, as a sort of all rows has them."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, size=(500, 2)).astype(np.float64)
    X[::7] = -0.0  # equals 0.0
    key = randoms.derived(3, "random rows")
    order = np.argsort(randoms.row_hashes(key, np.arange(500)))
    expected: list[tuple[float, ...]] = []
    for i in order:
        if tuple(X[i] + 0.0) not in expected:
            expected.append(tuple(X[i] + 0.0))
    for cuts in ((0, 500), (0, 100, 130, 500)):
        blocks = cut(X, cuts)
        parts = [draws.smallest([block], key, 6) for block in blocks]
        merge = partial(draws.merge_smallest, key=key, m=6)
        for ordered in (parts, parts[::-1]):
            rows = ordered[0]
            for part in ordered[1:]:
                rows = merge(rows, part)
            assert [tuple(x) for x in (rows.values + 0.0).tolist()] == expected[:6]


def test_uniform_integers_of_any_size() -> None:
    """Drawn below a bound: every value of a small one about as often, none at or above, also beyond 64 bits."""
    counts = Counter(randoms.below(6, seed, "test") for seed in range(6000))
    assert sorted(counts) == list(range(6))
    # Five standard deviations of a count of 6,000 draws with chance 1/6.
    assert all(abs(n - 1000) <= 5 * np.sqrt(6000 * 5 / 36) for n in counts.values())
    huge = [randoms.below(2**100 + 1, seed, "test") for seed in range(200)]
    assert max(huge) <= 2**100
    assert len({x >> 96 for x in huge}) > 10
    assert randoms.below(1, 0, "test") == 0


def test_uniform_numbers_of_rows() -> None:
    """One number in [0, 1) per (key, row id), whatever rows are asked with it; other keys, other numbers."""
    ids = np.arange(10_000)
    numbers = randoms.uniforms(9, ids)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.array_equal(numbers[[5, 77]], randoms.uniforms(9, np.array([5, 77])))
    # Five standard deviations of a mean of 10,000 uniform numbers, and of a correlation.
    assert abs(numbers.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 10_000)
    assert abs(np.corrcoef(numbers, randoms.uniforms(10, ids))[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05
