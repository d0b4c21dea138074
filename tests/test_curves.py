"""The order of rows of one or two features: a curve that visits each cell once, each next to the one before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask.curves import curve_of, sort_along
from kmeans_dask.packing import block_of_rows, ordered
from kmeans_dask.passes import balls_of


@pytest.mark.parametrize("bits", [1, 2, 3, 6])
def test_each_cell_is_next_to_the_one_before(bits: int) -> None:
    """In two dimensions the curve goes one step right, left, up or down at a time, through all cells."""
    curve = curve_of(bits, 2).astype(int)
    cells = np.argsort(curve)
    assert np.sort(curve).tolist() == list(range(4**bits))
    x, y = cells >> bits, cells & (2**bits - 1)
    assert (np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1).all()
    assert curve_of(bits, 1).tolist() == list(range(2**bits))


def spread(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Return n rows, (n, d)."""
    rows = rng.normal(size=(n, d))
    match kind:
        case "outlier":
            rows[::500] *= 1e9
        case "heavy":
            rows = np.exp(4 * rows)
        case "whole":
            rows = np.rint(5 * rows)
        case "constant":
            rows[:, -1] = 7.0
        case "equal":
            rows[:] = 3.0
        case "tiny":
            rows = np.rint(rows) * 5e-324
        case "huge":
            rows *= 2.0**478
        case "missing":
            rows[::3] = np.nan
    return rows


KINDS = ("normal", "outlier", "heavy", "whole", "constant", "equal", "tiny", "huge")


@settings(max_examples=40)
@given(
    st.sampled_from((*KINDS, "missing")), st.sampled_from([np.float32, np.float64]), st.sampled_from([1, 2]),
    st.integers(1024, 5000), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_row_has_one_place(kind: str, dtype: type, d: int, n: int, seed: int) -> None:
    """Rows are only moved; where too many lie in one cell, not even that."""
    X = spread(kind, n, d, np.random.default_rng(seed))
    with np.errstate(over="ignore"):
        X = np.clip(X, -(2.0**60), 2.0**60).astype(dtype) if dtype == np.float32 else X
    tiles = np.zeros((-(-n // 128), 4, 128), dtype)
    for r in range(n):
        tiles[r // 128, :d, r % 128] = X[r]
    was, before = np.zeros(n, np.uint32), tiles.tobytes()
    placed = sort_along(tiles, n, d, was)
    assert placed or kind != "normal"
    assert not (placed and kind in ("equal", "missing"))
    if placed:
        rows = tiles.transpose(0, 2, 1).reshape(-1, 4)
        assert np.sort(was).tolist() == list(range(n))
        assert rows[:n, :d].tobytes() == X[was].tobytes()
        assert not rows[n:].any()
        assert not rows[:, d:].any()
    else:
        assert tiles.tobytes() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2])
def test_a_block_is_ordered_whatever_its_rows(kind: str, d: int) -> None:
    """The same rows under the same ids, by the curve or otherwise."""
    X = spread(kind, 3000, d, np.random.default_rng(1))
    block = block_of_rows(X)
    sorted_block = ordered(block)
    before = {i: row.tobytes() for i, row in zip(block.row_ids().tolist(), X, strict=True)}
    rows = sorted_block.all_rows()
    assert {i: row.tobytes() for i, row in zip(sorted_block.row_ids().tolist(), rows, strict=True)} == before


def test_tiles_of_a_square_are_small() -> None:
    """40,000 rows of a unit square lie in tiles about as small as squares of 128 rows, though a row lies far away."""
    X = np.random.default_rng(0).random((40_000, 2))
    X[7] = 1e6
    radii = balls_of(ordered(block_of_rows(X.astype(np.float32).astype(float))))[1]
    half_diagonal = np.sqrt(128 / 40_000 / 2)
    assert np.median(radii) < 1.5 * half_diagonal
