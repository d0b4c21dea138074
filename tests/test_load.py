"""From a plan to blocks: loads of one share for each thread, whatever the row groups."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans_dask.errors import DataError
from kmeans_dask.packing import Preparation, Wishes
from pipeline import load
from pipeline.cluster import connected
from pipeline.config import DaskConfig
from pipeline.load import _read_first_loads, load_here, load_on, read_load
from pipeline.loads import Load, shared_loads
from pipeline.source import Plan, rows
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
        begun = _read_first_loads(cluster, found, loads, hosts, on_disk=False)
        assert begun.where == {1: hosts[1].address}
        cluster.settle(begun)
        for file in (tmp_path / "rows").iterdir():
            file.unlink()
        arguments = (found.narrowed(loads[1].row_groups), loads[1], ready, str(begun.futures[1].key))
        packed = cluster.submitted("load", begun.where[1], rows_of_load, *arguments)
        assert packed.result() == N_ROWS
        with pytest.raises(DataError, match=r"000\.parquet"):
            cluster.submitted("load", begun.where[1], rows_of_load, *arguments).result()


def rows_of_load(plan: Plan, load: Load, ready: Preparation, ahead: str) -> int:
    """Return how many rows a worker packs."""
    return sum(block.n_rows for block in read_load(plan, load, ready, ahead))


@pytest.mark.parametrize(
    ("n_rows", "group_rows", "keys"),
    [(2 * N_ROWS, N_ROWS, {}), (40_000, 5_000, {}), (2 * N_ROWS, 9_000, {"filter": "x0 < 0.5"})],
)
def test_every_row_group_is_read_once_on_a_cluster(
    tmp_path: Path, n_rows: int, group_rows: int, keys: dict[str, str]
) -> None:
    """With one load read ahead, with all of them in the head, and behind a filter."""
    found = planned(write_files(tmp_path / "rows", noise(n_rows), group_rows=group_rows), **keys)
    with connected(DaskConfig(workers=2)) as cluster:
        cluster.client.run(count_reads)
        blocks, _ = load_on(cluster, found, 2**26, wishes(found))
        with blocks:
            read_by = cluster.client.run(reads)
    assert sum(read_by.values(), Counter()) == Counter(group.first_row for group in found.row_groups)


def count_reads() -> None:
    """Count what this worker reads."""
    real = rows.read_rows
    rows.reads = Counter()  # type: ignore[attr-defined]

    def counted(plan: Plan, groups: Any) -> Any:
        rows.reads.update(group.first_row for group in groups)  # type: ignore[attr-defined]
        return real(plan, groups)

    rows.read_rows = load.read_rows = counted  # type: ignore[attr-defined]


def reads() -> Counter[int]:
    """Return how often this worker read each row group, by its first row."""
    found: Counter[int] = rows.reads  # type: ignore[attr-defined]
    return found


def test_nothing_is_read_meanwhile_where_a_filter_may_thin_the_head(tmp_path: Path) -> None:
    """The head may then take any number of loads."""
    source = write_files(tmp_path / "rows", noise(2 * N_ROWS), group_rows=N_ROWS)
    found = planned(source, filter="x0 < 0.5")
    with connected(DaskConfig(workers=2)) as cluster:
        loads = shared_loads(found, 2, 2**26)
        assert _read_first_loads(cluster, found, loads, cluster.awaited_hosts(), on_disk=False).where == {}
