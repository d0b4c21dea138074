"""Exact sums: integers in limbs, whose order and grouping cannot matter."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans_dask import draw_kernels, kernels, sums
from kmeans_dask.blocks import NO_WEIGHTS
from kmeans_dask.errors import DataError
from tests.blockings import addend

ROWS = 2**31  # in one accumulator, at most
LARGEST = math.nextafter(1.0, 0.0)

finite = st.floats(-(2.0**480), 2.0**480)
int64s = st.integers(-(2**63), 2**63 - 1)


def accumulated(values: list[float], exponent: int) -> np.ndarray:
    """Return the limbs of a run of values in one cluster."""
    high, low = np.zeros(1, np.int64), np.zeros(1, np.int64)
    labels = np.zeros(len(values), np.int32)
    kernels.add_values(np.array(values), labels, sums.scale(exponent), high, low)
    return sums.normalised(high, low)


def total(values: list[float], exponent: int) -> int:
    """Return the exact total of a run of values, in units of 2**(exponent - 63)."""
    return sums.integers(accumulated(values, exponent))[0]


def exponent_of(values: list[float]) -> int:
    """Return the exponent of the largest magnitude."""
    return sums.exponent(max(map(abs, values)))


@given(st.lists(finite, min_size=1, max_size=30))
def test_a_sum_is_that_of_its_addends(values: list[float]) -> None:
    """Each value counts to 63 bits below the bound, whatever its neighbours; nothing else is lost."""
    e = exponent_of(values)
    expected = sum(addend(v, max(map(abs, values))) for v in values)
    assert total(values, e) * Fraction(2) ** (e - 63) == expected
    assert sums.value(total(values, e), e) == float(expected)


@given(st.lists(finite, min_size=1, max_size=30), st.randoms(use_true_random=False), st.integers(0, 30))
def test_order_and_grouping_never_matter(values: list[float], random: object, at: int) -> None:
    """Any permutation, cut anywhere, combined in either order, has the same limbs."""
    e, shuffled = exponent_of(values), list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = accumulated(values, e)
    parts = accumulated(shuffled[:at], e), accumulated(shuffled[at:], e)
    assert np.array_equal(whole, sums.added(*parts))
    assert np.array_equal(whole, sums.added(parts[1], parts[0]))


@given(int64s, int64s, int64s, int64s)
def test_limbs_hold_any_accumulators(a: int, b: int, c: int, d: int) -> None:
    """Carried, added and joined again, accumulators up to the limits of int64 keep their value."""
    limbs = [sums.normalised(np.array([h]), np.array([x])) for h, x in ((a >> 1, b), (c >> 1, d))]
    for part in limbs:
        assert ((part[1:] >= 0) & (part[1:] < 2**32)).all()
    assert sums.integers(sums.added(*limbs)) == [((a >> 1) << 32) + b + ((c >> 1) << 32) + d]


@pytest.mark.parametrize("sign", [1, -1])
def test_accumulators_hold_two_to_the_31_rows(sign: int) -> None:
    """The largest addend, 2**31 times, stays within int64; carried, such totals add up for as long as one likes."""
    high, low = np.zeros(1, np.int64), np.zeros(1, np.int64)
    kernels.add_values(np.array([sign * LARGEST]), np.zeros(1, np.int32), sums.scale(0), high, low)
    assert 0 < sign * int(high[0]) < 2**31
    assert 0 <= sign * int(low[0]) < 2**32
    most_high, most_low = int(high[0]) * ROWS, int(low[0]) * ROWS
    assert -(2**63) <= most_low < 2**63
    # The carry of the low limb goes on top.
    assert -(2**63) <= most_high + (most_low >> 32) < 2**63
    # No value has a low limb of all ones and a high one too; the argument holds even so.
    assert (2**32 - 1) * ROWS < 2**63
    limbs = sums.normalised(np.array([most_high]), np.array([most_low]))
    for _ in range(10):
        limbs = sums.added(limbs, limbs)
    assert sums.integers(limbs) == [1024 * ((most_high << 32) + most_low)]


def test_a_column_of_zeros() -> None:
    """A bound of zero has an exponent like any other, and a sum of zero."""
    assert sums.exponent(0.0) == sums.exponent(2.0**-1074)
    assert sums.value(total([0.0, -0.0, 0.0], sums.exponent(0.0)), sums.exponent(0.0)) == 0.0


@pytest.mark.parametrize("bound", [2.0**-1074, 2.0**-1022, 1e-300, 0.5, 1.0, 2.0**60, 1e300, 2.0**1023])
def test_exponents_at_the_edges(bound: float) -> None:
    """A bound lies below 2**E, its factor is finite, and a sum up to it returns; or is below the smallest unit."""
    e = sums.exponent(bound)
    assert bound < Fraction(2) ** e
    assert math.isfinite(sums.scale(e))
    assert abs(bound * sums.scale(e)) < 2**31
    if bound >= 2.0**-980:
        assert sums.value(total([bound, -bound, bound], e), e) == bound
        assert bound >= Fraction(2) ** (e - 1)
    else:
        assert abs(sums.value(total([bound], e), e) - bound) <= 2.0**-1043


@pytest.mark.parametrize("bound", [math.inf, math.nan])
def test_an_overflow_is_refused(bound: float) -> None:
    """A bound that is not finite is an error that names the way out."""
    with pytest.raises(DataError, match=r"must be finite; a bound of theirs is (inf|nan)\. Scale"):
        sums.exponent(bound)


@given(st.integers(-(10**40), 10**40), st.integers(-200, 200), st.integers(1, 10**20), st.integers(-200, 200))
def test_ratios_are_rounded_once(numerator: int, shift: int, divisor: int, divisor_shift: int) -> None:
    """A ratio of integers and powers of two is the nearest float64."""
    exact = Fraction(numerator) * Fraction(2) ** shift / (divisor * Fraction(2) ** divisor_shift)
    assert sums.ratio(numerator, shift, divisor, divisor_shift) == float(exact)


def test_sums_that_float64_loses() -> None:
    """The ones between two huge numbers of opposite sign are all there."""
    values = [2.0**52, *[1.0] * 1000, -(2.0**52)]
    for order in (values, values[::-1], sorted(values)):
        assert sums.value(total(order, 53), 53) == 1000.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.data())
def test_a_total_has_three_limbs_and_so_has_each_range(values: list[float], data: st.DataObject) -> None:
    """A total in 95 bits is the sum of the addends, and so are those of any ranges of rows."""
    e = exponent_of(values)
    unit = Fraction(2) ** (e - sums.SQUARE_BITS)
    addends = [int(Fraction(v) / unit) for v in values]
    array, factor = np.array(values), sums.scale(e)
    whole = sums.joined(*kernels.total_of(array, NO_WEIGHTS, factor))
    assert whole == sum(addends)
    where = np.array(
        data.draw(st.lists(st.integers(0, 6), min_size=len(values), max_size=len(values))), np.uint32
    )
    limbs = np.zeros((4, 3), np.int64)
    # Of the ids 16 to 22 the first two count nowhere, the others by twos.
    draw_kernels.add_costs(array, NO_WEIGHTS, factor, (where, 16), (18, 23, 1), limbs)
    for found in range(3):
        mine = [
            a
            for a, at in zip(addends, where.tolist(), strict=True)
            if 16 + at in (18 + 2 * found, 19 + 2 * found)
        ]
        assert (sums.joined(*limbs[:3, found].tolist()), limbs[3, found]) == (sum(mine), len(mine))
    assert sums.value(whole, e, sums.SQUARE_BITS) == float(whole * unit)


def test_weighted_totals_add_the_rounded_product() -> None:
    """An addend with a weight is the float64 product."""
    values, weights = np.array([0.1, 0.2, 0.7]), np.array([3.0, 0.0, 7.0])
    expected = sum(Fraction(float(w * v)) for w, v in zip(weights, values, strict=True))
    found = sums.joined(*kernels.total_of(values, weights, sums.scale(3)))
    assert found * Fraction(2) ** (3 - sums.SQUARE_BITS) == expected
    limbs, in_order = np.zeros((4, 1), np.int64), np.empty(0, np.uint32)
    draw_kernels.add_costs(values, weights, sums.scale(3), (in_order, 0), (0, 3, 2), limbs)
    assert sums.joined(*limbs[:3, 0].tolist()) == found
