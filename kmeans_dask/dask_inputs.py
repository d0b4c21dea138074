"""Dask arrays with whole rows in each chunk -> blocks, on the current client's workers or here; results by chunk."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute
from dask.delayed import delayed

from kmeans_dask import api
from kmeans_dask.blocks import Block, Blocks
from kmeans_dask.errors import DataError
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.model import Model
from kmeans_dask.packing import HEAD_ROWS, Preparation, Wishes, provisional
from kmeans_dask.tiles import padded

Array = npt.NDArray[Any]
Chunk = list[Any]  # rows (n, d), and their weights (n,), one number for all, or None
_NAME = "sample_weight"
_PLACE = 1 << 40  # more rows than a chunk holds: first rows of chunks whose sizes are not known yet
_LOAD_BYTES = (
    2**22
)  # of packed rows, up to which small neighbouring chunks make one block: each costs every pass time


def blocks_of(X: Any, weights: Any, wishes: Wishes | Preparation) -> tuple[Blocks, Preparation]:
    """Return the rows of a Dask array as blocks, and their preparation, which may be given.

    weights: None, one number for all, an array in memory, or a Dask array or series with the chunks of X. Each chunk is
    made once.
    """
    chunks = _chunks(X, weights)
    client = _client()
    if client is None:
        return _here(chunks, wishes)
    return _on(client, X, chunks, wishes)


def mapped(X: Any, fn: Callable[..., Array], model: Model, dtype: np.dtype[Any], n_columns: int) -> Any:
    """Return fn(chunk, model, 1) of each chunk, lazily: (n_samples,) or (n_samples, n_columns), chunked as X."""
    shared = delayed(model, pure=False)
    shape = (0, n_columns) if n_columns else (0,)
    where: dict[str, Any] = {"chunks": (X.chunks[0], (n_columns,))} if n_columns else {"drop_axis": 1}
    return X.map_blocks(_of_chunk, fn, shared, dtype=dtype, meta=np.empty(shape, dtype), **where)


def _of_chunk(rows: Array, fn: Callable[..., Array], model: Model) -> Array:
    if len(rows):
        api.columns_of(rows)
    return fn(rows, model, 1)


def _chunks(X: Any, weights: Any) -> list[Any]:
    """Return a delayed `Chunk` for each chunk of rows."""
    rows = X.to_delayed().ravel().tolist()
    if weights is None or isinstance(weights, Real):
        return [delayed(list)((row, weights)) for row in rows]
    import dask.array as da

    if hasattr(weights, "to_dask_array"):
        weights = weights.to_dask_array()
    sizes = X.chunks[0]
    if not isinstance(weights, da.Array):
        weights = api.weights_of(weights, len(weights) if np.isnan(sum(sizes)) else sum(sizes), _NAME)
        if np.isnan(sum(sizes)):
            raise DataError(
                "sample_weight of a Dask input with unknown chunk sizes must be a Dask array or series with the same "
                "chunks; found an array. Call X.compute_chunk_sizes() first, or make it one."
            )
        weights = da.from_array(weights, chunks=(sizes,))
    known = not np.isnan(sum(sizes)) and not np.isnan(sum(weights.chunks[0]))
    if weights.ndim != 1 or (known and weights.shape[0] != X.shape[0]):
        raise DataError(f"sample_weight must have shape ({X.shape[0]},); found {weights.shape}.")
    if known:
        weights = weights.rechunk((sizes,))
    if weights.numblocks[0] != len(rows):
        raise DataError(
            f"sample_weight must have the {len(rows)} chunks of X, of unknown sizes; found {weights.numblocks[0]}."
        )
    parts = weights.to_delayed().ravel().tolist()
    return [delayed(list)(pair) for pair in zip(rows, parts, strict=True)]


def _client() -> Any:
    """Return the current client, or None: then no cluster was asked for."""
    if "distributed" not in sys.modules:
        return None
    from kmeans_dask.dask_cluster import current_client

    return current_client()


def packed(chunks: Sequence[Chunk], first_row: int, preparation: Preparation) -> list[Block]:
    """Return the rows of neighbouring chunks as blocks, at least one."""
    checked = [_checked(chunk) for chunk in chunks]
    rows = checked[0][0] if len(checked) == 1 else np.concatenate([some for some, _ in checked])
    parts = [weights for _, weights in checked if weights is not None]
    weights = np.concatenate(parts) if parts else None
    return api.packed(list(rows.T), preparation, weights, first_row=first_row)


def _checked(chunk: Chunk) -> tuple[Array, Array | None]:
    rows, weights = np.asarray(chunk[0]), chunk[1]
    if len(rows):
        api.columns_of(rows)
    weights = np.full(len(rows), weights) if isinstance(weights, Real) else weights
    return rows, None if weights is None else api.weights_of(weights, len(rows), _NAME)


def head(chunks: Sequence[Chunk], wishes: Wishes) -> tuple[Preparation | None, int]:
    """Return the preparation for packing from the first rows, None without any, and the number of rows here."""
    rows = [_checked(chunk)[0] for chunk in chunks if len(chunk[0])]
    if not rows:
        return None, 0
    columns = [np.concatenate([some[:, f] for some in rows]) for f in range(len(wishes.feature_names))]
    return provisional(columns, wishes), len(columns[0])


def _no_rows() -> DataError:
    return DataError("Found array with 0 sample(s); at least 1 is required. Every chunk of X is empty.")


def _here(delayed_chunks: list[Any], wishes: Wishes | Preparation) -> tuple[LocalBlocks, Preparation]:
    """Return the chunks as blocks of this process; each is freed as its blocks are made."""
    chunks: list[Chunk] = list(compute(*delayed_chunks))
    preparation = wishes
    if isinstance(preparation, Wishes):
        first, n_rows = 0, 0
        while first < len(chunks) and n_rows < HEAD_ROWS:
            n_rows += len(chunks[first][0])
            first += 1
        found, _ = head(chunks[:first], preparation)
        if found is None:
            raise _no_rows()
        preparation = found
    sizes = [len(chunk[0]) for chunk in chunks]
    starts = [0, *accumulate(sizes)]
    if starts[-1] == 0:
        raise _no_rows()
    blocks = list[Block]()
    for load in loads_of(sizes, _row_bytes(preparation), len(os.sched_getaffinity(0))):
        blocks += packed([chunks[i] for i in load], starts[load[0]], preparation)
        for i in load:
            chunks[i] = []
    return LocalBlocks(blocks), preparation


def _on(client: Any, X: Any, chunks: list[Any], wishes: Wishes | Preparation) -> tuple[Blocks, Preparation]:
    """Return the chunks as blocks on a client's workers."""
    from kmeans_dask.dask_blocks import DaskBlocks
    from kmeans_dask.dask_cluster import Cluster
    from kmeans_dask.dask_loads import Recipe

    held, preparation = ([], wishes) if isinstance(wishes, Preparation) else _head_on(client, chunks, wishes)
    sizes = X.chunks[0]
    known = not np.isnan(sum(sizes))
    starts = [0, *accumulate(sizes)] if known else [i * _PLACE for i in range(len(chunks))]
    row_bytes = _row_bytes(preparation)
    cluster = Cluster(client)
    n_threads = sum(host.n_threads for host in cluster.awaited_hosts())
    loads = loads_of(sizes, row_bytes, n_threads) if known else [[i] for i in range(len(chunks))]
    if not loads:
        raise _no_rows()
    recipes = []
    for load in loads:
        n_rows = int(sum(sizes[i] for i in load)) if known else 1
        source = delayed(list)([chunks[i] for i in load])
        first_row = starts[load[0]]
        recipes.append(
            Recipe(
                packed,
                (first_row, preparation),
                first_row,
                n_rows,
                n_rows * row_bytes if known else 1,
                source=source,
            )
        )
    blocks = DaskBlocks(cluster, recipes)
    held.clear()
    if blocks.summary.n_samples == 0:
        blocks.close()
        raise _no_rows()
    return (blocks if known else _numbered(blocks)), preparation


def _row_bytes(preparation: Preparation) -> int:
    """Return the bytes of one packed row."""
    return padded(len(preparation.feature_names)) * np.dtype(preparation.dtype).itemsize


def loads_of(sizes: Sequence[int], row_bytes: int, n_threads: int) -> list[list[int]]:
    """Return the chunks that hold rows, by their numbers, neighbours together.

    A load is about 4 MiB, or less, so that each thread gets as many of them; no chunk is cut.
    """
    total = sum(sizes) * row_bytes
    n_loads = n_threads * -(-total // (n_threads * _LOAD_BYTES))
    loads, before = dict[int, list[int]](), 0
    for i, n_rows in enumerate(sizes):
        if n_rows > 0:
            middle = before + n_rows * row_bytes // 2
            loads.setdefault(middle * n_loads // total, []).append(i)
        before += n_rows * row_bytes
    return list(loads.values())


def _head_on(client: Any, chunks: list[Any], wishes: Wishes) -> tuple[list[Any], Preparation]:
    """Return the first chunks' futures, to keep them until they are packed, and the preparation from their rows."""
    n_chunks = 1
    while True:
        held = client.compute(chunks[:n_chunks])
        preparation, n_rows = client.submit(partial(head, wishes=wishes), held, pure=False).result()
        if n_rows >= HEAD_ROWS or n_chunks >= len(chunks):
            break
        n_chunks *= 2
    if preparation is None:
        raise _no_rows()
    return held, preparation


def _numbered(blocks: Any) -> Blocks:
    """Return the blocks with row ids that count the rows before, as all sizes are known now."""
    rows: dict[int, int] = {}
    for place, n_rows in sorted(blocks.map_reduce(_sizes, combine=list.__add__)):
        rows[place // _PLACE] = rows.get(place // _PLACE, 0) + n_rows
    before = dict(zip(rows, [0, *accumulate(rows.values())], strict=False))
    numbered: Blocks = blocks.map_blocks(_renumbered, before)
    return numbered


def _sizes(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    return [(block.first_row, block.n_rows) for block in blocks]


def _renumbered(block: Block, before: dict[int, int]) -> Block:
    place, offset = divmod(block.first_row, _PLACE)
    return replace(block, first_row=before.get(place, 0) + offset, cache={})
