"""Some of the rows of blocks as blocks of their own, where they are: chosen anew wherever they are not remembered."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Block, Blocks, R, Run, Summary, T, summarise
from kmeans_dask.repeats import keep_all
from kmeans_dask.tiles import TILE


class Chosen:
    """The rows that take(block) keeps of each block of others; see `Blocks`. What is chosen depends on rows alone.

    summary: bounds that hold for the chosen rows too, such as the parent's; None: found by a pass.
    """

    def __init__(
        self, parent: Blocks, take: Callable[[Block], Block], summary: Summary | None = None
    ) -> None:
        self._parent, self._take = parent, take
        self.n_blocks, self.n_features, self.dtype = parent.n_blocks, parent.n_features, parent.dtype
        self.summary = self.map_reduce(summarise, combine=Summary.combined) if summary is None else summary

    def map_reduce(self, fn: Callable[..., T], *args: Any, combine: Callable[[T, T], T]) -> T:
        """Return fn(blocks, *args) of the chosen rows."""
        found: T = self._parent.map_reduce(of_chosen, self._take, fn, args, combine=combine)
        return found

    def map_runs(
        self, pieces: Callable[..., T], write: Callable[..., R], runs: Sequence[Run], *args: Any
    ) -> list[R]:
        """Return what the parent returns: results are written of all rows."""
        return self._parent.map_runs(pieces, write, runs, *args)

    def close(self) -> None:
        """Leave the rows to the parent."""


def of_chosen(
    blocks: Sequence[Block], take: Callable[[Block], Block], fn: Callable[..., T], args: tuple[Any, ...]
) -> T:
    """Return fn(chosen, *args) of a run of blocks."""
    return fn([take(block) for block in blocks], *args)


def taken(block: Block, which: npt.NDArray[np.intp]) -> Block:
    """Return the chosen packed rows, in that order, as a block of their own with the same row ids."""
    n_tiles, d4 = -(-len(which) // TILE), block.tiles.shape[1]
    rows = np.zeros((n_tiles * TILE, d4), block.tiles.dtype)
    rows[: len(which)] = block.tiles[which // TILE, :, which % TILE]
    found = replace(
        block,
        tiles=np.ascontiguousarray(rows.reshape(n_tiles, TILE, d4).transpose(0, 2, 1)),
        n_rows=len(which),
        kept=(block.row_ids()[which] - block.first_row).astype(np.uint32),
        weights=block.weights[which] if block.weights.size else block.weights,
        cache={},
    )
    keep_all(found)  # it is a copy already
    return found
