"""Rows for tests of the engines, packed into blocks of any size; imported by the workers too."""

import errno
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Block, Floats
from kmeans_dask.dask_loads import Recipe
from kmeans_dask.errors import DataError
from kmeans_dask.packing import Preparation, RowRange, Wishes, pack, provisional


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by a seed, (n_rows, n_features); every ninth row repeats the one before, every tenth weighs nothing."""

    seed: int
    n_rows: int
    n_features: int = 3
    dtype: str = "float32"
    nulls: str = "error"
    weighted: bool = True

    def columns(self) -> list[Floats]:
        """Return the columns, with NaN in every seventh row under other rules than "error"."""
        rng = np.random.default_rng(self.seed)
        rows = rng.normal(size=(self.n_rows, self.n_features)) + 4.0 * rng.integers(0, 4, (self.n_rows, 1))
        rows[1::9] = rows[: len(rows[1::9]) * 9 : 9]
        if self.nulls != "error":
            rows[3::7, 0] = np.nan
        return list(rows.T)

    def weights(self) -> Floats | None:
        """Return the weight of each row."""
        if not self.weighted:
            return None
        weights = np.random.default_rng(self.seed + 1).integers(1, 8, self.n_rows) / 4.0
        weights[2::10] = 0.0
        return weights

    def preparation(self) -> Preparation:
        """Return what packing needs."""
        names = tuple(f"x{f}" for f in range(self.n_features))
        return provisional(self.columns(), Wishes(names, self.dtype, self.nulls))


def packed(table: Table, cuts: Sequence[int]) -> list[Block]:
    """Return a table's rows from cuts[0] to cuts[-1] as blocks that end at each cut."""
    if table.nulls == "infinite":
        raise DataError("feature 'x0': an infinite value")
    columns, weights, preparation = table.columns(), table.weights(), table.preparation()
    return [
        pack(
            [column[a:b] for column in columns],
            RowRange(a, b - a),
            preparation,
            None if weights is None else weights[a:b],
        )
        for a, b in pairwise(cuts)
    ]


def recipes(table: Table, cuts: Sequence[int], blocks_per_load: int) -> list[Recipe]:
    """Return the same blocks as loads of several."""
    found = []
    for i in range(0, len(cuts) - 1, blocks_per_load):
        some = tuple(cuts[i : i + blocks_per_load + 1])
        found.append(
            Recipe(packed, (table, some), some[0], some[-1] - some[0], (some[-1] - some[0]) * 32 + 1)
        )
    return found


def cut(n_rows: int, block_rows: int) -> list[int]:
    """Return the cuts of blocks of block_rows."""
    return [*range(0, n_rows, block_rows), n_rows]


@dataclass(frozen=True, slots=True)
class Range:
    """A run of source rows."""

    first_row: int
    n_rows: int


def count_of(blocks: Sequence[Block]) -> int:
    """Return the number of packed rows."""
    return sum(block.n_rows for block in blocks)


def ids_of(blocks: Sequence[Block]) -> list[int]:
    """Return the row ids."""
    return [int(row_id) for block in blocks for row_id in block.row_ids()]


def refusing(blocks: Sequence[Block], row_id: int) -> int:
    """Refuse the blocks that hold a row."""
    if row_id in ids_of(blocks):
        raise LookupError(f"row {row_id} is refused")
    return 0


def count_once_there(blocks: Sequence[Block], path: str) -> int:
    """Return the number of packed rows as soon as a path exists."""
    deadline = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    return count_of(blocks)


def threads_after(blocks: Sequence[Block], seconds: float) -> set[str]:
    """Return the name of the thread that looks at blocks, for so long."""
    time.sleep(seconds)
    return {threading.current_thread().name}


def other_threads_after(blocks: Sequence[Block], seconds: float) -> set[str]:
    """Do the same under another name."""
    return threads_after(blocks, seconds)


def threads_of(blocks: Sequence[Block], large: str) -> set[str]:
    """Return the name of the thread that answers a large question."""
    return {threading.current_thread().name}


def without_space(blocks: Sequence[Block]) -> int:
    """Fail as on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def scaled(block: Block, factor: float) -> Block:
    """Return the block with values times a factor."""
    return Block(
        block.tiles * block.tiles.dtype.type(factor), block.n_features, block.n_rows,
        block.first_row, block.n_source_rows, block.kept, block.listed, block.weights,
    )  # fmt: skip


def rows_between(block: Block, first_row: int, stop_row: int, name: str) -> npt.NDArray[np.int64]:
    """Return a block's row ids within a run."""
    row_ids = block.row_ids()
    return row_ids[(row_ids >= first_row) & (row_ids < stop_row)]


def gathered(run: Range, pieces: Sequence[npt.NDArray[np.int64]], name: str) -> tuple[str, int, list[int]]:
    """Return a run's row ids as they were handed over."""
    return name, run.first_row, [int(row_id) for piece in pieces for row_id in piece]
