"""Columns become stored rows: shifted without breaking ties, filled and scaled exactly."""

import itertools
import logging
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import packing, passes
from kmeans_dask.blocks import Block
from kmeans_dask.errors import DataError
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import Preparation, RowRange, Wishes
from tests import naive
from tests.blockings import cuttings

NAN = math.nan


def wishes(n_features: int, dtype: str = "float64", nulls: str = "error", scaling: str = "none") -> Wishes:
    """Return wishes for features named a, b, ..."""
    return Wishes(tuple("abcdefghij"[:n_features]), dtype, nulls, scaling)


def packed(
    columns: Sequence[np.ndarray], wish: Wishes, cuts: Sequence[int] = ()
) -> tuple[list[Block], Preparation]:
    """Return the columns as packed blocks between the cuts, and their provisional preparation."""
    ready = packing.provisional(columns, wish)
    bounds = cuts or (0, len(columns[0]))
    blocks = [
        packing.pack([column[a:b] for column in columns], RowRange(a, b - a), ready)
        for a, b in itertools.pairwise(bounds)
    ]
    return blocks, ready


def prepared(
    columns: Sequence[np.ndarray], wish: Wishes, cuts: Sequence[int] = ()
) -> tuple[LocalBlocks, Preparation]:
    """Return the columns packed and finished, and their final preparation."""
    blocks, ready = packed(columns, wish, cuts)
    with LocalBlocks(blocks, 2) as held:
        final = packing.final(held, ready)
        return held.map_blocks(packing.finish, final), final


def stored(blocks: LocalBlocks | Sequence[Block]) -> np.ndarray:
    """Return the stored rows, (n, d)."""
    held = blocks.blocks if isinstance(blocks, LocalBlocks) else blocks
    return np.concatenate([block.all_rows() for block in held])


# The shift ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1_000_000, -1_000_003, 10**9, 10**12, 2**45 + 1]))
def test_ties_stay_ties(seed: int, offset: int) -> None:
    """Integers far from zero, stored in float32, have the labels of the exact computation, ties included."""
    rng = np.random.default_rng(seed)
    near = rng.integers(-20, 20, size=(80, 3))
    columns = [(near[:, f] + offset).astype(np.float64) for f in range(3)]
    blocks, ready = packed(columns, wishes(3, "float32"))
    which = rng.integers(80, size=6)
    exact = naive.nearest(near, near[which])  # small integers: nothing is rounded
    start = ready.prepared(np.column_stack(columns)[which])
    scan = passes.scan_of(start, np.dtype("float32"))
    assert passes.labels_of(blocks[0], start, scan).tolist() == exact
    # The shift is exact: what is stored differs from the integers by one number.
    assert {tuple(row) for row in (stored(blocks) - near).tolist()} == {
        tuple((offset - ready.shift).tolist())
    }


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20).filter(lambda v: max(v) > min(v)))
def test_the_shift_is_near_the_mean_and_coarse(values: list[float]) -> None:
    """It is the mean to a multiple of 2**(floor(log2(range)) - 4)."""
    ready = packing.provisional([np.array(values)], wishes(1))
    spread = max(values) - min(values)
    grid = Fraction(2) ** (math.frexp(spread)[1] - 1 - 4)
    mean = sum(map(Fraction, values)) / len(values)
    if abs(mean / grid) < 2**50:
        assert Fraction(float(ready.shift[0])) % grid == 0
        # Half a step, and what rounding the mean to float64 adds.
        assert abs(Fraction(float(ready.shift[0])) - mean) <= grid / 2 * (1 + Fraction(1, 1000))


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 1e6, -1e9, 1e15]), st.sampled_from([1, 2, 7, 3000])
)
def test_shifts_by_plain_sums_are_those_by_exact_ones(seed: int, offset: float, n: int) -> None:
    """Whatever is left to the exact ones, and where all are."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)) * 10.0 ** rng.integers(-3, 4, size=6) + offset
    X[:, 0] = np.round(X[:, 0])
    with pytest.MonkeyPatch.context() as patched:
        shift = packing.provisional(X.T, wishes(6)).shift
        patched.setattr(packing, "_plain_shifts", lambda lowest, *_: np.full(len(lowest), NAN))
        assert shift.tobytes() == packing.provisional(X.T, wishes(6)).shift.tobytes()


def test_a_mean_between_two_steps_is_left_to_exact_sums() -> None:
    """15.5 lies between 15 and 16, steps of a column from 0 to 31; a plain sum decides 15.6, of 0, 31 and 15.8."""
    ends = np.array([0.0, 0.0]), np.array([31.0, 31.0])
    found = packing._plain_shifts(*ends, np.array([31.0, 31.2]), 2)
    assert np.isnan(found[0])
    assert found[1] == 16.0
    assert packing.provisional([np.array([0.0, 31.0])], wishes(1)).shift.tolist() == [16.0]


def test_the_shift_of_the_first_rows_alone() -> None:
    """Rows after the first 65,536 do not move it, so packing can start before they are read."""
    head = np.random.default_rng(0).normal(size=packing.HEAD_ROWS) + 50
    one = packing.provisional([head], wishes(1))
    other = packing.provisional([np.concatenate((head, np.full(10, 1e6)))], wishes(1))
    assert one.equals(other)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e300, 1e15 + 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_column_becomes_zero(value: float, dtype: str) -> None:
    """Its shift is its own value, bit for bit."""
    blocks, ready = packed([np.full(10, value)], wishes(1, dtype))
    assert ready.shift.tolist() == [value]
    assert stored(blocks).tolist() == [[0.0]] * 10


def test_nulls_do_not_touch_the_shift() -> None:
    """NaN is skipped; a column with nothing else is shifted by nothing."""
    columns = [np.array([NAN, 4.0, NAN, 8.0]), np.full(4, NAN)]
    assert packing.provisional(columns, wishes(2)).shift.tolist() == [6.0, 0.0]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "float32", "float64"])
def test_columns_of_any_number_type(dtype: str) -> None:
    """Each is stored as its numbers are."""
    column = np.array([3, 1, 2, 120], dtype)
    blocks, ready = packed([column], wishes(1, "float32"))
    assert (stored(blocks) + ready.shift)[:, 0].tolist() == [3, 1, 2, 120]


def test_columns_that_are_not_contiguous() -> None:
    """Slices with a step are stored as they read."""
    wide = np.arange(30.0).reshape(10, 3)
    blocks, ready = packed(list(wide[::2].T), wishes(3))
    assert (stored(blocks) + ready.shift).tolist() == wide[::2].tolist()


# Nulls ------------------------------------------------------------------------------------


def test_rows_with_nulls_are_dropped() -> None:
    """Under "drop" a row with a NaN is not packed; its neighbours keep their row ids and weights."""
    columns = [np.array([1.0, NAN, 3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0, NAN, 5.0])]
    ready = packing.provisional(columns, wishes(2, nulls="drop"))
    weights = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    block = packing.pack(columns, RowRange(100, 5), ready, weights)
    assert block.row_ids().tolist() == [100, 102, 104]
    assert block.weights.tolist() == [10, 30, 50]
    assert (block.all_rows() + ready.shift).tolist() == [[1, 1], [3, 3], [5, 5]]
    listed = np.array([0, 3, 4, 8, 9], np.uint32)
    block = packing.pack(columns, RowRange(100, 10, listed), ready, weights)
    assert block.row_ids().tolist() == [100, 104, 109]
    assert block.listed is not None
    assert block.listed.tolist() == listed.tolist()


@settings(max_examples=40)
@given(st.data(), st.sampled_from(["float32", "float64"]))
def test_nulls_take_the_exact_mean(data: st.DataObject, dtype: str) -> None:
    """Under "mean" each null is the mean of its column's stored values, rounded once, whatever the blocks."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    columns = [rng.normal(size=40) * 100, rng.integers(0, 9, size=40).astype(np.float64)]
    for column in columns:
        column[rng.random(40) < 0.3] = NAN
        column[0] = 1.0
    blocks, ready = packed(columns, wishes(2, dtype, "mean"))
    raw = stored(blocks)
    done, final = prepared(columns, wishes(2, dtype, "mean"), data.draw(cuttings(40)))
    for f in range(2):
        present = raw[:, f][~np.isnan(raw[:, f])]
        mean = float(sum(map(Fraction, present.tolist())) / len(present))
        # Values up to 2**9 are cut off 63 bits below it: 40 of them cannot be seen but in the last bit.
        assert final.fill[f] == pytest.approx(mean, rel=2.0**-52, abs=2.0**-53)
        expected = np.where(np.isnan(raw[:, f]), np.dtype(dtype).type(final.fill[f]), raw[:, f])
        assert stored(done)[:, f].tolist() == expected.tolist()
    assert final.scale.tolist() == [1, 1]
    assert final.center.tolist() == [0, 0]
    assert ready.shift.tolist() == final.shift.tolist()


def test_a_column_of_nulls_has_no_mean() -> None:
    """The error names the column and the ways out."""
    columns = [np.arange(5.0), np.full(5, NAN)]
    with pytest.raises(
        DataError, match=r"feature 'b': every value is null.*Leave the column out, or use nulls = \"drop\""
    ):
        prepared(columns, wishes(2, nulls="mean"))


def test_dropped_nulls_may_leave_no_row() -> None:
    """No column is blamed that has values, and what is set already is no way out."""
    columns = [np.arange(5.0), np.full(5, NAN)]
    with pytest.raises(
        DataError, match=r'nulls = "drop" leaves no row: each has a null in one of a, b\. Leave out'
    ):
        prepared(columns, wishes(2, nulls="drop", scaling="standard"))


# Scale --------------------------------------------------------------------------------------


def test_standard_scaling_worked_by_hand() -> None:
    """2, 4, 4, 4, 5, 5, 7, 9 have mean 5 and population deviation 2."""
    done, final = prepared([np.array([2.0, 4, 4, 4, 5, 5, 7, 9])], wishes(1, scaling="standard"))
    assert stored(done)[:, 0].tolist() == [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2]
    assert (final.center + final.shift).tolist() == [5]
    assert final.scale.tolist() == [2]
    assert final.in_units(np.array([[0.0], [-1.5]])).tolist() == [[5], [2]]
    assert final.prepared(np.array([[5.0], [2.0]])).tolist() == [[0], [-1.5]]


@settings(max_examples=40)
@given(st.data(), st.sampled_from([0.0, 1e6, -1e9]), st.sampled_from([1e-6, 1.0, 1e6]))
def test_the_deviation_is_exact(data: st.DataObject, offset: float, spread: float) -> None:
    """It is that of the population over the values that are there, to the rounding of a square, for any blocks."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    column = rng.normal(size=50) * spread + offset
    column[rng.random(50) < 0.2] = NAN
    column[:2] = offset, offset + spread
    raw = stored(packed([column], wishes(1, nulls="mean", scaling="standard"))[0])[:, 0]
    done, final = prepared([column], wishes(1, nulls="mean", scaling="standard"), data.draw(cuttings(50)))
    whole, same = prepared([column], wishes(1, nulls="mean", scaling="standard"))
    assert final.equals(same)
    assert stored(done).tobytes() == stored(whole).tobytes()
    present = [Fraction(x) for x in raw.tolist() if x == x]
    mean = sum(present) / len(present)
    variance = sum((x - mean) ** 2 for x in present) / len(present)
    # The mean, each square and the root are rounded.
    assert final.center[0] == pytest.approx(float(mean), rel=1e-14, abs=1e-14 * spread)
    assert final.scale[0] == pytest.approx(math.sqrt(variance), rel=1e-14)
    filled = stored(done)[:, 0][np.isnan(raw)]
    assert (filled == 0).all()


def test_constant_columns_become_zero_under_standard() -> None:
    """A constant column, nulls apart, has scale 0 and stored values 0; in units it is its value."""
    columns = [np.array([0.1, NAN, 0.1]), np.array([1.0, 2.0, 3.0])]
    done, final = prepared(columns, wishes(2, "float32", "mean", "standard"))
    assert stored(done)[:, 0].tolist() == [0, 0, 0]
    assert final.scale[0] == 0
    assert final.in_units(np.array([[0.0, 0.0]])).tolist() == [[0.1, 2.0]]


def test_a_constant_after_the_first_rows() -> None:
    """A column that is constant only by its stored values scales to zero, wherever its shift lies."""
    columns = [np.full(300, 5.0)]
    ready = Preparation(
        ("a",), "float64", np.array([3.0]), np.zeros(1), np.ones(1), np.zeros(1), "error", "standard"
    )
    with LocalBlocks([packing.pack(columns, RowRange(0, 300), ready)]) as blocks:
        final = packing.final(blocks, ready)
        assert stored(blocks.map_blocks(packing.finish, final)).tolist() == [[0.0]] * 300
    assert final.in_units(np.zeros((1, 1))).tolist() == [[5.0]]


@settings(max_examples=40)
@given(st.data())
def test_moments_do_not_depend_on_blocks(data: st.DataObject) -> None:
    """Means and variances have the same bits for any cutting, with huge values beside small ones."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    columns = [10.0 ** rng.uniform(-8, 8, size=60), np.zeros(60), rng.normal(size=60)]
    with LocalBlocks(packed(columns, wishes(3))[0]) as whole:
        expected = packing.moments(whole)
    with LocalBlocks(packed(columns, wishes(3), data.draw(cuttings(60)))[0], 2) as cut:
        found = packing.moments(cut)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
    assert found[1][1] == 0


# Bounds ---------------------------------------------------------------------------------------


def test_pieces_without_a_value_do_not_widen_the_bounds() -> None:
    """A column that is null all through one piece has the moments of its values, however it is cut."""
    column = np.random.default_rng(0).normal(size=2048) + 1e6
    column[:512] = NAN
    found = []
    for cuts in ((0, 2048), (0, 512, 2048), (0, 128, 300, 512, 2048)):
        blocks, _ = packed([column], wishes(1, nulls="mean"), cuts)
        with LocalBlocks(blocks, 1) as local:
            found.append([moment.tolist() for moment in packing.moments(local)])
    assert found[0] == found[1] == found[2]


def test_magnitudes_beyond_the_dtype_are_refused() -> None:
    """A value too far from its column's centre for squared distances names feature, value, limit and fix."""
    rule = r"feature 'b': a value lies 3e\+18 from .* centre; .* hold only 8.15\d*e\+17\. Set dtype = \"float64\""
    columns = [np.arange(4.0), np.array([0.0, 1.0, 2.0, 3e18])]
    ready = packing.provisional([column[:3] for column in columns], wishes(2, "float32"))
    with pytest.raises(DataError, match=rule):
        packing.pack(columns, RowRange(0, 4), ready)
    wide = packing.provisional([column[:3] for column in columns], wishes(2))
    assert packing.pack(columns, RowRange(0, 4), wide).n_rows == 4
    columns[1][3] = 1e150
    with pytest.raises(DataError, match=r"in float64 hold only .* Rescale the column or drop the row"):
        packing.pack(columns, RowRange(0, 4), wide)


def test_the_largest_magnitudes_have_canonical_labels() -> None:
    """Rows just within the limit still get the labels of the loops."""
    limit = 2.0**60 / math.sqrt(2)
    X = np.array([[0.99, 0.5], [-0.99, 0.5], [0.0, -0.9], [0.98, 0.5]]) * limit
    ready = Preparation(
        ("a", "b"), "float32", np.zeros(2), np.zeros(2), np.ones(2), np.zeros(2), "error", "none"
    )
    block = packing.pack(list(X.T), RowRange(0, 4), ready)
    rows = block.all_rows()
    labels = passes.labels_of(block, rows, passes.scan_of(rows, block.tiles.dtype))
    assert labels.tolist() == naive.nearest(rows, rows) == [0, 1, 2, 3]


def test_coarse_columns_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A column whose spread float32 resolves with few bits is named, with its spread and step; others are not."""
    head = np.arange(100.0)
    columns = [head + 1e9, np.where(np.arange(100) == 99, 1e9, 0.0)]
    late = [np.concatenate((head, [1e9])), np.arange(101.0)]
    for values, named in ((columns, []), (late, [])):
        blocks, ready = packed(values, wishes(2, "float32"))
        with LocalBlocks(blocks) as held, caplog.at_level(logging.WARNING):
            packing.warn_of_coarse(held.summary, ready)
        assert [record.args[0] for record in caplog.records] == named  # type: ignore[index]
    moved = [np.arange(100.0), np.arange(100.0) + 1e9]
    ready = packing.provisional([np.arange(100.0), np.arange(100.0)], wishes(2, "float32"))
    with (
        LocalBlocks([packing.pack(moved, RowRange(0, 100), ready)]) as held,
        caplog.at_level(logging.WARNING),
    ):
        packing.warn_of_coarse(held.summary, ready)
    assert [record.getMessage() for record in caplog.records] == [
        "feature 'b': float32 resolves its spread of 128 only to 119; use dtype float64"
    ]
