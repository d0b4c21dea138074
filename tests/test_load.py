"""From a plan to blocks: loads of one share for each thread, whatever the row groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans_dask.packing import Wishes
from pipeline.cluster import connected
from pipeline.config import DaskConfig
from pipeline.load import load_here, load_on
from pipeline.source import Plan
from tests.engine_jobs import noise, write_files
from tests.source_files import planned, read

N_ROWS = 90_000  # more than the 65,536 that decide the shift


def plan(folder: Path, group_rows: int, **keys: str) -> Plan:
    """Return the plan of four columns of noise in row groups of one length, and their ids."""
    return planned(write_files(folder / "rows", noise(N_ROWS), group_rows=group_rows), ids=["id"], **keys)


def wishes(plan: Plan) -> Wishes:
    """Return what the job asks of the preparation."""
    return Wishes(plan.features, plan.dtype)


@pytest.mark.parametrize(("group_rows", "n_blocks"), [(9_000, 2), (N_ROWS, 2), (1_000, 2), (40_000, 3)])
def test_each_thread_has_one_large_block(tmp_path: Path, group_rows: int, n_blocks: int) -> None:
    """Row groups are joined to one load a thread, and a larger one is cut; every row is where its id says."""
    found = plan(tmp_path, group_rows)
    expected = np.column_stack(read(found).columns)
    blocks, ready = load_here(found, 2**26, wishes(found), 2)
    with blocks:
        assert blocks.n_blocks == n_blocks
        rows = np.concatenate([block.all_rows() for block in blocks.blocks])
        ids = np.concatenate([block.row_ids() for block in blocks.blocks])
    assert sorted(ids.tolist()) == list(range(N_ROWS))
    assert np.array_equal(rows, (expected[ids].astype(np.float64) - ready.shift).astype(np.float32))


def test_every_filtered_row_is_loaded_from_many_loads(tmp_path: Path) -> None:
    """The head may be all loads there are, read a few at a time: about 30 rows of each of 90 row groups pass."""
    found = plan(tmp_path, 1_000, filter="x0 < 0.03")
    expected = read(found)
    blocks, _ = load_here(found, 2**12, wishes(found), 2)
    with blocks:
        ids = np.concatenate([block.row_ids() for block in blocks.blocks])
        n_blocks = blocks.n_blocks
    assert expected.listed is not None
    assert sorted(ids.tolist()) == expected.listed.tolist()
    assert n_blocks == 90


def test_every_worker_has_rows(tmp_path: Path) -> None:
    """Rows that fit into one block are shared out all the same, in whole row groups."""
    found = plan(tmp_path, 9_000)
    with connected(DaskConfig(workers=2)) as cluster:
        blocks, _ = load_on(cluster, found, 2**26, wishes(found))
        with blocks:
            held = cluster.client.run(rows_held)
    assert sorted(held.values()) == [45_000, 45_000]


def rows_held(dask_worker: Any) -> int:
    """Return how many rows a worker answers for."""
    [held] = dask_worker.plugins["kmeans-dask-shards"].shards.values()
    return int(held.blocks.summary.n_samples)
