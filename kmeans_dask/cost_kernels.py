"""The compiled loops that draw rows of one block by their exact costs, in the order in which they lie there."""

import numpy as np

from kmeans_dask.kernels import borrowing, compiled, limbs_of_cost
from kmeans_dask.tiles import TILE


@compiled()
def running_costs(values, weights, factor, of_tiles, stale, running):  # type: ignore[no-untyped-def]
    """Write the cost of each tile and all before it to running (n_tiles, 3) int64, the lower two limbs whole.

    A row costs weight * value; values (n,) float64, weights (n,) or (0,). of_tiles (n_tiles, 3): the cost of each tile
    alone, brought up to date for those that are stale, which then are not.
    """
    weighted = weights.shape[0] > 0
    high, middle, low = np.int64(0), np.int64(0), np.int64(0)
    for t in range(running.shape[0]):
        if stale[t]:
            of_tiles[t, 0] = of_tiles[t, 1] = of_tiles[t, 2] = 0
            stale[t] = False
            for i in range(t * TILE, min((t + 1) * TILE, values.shape[0])):
                h, m, rest = limbs_of_cost((weights[i] * values[i] if weighted else values[i]) * factor)
                of_tiles[t, 0] += h
                of_tiles[t, 1] += m
                of_tiles[t, 2] += rest
        low += of_tiles[t, 2]
        middle += of_tiles[t, 1] + (low >> 32)
        high += of_tiles[t, 0] + (middle >> 32)
        low, middle = low & 0xFFFFFFFF, middle & 0xFFFFFFFF
        running[t, 0], running[t, 1], running[t, 2] = high, middle, low


@compiled()
def rows_at(values, weights, factor, running, drawn, found):  # type: ignore[no-untyped-def]
    """Write to found, (m,) int64, the row at which the running cost passes each drawn one, (m, 3) whole limbs.

    running: see `running_costs`; what is drawn lies below its last.
    """
    before = np.empty(3, np.int64)
    for j in range(drawn.shape[0]):
        first, last = 0, running.shape[0] - 1
        while first < last:
            middle = (first + last) // 2
            if exceeds(running[middle], drawn[j]):
                last = middle
            else:
                first = middle + 1
        before[:] = 0
        if first > 0:
            before[:] = running[first - 1]
        i = first * TILE
        add_cost(values, weights, factor, i, before)
        carry_over(before)
        while not exceeds(before, drawn[j]):
            i += 1
            add_cost(values, weights, factor, i, before)
            carry_over(before)
        found[j] = i


@borrowing()
def add_cost(values, weights, factor, i, limbs):  # type: ignore[no-untyped-def]
    """Add the cost of one row to three accumulators, in place."""
    cost = weights[i] * values[i] if weights.shape[0] > 0 else values[i]
    high, middle, low = limbs_of_cost(cost * factor)
    limbs[0] += high
    limbs[1] += middle
    limbs[2] += low


@borrowing()
def carry_over(limbs):  # type: ignore[no-untyped-def]
    """Bring the lower two of three limbs into 32 bits, in place."""
    limbs[1] += limbs[2] >> 32
    limbs[0] += limbs[1] >> 32
    limbs[1] &= 0xFFFFFFFF
    limbs[2] &= 0xFFFFFFFF


@borrowing()
def exceeds(limbs, others):  # type: ignore[no-untyped-def]
    """Whether a total of whole limbs, (3,), is larger than another."""
    for i in range(3):
        if limbs[i] != others[i]:
            return limbs[i] > others[i]
    return False
