"""Rows that go from cluster to cluster: the sums of both are what adding row by row makes of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import ledgers, sums
from kmeans_dask.scans import FEW
from kmeans_dask.tiles import TILE

K = 5


def limbs_of(x: float, factor: float) -> np.ndarray:
    """Return what one addend adds to two accumulators, as `kernels.limbs_of` does."""
    y = x * factor
    high = np.trunc(y)
    return np.array([int(high), int(np.trunc((y - high) * 2.0**32))])


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from((1, 2, 7, 8, 9, 16, 31, 255, 256, 300, 600)),
    st.integers(0, TILE),
    st.sampled_from(("plain", "weights", "copies")),
    st.sampled_from((np.float32, np.float64)),
)
def test_moved_rows_are_taken_from_one_cluster_and_added_to_another(
    seed: int, d: int, m: int, kind: str, dtype: type
) -> None:
    """Whatever their number, width, weights and copies; of a tile, or of a few lanes gathered from one."""
    rng = np.random.default_rng(seed)
    width = FEW if m <= FEW and seed % 2 else TILE
    lanes = np.zeros(((d + 3) // 4 * 4, width), dtype)
    lanes[:d] = rng.normal(size=(d, width)) * 10.0 ** rng.integers(-3, 4)
    places = rng.permutation(4 * TILE)[:width]
    weights = rng.random(4 * TILE) * 3 if kind == "weights" else np.empty(0)
    copies = rng.integers(1, 9, 4 * TILE).astype(np.int32) if kind == "copies" else np.empty(0, np.int32)
    magnitudes = np.append(np.abs(lanes[:d]).max(axis=1) * 3, 3.0)
    factors = np.array([sums.scale(sums.exponent(x)) for x in magnitudes.tolist()])
    moves = ledgers.room_for_moves(d)
    which, old, new = moves[:3]
    which[:m] = rng.permutation(width)[:m]
    old[:m], new[:m] = rng.integers(-1, K, m), rng.integers(0, K, m)
    n_weights = K if weights.size else 0
    totals = (
        np.zeros((K, d), np.int64), np.zeros((K, d), np.int64), np.zeros(K, np.int64),
        np.zeros(n_weights, np.int64), np.zeros(n_weights, np.int64),
    )  # fmt: skip

    ledgers.move_rows((weights, factors, totals, moves, copies), lanes, places, m)

    expected, rows, of_weights = (
        np.zeros((K, d, 2), np.int64),
        np.zeros(K, np.int64),
        np.zeros((K, 2), np.int64),
    )
    for i in range(m):
        lane = int(which[i])
        weight = weights[places[lane]] if weights.size else 1.0
        count = copies[places[lane]] if copies.size else 1
        addends = [limbs_of(weight * float(lanes[f, lane]), factors[f]) * count for f in range(d)]
        for cluster, sign in ((new[i], 1), (old[i], -1)):
            if cluster >= 0:
                expected[cluster] += sign * np.array(addends)
                rows[cluster] += sign * count
                of_weights[cluster] += sign * limbs_of(weight, factors[d])
    np.testing.assert_array_equal(totals[0], expected[:, :, 0])
    np.testing.assert_array_equal(totals[1], expected[:, :, 1])
    np.testing.assert_array_equal(totals[2], rows)
    if weights.size:
        np.testing.assert_array_equal(np.stack(totals[3:], axis=1), of_weights)


def test_the_limbs_of_a_row_worked_by_hand() -> None:
    """2.5 at 2**2 is 10 and nothing; 0.3125 is 1 and a quarter of 2**32: of -0.3125 both are taken away."""
    lanes = np.zeros((8, TILE), np.float32)
    lanes[:, 5] = [2.5, 0.3125, -0.3125, 0, 1, 1, 1, 1]
    moves, n = ledgers.room_for_moves(8), 40
    moves[0][:n], moves[1][:n], moves[2][:n] = 5, -1, 1  # the same row, n times
    totals = (
        np.zeros((2, 8), np.int64),
        np.zeros((2, 8), np.int64),
        np.zeros(2, np.int64),
        *np.zeros((2, 0), np.int64),
    )
    ledger = np.empty(0), np.full(9, 4.0), totals, moves, np.empty(0, np.int32)
    ledgers.move_rows(ledger, lanes, np.arange(TILE), n)
    assert totals[0][1].tolist() == [n * high for high in (10, 1, -1, 0, 4, 4, 4, 4)]
    assert totals[1][1].tolist() == [n * low for low in (0, 2**30, -(2**30), 0, 0, 0, 0, 0)]
    assert totals[2].tolist() == [0, n]
    assert not totals[0][0].any()
