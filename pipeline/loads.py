"""A plan -> loads: which row groups are read and placed together, and in blocks of how many rows."""

from dataclasses import dataclass

import numpy as np

from kmeans_dask.tiles import TILE, padded
from pipeline.source import Plan, RowGroup

HERE_BYTES = 64 * 2**20  # of a load in a job's own process
_LEAST_SHARE = 4096  # rows; fewer are not worth a thread of their own


@dataclass(frozen=True, slots=True)
class Load:
    """Consecutive row groups, read and placed together, in blocks of block_rows."""

    row_groups: tuple[RowGroup, ...]
    block_rows: int
    row_bytes: int

    @property
    def block_bytes(self) -> int:
        """The bytes of its largest block."""
        return min(self.block_rows, self.n_rows) * self.row_bytes

    @property
    def first_row(self) -> int:
        """The row id of the first row."""
        return self.row_groups[0].first_row

    @property
    def n_rows(self) -> int:
        """The number of source rows."""
        return self.row_groups[-1].end_row - self.first_row


def row_bytes(plan: Plan) -> int:
    """Return the bytes of one packed row."""
    return padded(len(plan.features)) * np.dtype(plan.dtype).itemsize + 8 * (plan.weight is not None)


def loads_of(plan: Plan, load_bytes: int, block_bytes: int | None = None) -> list[Load]:
    """Return the plan's row groups joined into loads of up to load_bytes; larger row groups stay alone.

    block_bytes: of each block in them, load_bytes by default.
    """

    def rows_in(n_bytes: int) -> int:
        return max(TILE, n_bytes // row_bytes(plan) // TILE * TILE)

    load_rows, block_rows = rows_in(load_bytes), rows_in(block_bytes or load_bytes)
    loads: list[list[RowGroup]] = []
    room = 0
    for group in plan.row_groups:
        if not loads or group.n_rows > room or group.first_row != loads[-1][-1].end_row:
            loads.append([])
            room = load_rows
        loads[-1].append(group)
        room -= group.n_rows
    return [Load(tuple(groups), block_rows, row_bytes(plan)) for groups in loads]


def shared_loads(plan: Plan, n_threads: int, load_bytes: int, block_bytes: int | None = None) -> list[Load]:
    """Return loads as `loads_of` does, of at most an n_threads-th of the rows: large blocks order them better."""
    rows = max(-(-plan.n_rows // n_threads), _LEAST_SHARE)
    share = -(-rows // TILE) * TILE * row_bytes(plan)
    return loads_of(plan, min(load_bytes, share), min(block_bytes or load_bytes, share))
