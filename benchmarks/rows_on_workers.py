"""A data set on workers: a file of rows that each worker reads its own blocks of."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.workloads import Rows
from kmeans_dask.blocks import Block
from kmeans_dask.dask_blocks import DaskBlocks
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.dask_loads import Recipe
from kmeans_dask.packing import Preparation, RowRange, pack


def plain(n_features: int) -> Preparation:
    """Return the preparation that leaves float32 rows as they are."""
    zeros, ones = np.zeros(n_features), np.ones(n_features)
    names = tuple(f"x{f}" for f in range(n_features))
    return Preparation(names, "float32", zeros, zeros, ones, zeros, "error", "none")


def block_of(file: str, first_row: int, n_rows: int, preparation: Preparation) -> list[Block]:
    """Return some rows of a .npy file as one block."""
    rows = np.load(file, mmap_mode="r")[first_row : first_row + n_rows]
    return [pack(list(np.ascontiguousarray(rows.T)), RowRange(first_row, n_rows), preparation)]


def on_workers(
    cluster: Cluster, X: Rows, folder: str, n_blocks: int, preparation: Preparation | None = None
) -> DaskBlocks:
    """Return rows on the workers of a cluster on this machine, in so many blocks, each a load of its own."""
    file = str(Path(folder) / f"{len(X)}.npy")
    np.save(file, X)
    ready = preparation or plain(X.shape[1])
    cuts = [len(X) * i // n_blocks for i in range(n_blocks + 1)]
    recipes = [
        Recipe(block_of, (file, a, b - a, ready), a, b - a, (b - a) * 4 * X.shape[1])
        for a, b in pairwise(cuts)
    ]
    return DaskBlocks(cluster, recipes)
