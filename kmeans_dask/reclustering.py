"""Greedy k-means++ over the rows of one block that lie in the order of their ids, by few calls a row that is taken.

It takes the rows that `seeding.plus_plus` takes of them, bit by bit: the same draws by the same exact costs.
"""

import numpy as np
import numpy.typing as npt

from kmeans_dask import cost_kernels, draws, gain_kernels, passes, randoms, sums
from kmeans_dask.blocks import Block, Floats, summarise
from kmeans_dask.draws import Known
from kmeans_dask.tiles import TILE, padded


def greedy(block: Block, n_clusters: int, seed: int, n_draws: int) -> Floats:
    """Return up to n_clusters rows, (m, d), each the best of n_draws drawn in proportion to their costs."""
    taken, known = list[int](), Known.nothing(summarise([block]))
    exponent, n_tiles = known.weight_exponent, len(block.tiles)
    sq_distances, farthest = np.ones(block.n_rows), np.full(n_tiles, np.inf)
    of_tiles, running = np.empty((2, n_tiles, 3), np.int64)
    stale, limits = np.ones(n_tiles, np.bool_), np.full((n_tiles, TILE), np.inf, block.tiles.dtype)
    rooms = {m: _room(block, m) for m in (1, n_draws)}
    while len(taken) < n_clusters:
        factor = sums.scale(exponent)
        cost_kernels.running_costs(sq_distances, block.weights, factor, of_tiles, stale, running)
        total = sums.joined(*running[-1].tolist())
        if not total:  # what is left may be too small for the exponent
            fitted = sums.exponent(_highest(sq_distances, block.weights)) if taken else exponent
            if fitted >= exponent:
                break
            exponent, stale[:] = fitted, True
            continue
        drawn = _drawn(total, seed, len(taken), n_draws)
        rows = np.empty(len(drawn), np.int64)
        cost_kernels.rows_at(sq_distances, block.weights, factor, running, drawn, rows)
        if not taken:
            exponent, factor = known.exponent, sums.scale(known.exponent)
            sq_distances[:], stale[:] = np.inf, True
        best = gain_kernels.take_best(
            block.tiles, block.n_rows, passes.balls_of(block), block.weights, factor, rows, rooms[len(rows)],
            (sq_distances, farthest, limits, stale),
        )  # fmt: skip
        taken.append(int(rows[best]))
    return block.rows(np.array(taken, np.int64))


def _room(block: Block, m: int) -> tuple[Floats, passes.Scan, sums.Limbs, npt.NDArray[np.bool_]]:
    """Return the room of `gain_kernels.take_best` for m rows."""
    choices = np.zeros((m, block.n_features))
    reached = np.empty((len(block.tiles), padded(m)), np.bool_)
    return choices, passes.scan_of(choices, block.tiles.dtype), np.zeros((3, m), np.int64), reached


def _drawn(total: int, seed: int, n_taken: int, n_draws: int) -> npt.NDArray[np.int64]:
    """Return the limbs, (m, 3), of numbers below the total."""
    purposes = draws.purposes(n_taken, n_draws)
    return np.array([sums.parted(randoms.below(total, seed, purpose)) for purpose in purposes])


def _highest(sq_distances: Floats, weights: Floats) -> float:
    return float((sq_distances * weights if weights.size else sq_distances).max(initial=0.0))
