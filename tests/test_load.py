"""From a plan to blocks: loads of one share for each thread, whatever the row groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans_dask.errors import DataError
from kmeans_dask.packing import Preparation, Wishes
from pipeline.cluster import connected
from pipeline.config import DaskConfig
from pipeline.load import _begun, load_here, load_on, read_load
from pipeline.loads import Load, shared_loads
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


def test_a_worker_packs_the_rows_that_it_read_while_another_found_the_shift(tmp_path: Path) -> None:
    """Once: with the file gone it has them for the first load, and nothing for the second time."""
    found = planned(write_files(tmp_path / "rows", noise(2 * N_ROWS), group_rows=N_ROWS))
    loads = shared_loads(found, 2, 2**26)
    local, ready = load_here(found, 2**26, wishes(found), 1)
    local.close()
    with connected(DaskConfig(workers=2)) as cluster:
        hosts = cluster.awaited_hosts()
        begun, where = _begun(cluster, found, loads, hosts, on_disk=False)
        assert where == {1: hosts[1].address}
        cluster.settle(begun, where)
        for file in (tmp_path / "rows").iterdir():
            file.unlink()
        arguments = (found.narrowed(loads[1].row_groups), loads[1], ready, str(begun[1].key))
        packed = cluster.submitted("load", where[1], rows_of_load, *arguments)
        assert packed.result() == N_ROWS
        with pytest.raises(DataError, match=r"000\.parquet"):
            cluster.submitted("load", where[1], rows_of_load, *arguments).result()


def rows_of_load(plan: Plan, load: Load, ready: Preparation, ahead: str) -> int:
    """Return how many rows a worker packs."""
    return sum(block.n_rows for block in read_load(plan, load, ready, ahead))


def test_nothing_is_read_meanwhile_where_a_filter_may_thin_the_head(tmp_path: Path) -> None:
    """The head may then take any number of loads."""
    source = write_files(tmp_path / "rows", noise(2 * N_ROWS), group_rows=N_ROWS)
    found = planned(source, filter="x0 < 0.5")
    with connected(DaskConfig(workers=2)) as cluster:
        loads = shared_loads(found, 2, 2**26)
        assert _begun(cluster, found, loads, cluster.awaited_hosts(), on_disk=False) == ({}, {})
