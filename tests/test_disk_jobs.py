"""Jobs whose rows lie on disk: chosen by the plan, read once, within the worker's memory, with the same bytes."""

import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask.errors import DataError, InfrastructureError
from pipeline import plan_job, processes, run_job
from pipeline.estimate import check_memory, summary_of
from pipeline.runner import PlainRunner
from pipeline.scratch import check_here, is_memory
from pipeline.source import scan
from tests.engine_jobs import Counted, job, listing, noise, result_files, write_files
from tests.s3_gate import gate_before
from tests.s3_jobs import committed, environment, new_bucket, upload, write_job
from tests.s3_servers import S3Server
from tests.test_disk_blocks import largest_file
from tests.worker_faults import kill_in_pass, kill_in_reload, local_workers

MIB = 2**20
N_WIDE = 2_400_000
NOISY: dict[str, Any] = {"n_clusters": 40, "n_init": 4, "tol": 0.0, "max_iter": 60, "scale": "standard"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """2,400,000 x 64 float32, 614 MB, in row groups of 6 MB."""
    rows = np.random.default_rng(0).random((64, N_WIDE), np.float32)
    table = pa.table({f"x{f}": rows[f] for f in range(64)})
    folder = tmp_path_factory.mktemp("wide") / "data"
    return write_files(folder, table, group_rows=25_000, compression="none", use_dictionary=False)


def wide_job(folder: Path, source: str, limit: str, **keys: Any) -> Any:
    """Return a job on one worker."""
    dask = {"workers": 1, "memory_limit": limit, "block_bytes": "8MiB"}
    settings = {"n_clusters": 4, "n_init": 2, "max_iter": 3, "init": "random", **keys}
    return job(folder, {"path": source}, dask=dask, **settings)


@pytest.mark.slow
def test_the_plan_goes_to_disk_when_memory_is_short(
    wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in memory while they fit, else on disk, with as many restarts at a time as their state allows."""
    monkeypatch.setattr(processes, "COPIES_WORKERS", True)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    limits = (1600, 1000, 517)
    found = {limit: plan_job(wide_job(tmp_path, wide, f"{limit}MiB", n_init=20)) for limit in limits}
    assert [plan.blocks_in for plan in found.values()] == ["memory", "disk", "disk"]
    # In memory 8, as there are fewer cores; on disk at most 16, of 8.1 bytes a row each.
    assert [plan.restarts_at_once for plan in found.values()] == [8, 16, 10]
    assert [plan.disk_bytes for plan in found.values()] == [0, 256 * N_WIDE, 256 * N_WIDE]
    timed = plan_job(wide_job(tmp_path, wide, "1600MiB", n_init=20, max_seconds=60))
    assert timed.restarts_at_once == 2  # more would each get less far in the time they share
    for limit, plan in found.items():
        assert plan.memory_bytes is not None
        assert plan.memory_bytes < 0.9 * limit * MIB


@pytest.mark.slow
def test_what_is_not_enough_for_the_disk_either_is_refused(
    wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below what rows on disk need the plan says what to change; rows kept in memory by the job's wish are refused."""
    monkeypatch.setattr(processes, "COPIES_WORKERS", True)
    settings = wide_job(tmp_path, wide, "380MiB")
    plan = scan(settings.source, "float32")
    with pytest.raises(DataError, match=r"about \d+ MiB in each worker beside blocks on disk, more than 90%"):
        check_memory(settings, plan, summary_of(settings, plan))
    kept = settings.model_copy(update={"prepare": settings.prepare.model_copy(update={"blocks": "memory"})})
    with pytest.raises(DataError, match=r'about 9\d\d MiB in each worker, .* set prepare.blocks = "auto"'):
        check_memory(kept, plan, summary_of(kept, plan))


@dataclass(slots=True)
class Peak:
    """The largest memory of any local worker, looked at every few milliseconds."""

    rss: int = 0
    seen: set[int] = field(default_factory=set)
    _end: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look until told to end."""
        while not self._end.wait(0.005):
            for pid in local_workers().values():
                try:
                    self.rss = max(self.rss, psutil.Process(pid).memory_info().rss)
                    self.seen.add(pid)
                except psutil.NoSuchProcess:
                    continue

    def end(self) -> None:
        """Stop looking."""
        self._end.set()


@pytest.mark.slow
def test_more_rows_than_memory(wide: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """614 MB of rows under a limit of 598 MB are clustered by a worker that is never lost and keeps the limit."""
    peak = Peak()
    settings = wide_job(tmp_path, wide, "570MiB")
    plan = plan_job(settings)
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO, "pipeline"):
        pool.submit(peak.watch)
        try:
            run = run_job(settings)
        finally:
            peak.end()
    assert "packed rows, 586 MiB, go to local disks; 2 restarts at a time share each reading" in caplog.text
    assert (run.manifest["workers_lost"], len(peak.seen)) == (0, 1)
    assert int(run.model.sizes.sum()) == N_WIDE
    assert plan.memory_bytes is not None
    assert 0.8 < peak.rss / plan.memory_bytes < 1.1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """140,000 rows in eight files of small row groups; the first 65,536 are read, and stay, on one worker."""
    return write_files(tmp_path_factory.mktemp("noise") / "data", noise(140_000), files=8, group_rows=2500)


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the job writes with its rows in memory."""
    return result_files(run_job(job(tmp_path_factory.mktemp("undisturbed"), source, **NOISY)))


def disk_job(folder: Path, source: str, dask: dict[str, Any] | None) -> Any:
    """Return the noisy job with its rows on disk."""
    settings = job(folder, source, dask=dask, **NOISY)
    return settings.model_copy(update={"prepare": settings.prepare.model_copy(update={"blocks": "disk"})})


@pytest.mark.parametrize("dask", [None, {"workers": 2, "block_bytes": "64KiB"}], ids=["here", "dask"])
def test_rows_on_disk_give_the_same_bytes(
    source: str, undisturbed: dict[str, str], tmp_path: Path, dask: dict[str, Any] | None
) -> None:
    """Scaled rows written twice over give every byte of a run in memory, and leave nothing in the scratch directory."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    keys = None if dask is None else {**dask, "local_directory": str(scratch)}
    assert result_files(run_job(disk_job(tmp_path, source, keys))) == undisturbed
    assert listing(scratch) == []


@pytest.mark.fault
def test_kills_with_rows_on_disk(source: str, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Workers killed in a pass and in the reload after it change no byte and leave no file."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    counted = Counted()

    def kill() -> None:
        for which in range(2):
            counted.wait_for_more(3)
            kill_in_pass(which)
            kill_in_reload()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        dask = {"workers": 2, "block_bytes": "64KiB", "local_directory": str(scratch)}
        run = run_job(disk_job(tmp_path, source, dask), counted.runner())
        killing.result()
    assert run.manifest["workers_lost"] == 4
    assert result_files(run) == undisturbed
    assert listing(scratch) == []


def test_a_full_disk_ends_the_job(source: str, tmp_path: Path) -> None:
    """A scratch file that cannot grow ends the job as infrastructure's fault, naming the place; no output is left."""
    with (
        largest_file(50_000),
        pytest.raises(InfrastructureError, match="no room for packed blocks") as caught,
    ):
        run_job(disk_job(tmp_path, source, None))
    assert caught.value.exit_code == 3
    assert listing(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@dataclass(frozen=True)
class Filling(PlainRunner):
    """Leaves 1 MiB free in a folder before rows are read."""

    folder: Path = Path()

    def step(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Return `fn(*args)`."""
        if name == "load":
            (self.folder / "filler").write_bytes(bytes(shutil.disk_usage(self.folder).free - MIB))
        return fn(*args)


@pytest.mark.fault
def test_a_disk_that_fills_up_on_workers_ends_the_job(source: str, tmp_path: Path, small_disk: Path) -> None:
    """Where another fills the disk after the room was looked at, the job ends at once and gives its own part back."""
    settings = disk_job(
        tmp_path, source, {"workers": 2, "block_bytes": "64KiB", "local_directory": str(small_disk)}
    )
    with pytest.raises(
        InfrastructureError, match=r"No space left on device.* are free\. Free some of that"
    ) as caught:
        run_job(settings, Filling(folder=small_disk))
    assert str(small_disk) in str(caught.value)
    assert listing(small_disk) == ["filler"]
    (small_disk / "filler").unlink()
    assert shutil.disk_usage(small_disk).used == 0
    assert not (tmp_path / "out").exists()


def test_room_is_looked_at_beforehand(tmp_path: Path) -> None:
    """A disk with too little room is refused with the directory, what is needed and what is free."""
    said = r"packed blocks need 1,048,576 MiB of scratch room there, and [\d,]+ MiB are free\. Free some of that disk"
    with pytest.raises(InfrastructureError, match=said) as caught:
        check_here(str(tmp_path), 2**40)
    assert str(tmp_path) in str(caught.value)
    check_here(str(tmp_path), 2**20)


def test_scratch_in_memory_is_noticed(tmp_path: Path) -> None:
    """The file system that holds a directory decides, the innermost of several."""
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /run/disk xfs rw 0 0\n")
    found = [is_memory(path, mounts) for path in ("/home", "/run", "/run/x", "/run/disk/x", "/runner")]
    assert found == [False, True, True, False, False]
    assert not is_memory("/home", tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("dask", [False, True], ids=["here", "dask"])
def test_the_source_is_read_once(moto: S3Server, tmp_path: Path, dask: bool) -> None:
    """Each column chunk is asked of the store once, though its rows are written to disk, scaled and read again."""
    folder = tmp_path / "data"
    write_files(folder, noise(60_000), group_rows=20_000, compression="none", use_dictionary=False)
    [path] = folder.glob("*.parquet")
    sections: dict[str, Any] = {
        "source": {"columns": ["x0", "x1", "x2", "x3"], "ids": ["id"]},
        "prepare": {"scale": "standard", "blocks": "disk"},
        "kmeans": {"n_clusters": 4, "n_init": 3},
    }
    if dask:
        sections["dask"] = {"workers": 2, "block_bytes": "64KiB"}
    with gate_before(moto) as gate:
        data = upload(moto, new_bucket(moto), [path])
        committed(write_job(tmp_path / "job.toml", data, "out", **sections), environment(gate.server))
    size = path.stat().st_size
    spans = [asked.span for asked in gate.asked if asked.method == "GET" and asked.span]
    spans = [span for span in spans if span[1] < size]  # the footer's ends there
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for column in range(1, 5):
            chunk = metadata.row_group(group).column(column)
            start, stop = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
            assert sum(a < stop and start < b for a, b in spans) == 1
