"""A plan becomes blocks on an engine: row groups read once, packed, and prepared.

The first rows decide the shift of every column, so the loads that hold them are read first, and their rows are packed
with the others' shift without being read again. A load is a run of row groups of about
block_bytes, or a single larger one. Blocks that shall lie on disk are written one by one, as they are packed.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kmeans_dask import packing
from kmeans_dask.blocks import Block, Blocks, padded
from kmeans_dask.disk_blocks import DiskBlocks, engine_here
from kmeans_dask.kernels import TILE
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import Preparation, RowRange, Wishes
from kmeans_dask.spool import spooled
from pipeline.source import Plan, RowGroup, Rows, read_rows

if TYPE_CHECKING:
    from kmeans_dask.dask_blocks import DaskBlocks
    from kmeans_dask.dask_cluster import Cluster

_LOADS_PER_THREAD = 4


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


def read_load(plan: Plan, load: Load, preparation: Preparation) -> Iterator[Block]:
    """Return a load's packed blocks, at least one."""
    return packed(read_rows(plan, load.row_groups), load.block_rows, preparation)


def packed(rows: Rows, block_rows: int, preparation: Preparation) -> Iterator[Block]:
    """Return rows as packed blocks of block_rows listed rows; together they cover all source rows of `rows`."""
    n_listed = len(rows.columns[0])
    start = 0
    for a in range(0, max(n_listed, 1), block_rows):
        b = min(a + block_rows, n_listed)
        stop = rows.n_source_rows if b == n_listed else b if rows.listed is None else int(rows.listed[b])
        listed = None if rows.listed is None else rows.listed[a:b] - np.uint32(start)
        where = RowRange(rows.first_row + start, stop - start, listed)
        weights = None if rows.weights is None else rows.weights[a:b]
        yield packing.pack([column[a:b] for column in rows.columns], where, preparation, weights)
        start = stop


def read_head(plan: Plan, loads: Sequence[Load], wishes: Wishes) -> tuple[Preparation, list[list[Block]]]:
    """Return the preparation for packing, from the first 65,536 listed rows, and the blocks of the loads read."""
    read: list[Rows] = []
    for load in loads:
        read.append(read_rows(plan, load.row_groups))
        if sum(len(rows.columns[0]) for rows in read) >= packing.HEAD_ROWS:
            break
    columns = [np.concatenate([rows.columns[f] for rows in read]) for f in range(len(plan.features))]
    ready = packing.provisional(columns, wishes)
    return ready, [
        list(packed(rows, load.block_rows, ready)) for rows, load in zip(read, loads, strict=False)
    ]


def load_here(
    plan: Plan,
    block_bytes: int,
    wishes: Wishes | Preparation,
    n_threads: int,
    *,
    load_bytes: int | None = None,
    scratch: str | None = None,
) -> tuple[LocalBlocks | DiskBlocks, Preparation]:
    """Return the plan's rows as blocks of this process, and their preparation, which may be given.

    load_bytes: see `loads_of`. scratch: the directory in which blocks lie on disk; None: in memory.
    """
    share = -(-plan.n_rows * row_bytes(plan) // (n_threads * _LOADS_PER_THREAD))
    loads = loads_of(plan, min(load_bytes or block_bytes, max(share, 1)), min(block_bytes, max(share, 1)))
    ready, first = read_head(plan, loads, wishes) if isinstance(wishes, Wishes) else (wishes, [])

    def held(blocks: Iterable[Block]) -> list[Block]:
        return list(blocks) if scratch is None else spooled(blocks, scratch)

    n_first = len(first)
    rest = [held(first.pop(0)) for _ in range(n_first)]
    with ThreadPoolExecutor(n_threads, thread_name_prefix="load") as pool:
        rest += pool.map(lambda load: held(read_load(plan, load, ready)), loads[n_first:])
    blocks = engine_here([block for load in rest for block in load], n_threads)
    rest.clear()  # this frame must not keep rows alive that are about to be replaced
    final = finishing(blocks, ready, wishes)
    return (blocks if final is None else blocks.map_blocks(packing.finish, final)), final or ready


def load_on(
    cluster: "Cluster",
    plan: Plan,
    block_bytes: int,
    wishes: Wishes | Preparation,
    *,
    load_bytes: int | None = None,
    on_disk: bool = False,
) -> "tuple[DaskBlocks, Preparation]":
    """Return the plan's rows as blocks on a client's workers, in their memory or on their disks; see `load_here`."""
    from kmeans_dask.dask_blocks import DaskBlocks
    from kmeans_dask.dask_loads import Recipe

    loads = loads_of(plan, load_bytes or block_bytes, block_bytes)
    ready, first = (
        cluster.first_loads(read_head, plan, loads, wishes, on_disk=on_disk)
        if isinstance(wishes, Wishes)
        else (wishes, {})
    )
    recipes = [
        Recipe(
            read_load, (plan.narrowed(load.row_groups), load, ready),
            load.first_row, load.n_rows, max(1, load.n_rows * row_bytes(plan)), on_disk=on_disk,
        )
        for load in loads
    ]  # fmt: skip
    blocks = DaskBlocks(cluster, recipes, ready=first)
    final = finishing(blocks, ready, wishes)
    return (blocks if final is None else blocks.map_blocks(packing.finish, final)), final or ready


def finishing(blocks: Blocks, ready: Preparation, wishes: Wishes | Preparation) -> Preparation | None:
    """Return the preparation that packed blocks still need, made over all rows unless it was given; or None."""
    if isinstance(wishes, Wishes):
        packing.warn_of_coarse(blocks.summary, ready)
    if ready.is_final_when_packed:
        return None
    return packing.final(blocks, ready) if isinstance(wishes, Wishes) else ready
