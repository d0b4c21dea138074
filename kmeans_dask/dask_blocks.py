"""The engine on Dask: one message per worker and pass, whatever the number of blocks.

Every answer depends on its question alone, so after a loss the blocks are loaded again and the same question is put to
all workers: the result is the same bits.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Self

import numpy as np
from distributed.protocol.pickle import dumps

from kmeans_dask.blocks import Block, R, Run, Summary, T, summarise, without_rows
from kmeans_dask.dask_cluster import Cluster, Ready
from kmeans_dask.dask_loads import Loads, Placed, Recipe
from kmeans_dask.dask_messages import Lost, Question, ShardGone, answers
from kmeans_dask.dask_rounds import Answers, Rounds
from kmeans_dask.local_blocks import Outcome, value_of

N_DIRECT = 16


class DaskBlocks:
    """Blocks on the workers of a cluster; see `Blocks`. Threads may share it.

    ready: loads that are made already, or in the making, by their place among the recipes. n_direct: above so many
    workers the client asks some of them, each of which asks a few others and adds up.
    """

    def __init__(
        self, cluster: Cluster, recipes: Sequence[Recipe], *, ready: Ready | None = None,
        n_direct: int = N_DIRECT,
    ) -> None:  # fmt: skip
        self._describe(Loads(cluster, recipes, ready or Ready()), n_direct)

    def _describe(self, loads: Loads, n_direct: int) -> None:
        self._loads = loads
        self._n_direct = n_direct
        self._rounds = Rounds(self._answers)
        self.losses = loads.cluster.losses
        try:
            self.n_blocks = loads.current().n_blocks
            self.summary: Summary = self.map_reduce(summarise, combine=Summary.combined)
            self.n_features = len(self.summary.lowest)
            self.dtype: np.dtype[Any] = self.map_reduce(_dtype, combine=_first)
        except BaseException:
            self.close()
            raise

    def map_blocks(self, fn: Callable[..., Block], *args: Any) -> "DaskBlocks":
        """Return the blocks fn(block, *args), where they are; this object ends."""
        new = DaskBlocks.__new__(DaskBlocks)
        new._describe(self._loads.changed(fn, args), self._n_direct)
        return new

    def map_reduce(self, fn: Callable[..., T], *args: Any, combine: Callable[[T, T], T]) -> T:
        """Return fn(blocks, *args) of all blocks; see `Blocks`."""
        answers = self._rounds.answers(bytes(dumps((fn, args, combine))))
        found: T = reduce(combine, map(value_of, answers))
        return found

    def _answers(self, calls: Sequence[bytes]) -> list[Answers]:
        """Return all workers' answers to each call, by one message to each worker; many workers answer in groups."""

        def ask(placed: Placed) -> list[list[Outcome]]:
            questions = [
                self._question(head, "kmeans_map", calls=list(calls), peers=tuple(peers))
                for head, *peers in groups_of(placed.addresses, self._n_direct)
            ]
            found: list[list[Outcome]] = self._loads.cluster.client.sync(answers, questions)
            return found

        return list(zip(*self._asked(ask), strict=True))

    def map_runs(
        self, pieces: Callable[..., T], write: Callable[..., R], runs: Sequence[Run], *args: Any
    ) -> list[R]:
        """Return write(run, pieces of its rows, *args) for each run; see `Blocks`."""
        call = bytes(dumps((pieces, write, args)))

        def ask(placed: Placed) -> list[R]:
            found: list[R] = self._loads.cluster.client.sync(
                answers, [self._written(placed, run, call) for run in runs]
            )
            return found

        return self._asked(ask) if runs else []

    def _written(self, placed: Placed, run: Run, call: bytes) -> Question:
        """Return the question to the worker that holds most of a run, which asks the others for their pieces."""
        stop = run.first_row + run.n_rows
        rows: dict[str, int] = {}
        for i, recipe in enumerate(self._loads.recipes):
            shared = min(stop, recipe.first_row + recipe.n_source_rows) - max(run.first_row, recipe.first_row)
            if shared > 0:
                rows[placed.where[i]] = rows.get(placed.where[i], 0) + shared
        home = max(sorted(rows), key=lambda address: rows[address])
        peers = tuple(sorted(set(rows) - {home}))
        return self._question(home, "kmeans_runs", call=call, run=bytes(dumps(run)), peers=peers)

    def close(self) -> None:
        """Free the blocks on the workers."""
        self._loads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _question(self, address: str, op: str, **message: Any) -> Question:
        return Question(self._loads.cluster.client.rpc, address, op, {"shard": self._loads.shard, **message})

    def _asked(self, ask: Callable[[Placed], list[T]]) -> list[T]:
        """Return the answers of all workers, asked again after a loss."""
        while True:
            placed = self._loads.current()
            try:
                found = ask(placed)
            except Lost as lost:
                self._loads.lose(lost, placed.generation)
            except ShardGone:
                self._loads.find(placed.generation)
            else:
                self.losses.since_pass = 0
                return found


def groups_of(addresses: Sequence[str], n_direct: int) -> list[Sequence[str]]:
    """Return each worker alone, or with more than n_direct about as many groups as each has workers."""
    n_groups = len(addresses) if len(addresses) <= n_direct else math.isqrt(len(addresses))
    return [addresses[i::n_groups] for i in range(n_groups)]


@without_rows
def _dtype(blocks: Sequence[Block]) -> np.dtype[Any]:
    return blocks[0].tiles.dtype


def _first(a: np.dtype[Any], _: np.dtype[Any]) -> np.dtype[Any]:
    return a
