"""What a job will do, told from the footers alone."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from kmeans_dask.errors import DataError, TooFewSamplesError
from pipeline import plan_job, processes
from pipeline.config import Job
from pipeline.estimate import check_memory, check_rows, machine_bytes, summary_of
from pipeline.source import Plan, scan
from tests.engine_jobs import job, noise, write_files


def planned(job: Job) -> Plan:
    return scan(job.source, job.kmeans.dtype)


def test_the_plan_counts(tmp_path: Path) -> None:
    """Files, row groups, rows, features, label files and blocks are those of the source."""
    source = write_files(tmp_path / "data", noise(10_000, n_features=3), files=4, group_rows=600)
    found = plan_job(job(tmp_path, source, dask={"workers": 2, "block_bytes": "32KiB"}))
    assert (found.files, found.row_groups, found.rows, found.features) == (4, 20, 10_000, 3)
    assert found.feature_names == ("x0", "x1", "x2")
    assert found.label_files == 4
    # 16 bytes a row of three float32 padded to four: up to 2048 rows a block, so three or four row groups.
    assert found.blocks == 6
    assert found.packed_bytes == 160_000
    assert found.workers == 2
    assert found.memory_limit_bytes == 2 * 2**30


def test_the_plan_of_a_sweep_counts_what_choosing_adds(tmp_path: Path) -> None:
    """Restarts of every k, the most distances of one iteration, passes to score, the sample and its references."""
    source = write_files(tmp_path / "data", noise(10_000))
    one = plan_job(job(tmp_path, source, n_clusters=4))
    assert (one.n_clusters, one.restarts, one.distances_per_iteration) == ((4,), 3, 3 * 4 * 10_000)
    assert (one.scoring_passes, one.sample_rows, one.reference_runs) == (0, 0, 0)
    found = plan_job(job(tmp_path, source, n_clusters={"min": 2, "max": 300, "step": 2}, n_init="auto"))
    assert found.n_clusters == tuple(range(2, 301, 2))
    assert (found.restarts, found.distances_per_iteration) == (1500, 10 * 150 * 151 * 10_000)
    assert (found.scoring_passes, found.sample_rows) == (300, 9600)  # 32 rows for each of 300 clusters
    assert found.reference_runs == 10 * 2 * 151  # ten sets, two starts, and one cluster
    assert plan_job(job(tmp_path, source, n_clusters=[2, 9000])).sample_rows == 10_000


def test_bytes_to_read_are_those_of_the_chosen_columns(tmp_path: Path) -> None:
    """Columns that are not read do not count: fewer features, fewer bytes."""
    source = write_files(tmp_path / "data", noise(5000))
    all_columns = plan_job(job(tmp_path, source))
    one = plan_job(job(tmp_path, {"path": source, "ids": ["id"], "columns": ["x1"]}))
    assert 0 < one.read_bytes <= all_columns.read_bytes / 3


def test_in_process_the_machine_is_the_limit(tmp_path: Path) -> None:
    """Without a Dask section the memory is this machine's."""
    source = write_files(tmp_path / "data", noise(100))
    assert plan_job(job(tmp_path, source)).memory_limit_bytes == machine_bytes()
    assert machine_bytes(tmp_path) == pytest.approx(psutil.virtual_memory().total, rel=0.01)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize(
    ("text", "smaller"), [("123456789\n", 123456789), ("max\n", None), (str(2**63), None)]
)
def test_a_containers_limit_counts(tmp_path: Path, name: str, text: str, smaller: int | None) -> None:
    """The memory is the machine's, or what its control group allows where that is less."""
    path = tmp_path / "cgroup" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert machine_bytes(tmp_path / "cgroup") == (smaller or machine_bytes(tmp_path))


def test_finishing_in_process_holds_the_rows_twice(tmp_path: Path) -> None:
    """Scaling in this process counts the rows before and after; on workers it does not."""
    source = write_files(tmp_path / "data", noise(10_000))

    def needs(**keys: Any) -> int:
        found = plan_job(job(tmp_path, source, **keys)).memory_bytes
        assert found is not None
        return found

    assert needs(scale="standard") - needs() == plan_job(job(tmp_path, source)).packed_bytes
    assert needs(scale="standard", dask={}) == needs(dask={})


@pytest.mark.parametrize("blocks", ["memory", "disk"])
def test_copies_of_a_process_take_less_than_fresh_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: str
) -> None:
    """Workers that share what a process has imported are counted with less."""
    asked = job(tmp_path, write_files(tmp_path / "data", noise(10_000)), dask={"workers": 1})
    settings = asked.model_copy(update={"prepare": asked.prepare.model_copy(update={"blocks": blocks})})
    found = []
    for copied in (False, True):
        monkeypatch.setattr(processes, "COPIES_WORKERS", copied)
        found.append(plan_job(settings).memory_bytes)
    afresh, as_copies = found
    assert afresh is not None
    assert as_copies is not None
    assert afresh - as_copies == 100 * 10**6


def test_before_connecting_to_a_cluster_its_memory_is_unknown(tmp_path: Path) -> None:
    """A job for a scheduler elsewhere is not judged by this machine, but by its hosts, of which 60 % are usable."""
    source = write_files(tmp_path / "data", noise(10_000))
    settings = job(tmp_path, source, dask={"address": "tcp://10.0.0.1:8786"})
    plan = planned(settings)
    summary = plan_job(settings)
    assert (summary.workers, summary.memory_bytes, summary.memory_limit_bytes) == (None, None, None)
    check_memory(settings, plan, summary)
    check_memory(settings, plan, summary_of(settings, plan, workers=2, limit=600 * 2**20))
    with pytest.raises(DataError, match=r"more than 60% of its 450 MiB\. Start more workers"):
        check_memory(settings, plan, summary_of(settings, plan, workers=2, limit=450 * 2**20))


def test_memory_grows_with_the_data_and_shrinks_with_the_workers(tmp_path: Path) -> None:
    """Half the workers need about twice the room for blocks each."""
    rows = pa.table({f"x{f}": np.zeros(400_000, np.float32) for f in range(16)})
    source = write_files(tmp_path / "data", rows, group_rows=20_000)

    def needs(**dask: Any) -> int:
        found = plan_job(job(tmp_path, {"path": source}, dask=dask)).memory_bytes
        assert found is not None
        return found

    one, two, four = (needs(workers=n, block_bytes="1MiB") for n in (1, 2, 4))
    assert one - two == pytest.approx(2 * (two - four), rel=1e-6)
    assert one - two >= 400_000 * 64 / 2


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """Fewer rows than clusters is told from the footers, with both numbers."""
    settings = job(tmp_path, write_files(tmp_path / "data", noise(31)), n_clusters=50)
    plan = planned(settings)
    with pytest.raises(
        TooFewSamplesError, match=r"n_clusters=50 needs at least 50 rows; .* holds 31\. Lower"
    ):
        check_rows(settings, plan)
    check_rows(job(tmp_path, str(tmp_path / "data/*.parquet"), n_clusters=31), plan)


def test_data_beyond_the_memory_are_refused(tmp_path: Path) -> None:
    """What a worker would need, what it has, and what to change, from the plan alone."""
    settings = job(tmp_path, write_files(tmp_path / "data", noise(10_000)), dask={"memory_limit": "200MiB"})
    plan = planned(settings)
    with pytest.raises(
        DataError, match=r"10,000 rows of 4 features need about 1\d\d MiB in each worker, more than"
    ):
        check_memory(settings, plan, summary_of(settings, plan))
    check_memory(settings, plan, summary_of(settings, plan, limit=2**30))
