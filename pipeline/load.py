"""A plan becomes blocks on an engine: row groups read once, packed, and prepared.

The first rows decide the shift of every column, so the loads that hold them are read first, and their rows are packed
with the others' shift without being read again. A load is a run of row groups of about
block_bytes, or a single larger one. Blocks that shall lie on disk are written one by one, as they are packed.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from kmeans_dask import packing
from kmeans_dask.blocks import Block, Blocks
from kmeans_dask.disk_blocks import DiskBlocks, engine_here
from kmeans_dask.kernel_cache import start
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import Preparation, RowRange, Wishes
from kmeans_dask.spool import spooled
from pipeline.loads import Load, row_bytes, shared_loads
from pipeline.source import Plan, RowGroup, Rows, read_rows

if TYPE_CHECKING:
    from kmeans_dask.dask_blocks import DaskBlocks
    from kmeans_dask.dask_cluster import Cluster, Ready
    from kmeans_dask.placement import Host

Read = Callable[[Plan, Sequence[RowGroup]], Rows]


def read_load(plan: Plan, load: Load, preparation: Preparation, ahead: str | None) -> Iterator[Block]:
    """Return a load's packed blocks, at least one, on a worker. ahead: the key under which it may hold the rows."""
    from kmeans_dask.dask_ahead import taken

    rows: Rows | None = None if ahead is None else taken(ahead)
    return packed(rows or read_rows(plan, load.row_groups), load.block_rows, preparation)


def packed(rows: Rows, block_rows: int, preparation: Preparation) -> Iterator[Block]:
    """Return rows as packed blocks of block_rows listed rows; together they cover all source rows of `rows`."""
    return (pack(piece, preparation) for piece in pieces_of(rows, block_rows))


def pieces_of(rows: Rows, block_rows: int) -> Iterator[Rows]:
    """Cut rows into pieces of block_rows listed rows, at least one; together they cover all source rows."""
    n_listed = len(rows.columns[0])
    start = 0
    for a in range(0, max(n_listed, 1), block_rows):
        b = min(a + block_rows, n_listed)
        stop = rows.n_source_rows if b == n_listed else b if rows.listed is None else int(rows.listed[b])
        listed = None if rows.listed is None else rows.listed[a:b] - np.uint32(start)
        weights = None if rows.weights is None else rows.weights[a:b]
        columns = tuple(column[a:b] for column in rows.columns)
        yield Rows(rows.first_row + start, stop - start, listed, columns, weights)
        start = stop


def pack(rows: Rows, preparation: Preparation) -> Block:
    """Return rows as one packed block."""
    where = RowRange(rows.first_row, rows.n_source_rows, rows.listed)
    return packing.pack(rows.columns, where, preparation, rows.weights)


def read_head(
    plan: Plan, loads: Sequence[Load], wishes: Wishes
) -> tuple[Preparation, list[tuple[Rows, int]]]:
    """Return the preparation for packing, from the first 65,536 listed rows, and the rows and block_rows read."""
    head = head_of(read_rows(plan, load.row_groups) for load in loads)
    block_rows = [load.block_rows for load in loads]
    return preparation_of(head, wishes), list(zip(head, block_rows, strict=False))


def pack_head(read: tuple[Rows, int], preparation: Preparation) -> Iterator[Block]:
    """Return the packed blocks of one load of `read_head`."""
    return packed(*read, preparation)


def head_of(read: Iterator[Rows]) -> list[Rows]:
    """Return as many loads as hold the first 65,536 listed rows, or all there are."""
    head: list[Rows] = []
    for rows in read:
        head.append(rows)
        if sum(len(some.columns[0]) for some in head) >= packing.HEAD_ROWS:
            break
    return head


def preparation_of(head: Sequence[Rows], wishes: Wishes) -> Preparation:
    """Return the preparation for packing, from the first rows."""
    columns = zip(*(rows.columns for rows in head), strict=True)
    return packing.provisional(
        [np.concatenate([part[: packing.HEAD_ROWS] for part in c]) for c in columns], wishes
    )


def load_here(
    plan: Plan,
    block_bytes: int,
    wishes: Wishes | Preparation,
    n_threads: int,
    *,
    load_bytes: int | None = None,
    scratch: str | None = None,
    read: Read = read_rows,
) -> tuple[LocalBlocks | DiskBlocks, Preparation]:
    """Return the plan's rows as blocks of this process, and their preparation, which may be given.

    load_bytes: see `shared_loads`. scratch: the directory in which blocks lie on disk; None: in memory.
    read: as `read_rows`.
    """
    loads = shared_loads(plan, n_threads, load_bytes or block_bytes, block_bytes)
    with ThreadPoolExecutor(n_threads, thread_name_prefix="load") as pool:
        given = _read_ahead(pool, read, plan, loads, n_threads)
        start()
        head = head_of(given) if isinstance(wishes, Wishes) else []
        ready = preparation_of(head, wishes) if isinstance(wishes, Wishes) else wishes
        tasks: list[Future[list[Block]]] = []
        for load, rows in zip(loads, _one_by_one(head, given), strict=True):
            if scratch is None:
                tasks += [
                    pool.submit(_packed_piece, piece, ready) for piece in pieces_of(rows, load.block_rows)
                ]
            else:
                tasks.append(pool.submit(spooled, packed(rows, load.block_rows, ready), scratch))
        blocks = engine_here([block for task in tasks for block in task.result()], n_threads)
    tasks.clear()  # this frame must not keep rows alive that are about to be replaced
    final = finishing(blocks, ready, wishes)
    return (blocks if final is None else blocks.map_blocks(packing.finish, final)), final or ready


def _packed_piece(rows: Rows, preparation: Preparation) -> list[Block]:
    return [pack(rows, preparation)]


def _read_ahead(
    pool: Executor, read: Read, plan: Plan, loads: Sequence[Load], n_ahead: int
) -> Iterator[Rows]:
    """Give the rows of each load; n_ahead are read at a time, each after what was asked of the pool before."""
    reading = deque(pool.submit(read, plan, load.row_groups) for load in loads[:n_ahead])

    def given() -> Iterator[Rows]:
        for i in range(len(loads)):
            yield reading.popleft().result()
            if i + n_ahead < len(loads):
                reading.append(pool.submit(read, plan, loads[i + n_ahead].row_groups))

    return given()


def _one_by_one(head: list[Rows], read: Iterator[Rows]) -> Iterator[Rows]:
    """Give the head's rows and then the others, letting go of each."""
    while head:
        yield head.pop(0)
    yield from read


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
    from kmeans_dask.dask_cluster import Ready
    from kmeans_dask.dask_loads import Recipe

    hosts = cluster.awaited_hosts()
    n_threads = sum(host.n_threads for host in hosts)
    loads = shared_loads(plan, n_threads, load_bytes or block_bytes, block_bytes)
    ahead, first = Ready(), Ready()
    if isinstance(wishes, Wishes):
        ahead = _read_first_loads(cluster, plan, loads, hosts, on_disk=on_disk)
        ready, first = cluster.first_loads(read_head, pack_head, plan, loads, wishes, on_disk=on_disk)
        cluster.settle(ahead)
    else:
        ready = wishes
    keys = {i: str(future.key) for i, future in ahead.futures.items()}
    recipes = [
        Recipe(
            read_load, (plan.narrowed(load.row_groups), load, ready, keys.get(i)),
            load.first_row, load.n_rows, _bytes_of(plan, load), on_disk=on_disk,
        )
        for i, load in enumerate(loads)
    ]  # fmt: skip
    blocks = DaskBlocks(cluster, recipes, ready=first)
    del ahead, first  # or workers keep what was not needed, and rows that are about to be replaced
    final = finishing(blocks, ready, wishes)
    return (blocks if final is None else blocks.map_blocks(packing.finish, final)), final or ready


def _bytes_of(plan: Plan, load: Load) -> int:
    return max(1, load.n_rows * row_bytes(plan))


def _read_first_loads(
    cluster: "Cluster", plan: Plan, loads: Sequence[Load], hosts: "list[Host]", *, on_disk: bool
) -> "Ready":
    """Have each worker but that of the head read the first load that it will be given; return these, in the making.

    None where a filter decides how many loads the head takes.
    """
    from kmeans_dask.dask_ahead import hold
    from kmeans_dask.dask_cluster import Ready
    from kmeans_dask.dask_loads import place_all

    if plan.filter is not None:
        return Ready()
    n_head = bisect_left([*accumulate(load.n_rows for load in loads)], packing.HEAD_ROWS) + 1
    head = dict.fromkeys(range(min(n_head, len(loads))), hosts[0].address)
    placed = place_all([_bytes_of(plan, load) for load in loads], head, hosts, on_disk=on_disk)
    first = {address: i for i, address in sorted(placed.items(), reverse=True) if i not in head}
    where = {i: address for address, i in first.items() if address != hosts[0].address}
    return Ready(
        {
            i: cluster.submitted(
                "ahead", address, hold, read_rows, plan.narrowed(loads[i].row_groups), loads[i].row_groups
            )
            for i, address in where.items()
        },
        where,
    )


def finishing(blocks: Blocks, ready: Preparation, wishes: Wishes | Preparation) -> Preparation | None:
    """Return the preparation that packed blocks still need, made over all rows unless it was given; or None."""
    if isinstance(wishes, Wishes):
        packing.warn_of_coarse(blocks.summary, ready)
    if ready.is_final_when_packed:
        return None
    return packing.final(blocks, ready) if isinstance(wishes, Wishes) else ready
