"""Means of weighted rows: the kernel gives the bits that Python's division of integers gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import means, sums
from kmeans_dask.passes import Exponents, Partials, exponents
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track
from tests.blockings import blocked

WEIGHTS = {
    "counts": lambda rng, n: rng.integers(1, 1000, n).astype(float),
    "quarters": lambda rng, n: rng.integers(1, 99, n) / 4,
    "any": lambda rng, n: rng.random(n) + 0.01,
    "tiny": lambda rng, n: rng.integers(1, 9, n) * 2.0**-900,
    "large": lambda rng, n: rng.integers(1, 9, n) * 2.0**600,
    "mixed": lambda rng, n: 2.0 ** rng.integers(-40, 40, n),
}


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from(sorted(WEIGHTS)),
    st.integers(1, 5),
    st.sampled_from((-200, -3, 0, 9)),
)
def test_means_by_the_kernel_are_those_of_exact_integers(seed: int, kind: str, k: int, power: int) -> None:
    """Whether weights have few bits or many."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 3)) * 2.0**power
    with blocked(X, (0, 20, 60), WEIGHTS[kind](rng, 60)) as blocks:
        start = X[rng.permutation(60)[:k]]
        partials = blocks.map_reduce(
            lloyd_pass, Track("run", start).step(blocks, exact=False), combine=Partials.combined
        )
        scales = exponents(blocks.summary, start)
        found = means.updated(blocks, start, partials, scales)
    totals = means._Totals(partials, scales)
    assert found.tolist() == [totals.mean(j, start[j]).tolist() for j in range(k)]


@pytest.mark.parametrize(
    ("total", "divisor", "shift"),
    [(0, 0, 0), (1, 1, 0), (12, 3, 2), (2**31 - 1, 2**31 - 1, 0), (2**31 + 1, 0, 0), (3 * 2**70, 3, 70)],
)
def test_a_weight_as_a_short_divisor(total: int, divisor: int, shift: int) -> None:
    """Worked by hand: zeros at the end go to the shift, and what is left must be less than 2**31."""
    limbs = np.array([[total >> 64], [(total >> 32) & 0xFFFFFFFF], [total & 0xFFFFFFFF]], np.int64)
    with blocked(np.ones((1, 1))) as blocks:
        scales = exponents(blocks.summary, np.ones((1, 1)))
    divisors, shifts = means._divisors(limbs, scales)
    assert (divisors.tolist(), shifts.tolist()) == ([divisor], [shift + scales.weight - sums.BITS])


def test_more_rows_than_the_upper_limbs_hold_are_divided_by_python() -> None:
    """2**31 rows and more, of weights that are short divisors."""
    rows, weight = np.array([2**31]), np.array([[3 * 2**6], [0], [0]])
    limbs = np.array([2**32, 5, 7]).reshape(3, 1, 1)
    partials, scales = (
        Partials(rows, weight, limbs, 0, 0, np.zeros(1)),
        Exponents(np.zeros(1, np.int64), 0, 0),
    )
    with blocked(np.ones((1, 1))) as blocks:
        found = means.updated(blocks, np.zeros((1, 1)), partials, scales)
    assert found.tolist() == [[(2**96 + 5 * 2**32 + 7) / (3 * 2**70)]]
