"""A job from Parquet to a committed run, and the ways in which a cluster can refuse it."""

import importlib.metadata
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from distributed import Client

from kmeans_dask.errors import DataError, InfrastructureError, StopRequested
from kmeans_dask.lloyd import Progress
from pipeline import Run, open_run, run_job
from pipeline.runner import PlainRunner, Watch
from tests.engine_jobs import Counted, job, listing, noise, result_files, write_files
from tests.worker_faults import processes

WORKERS = {"workers": 2, "block_bytes": "4KiB"}


def children() -> set[int]:
    """Return the processes below this one, but for multiprocessing's own servants."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if "resource_tracker" not in line and "forkserver" not in line:
            found.add(process.pid)
    return found


@contextmanager
def ending_clean() -> Iterator[None]:
    """Check that no process, no thread of ours and no scratch folder outlive the block."""
    before = children()
    try:
        yield
    finally:
        assert children() <= before, "a worker lives"
        ours = [
            thread.name for thread in threading.enumerate() if thread.name.startswith(("kmeans", "restart"))
        ]
        assert ours == []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """4000 rows in four files."""
    return write_files(tmp_path_factory.mktemp("rows") / "data", noise(4000), files=4, group_rows=300)


def test_a_run_holds_what_the_job_found(source: str, tmp_path: Path) -> None:
    """One row per input row in order, sizes that count the labels, every iteration of every restart."""
    run = run_job(job(tmp_path, source))
    labels = run.labels
    assert labels["id"].to_pylist() == list(range(4000))
    counts = [pc.sum(pc.equal(labels["cluster"], cluster)).as_py() for cluster in range(5)]
    centroids = pq.read_table(Path(run.uri) / "centroids.parquet")
    assert centroids["size"].to_pylist() == counts == run.manifest["result"]["sizes"]
    restarts = pq.read_table(Path(run.uri) / "restarts.parquet")
    assert sorted(set(restarts["restart"].to_pylist())) == [0, 1, 2]
    best = restarts.filter(pc.equal(restarts["restart"], run.model.restart))
    assert best["iteration"].to_pylist() == list(range(1, run.model.n_iter + 1))
    assert run.model.inertia <= min(restarts["inertia"].to_pylist())
    assert np.square(labels["distance"].to_numpy().astype(np.float64)).sum() == pytest.approx(
        run.model.inertia, rel=1e-6  # float32 distances
    )  # fmt: skip


def test_runs_follow_each_other(source: str, tmp_path: Path) -> None:
    """A second run of a job is a run of its own with the same results, numbered after the first."""
    first, second = run_job(job(tmp_path, source)), run_job(job(tmp_path, source))
    assert result_files(first) == result_files(second)
    assert first.run_id != second.run_id
    assert second.manifest["sequence"] == 2
    assert second.manifest["previous"] == first.run_id
    assert open_run(tmp_path / "out").run_id == second.run_id


def test_a_stored_model_starts_a_job(source: str, tmp_path: Path) -> None:
    """A converged model as `init` is found again in one iteration, bit for bit."""
    first = run_job(job(tmp_path, source, tol=0.0, dtype="float64"))
    again = run_job(job(tmp_path, source, tol=0.0, dtype="float64", init="out"))
    assert again.model.centroids.tobytes() == first.model.centroids.tobytes()
    assert again.model.inertia == first.model.inertia
    assert again.model.n_iter <= 2
    assert again.model.init == "model"


def test_the_time_limit_ends_a_job_with_a_result(source: str, tmp_path: Path) -> None:
    """max_seconds stops every restart after an iteration; labels still match the final centroids."""
    run = run_job(job(tmp_path, source, max_seconds=1e-9, tol=0.0, n_clusters=20))
    assert run.model.stop == "max_seconds"
    assert run.model.n_iter == 1
    distances = run.labels["distance"].to_numpy().astype(np.float64)
    assert np.square(distances).sum() == pytest.approx(run.model.inertia, rel=1e-6)  # float32 distances


def test_fewer_distinct_rows_than_clusters_is_a_warning(tmp_path: Path) -> None:
    """The job ends with a result and a warning that names both numbers."""
    source = write_files(tmp_path / "data", pa.table({"id": range(60), "x": [1.0, 2.0, 5.0] * 20}))
    with pytest.warns(UserWarning, match=r"clusters \(3\) found smaller than n_clusters \(5\)"):
        run = run_job(job(tmp_path, source))
    assert run.model.inertia == 0
    assert sorted(run.model.sizes.tolist()) == [0, 0, 20, 20, 20]


@pytest.mark.parametrize("dask", [None, WORKERS], ids=["in-process", "two-workers"])
def test_a_job_ends_clean(source: str, tmp_path: Path, dask: Any) -> None:
    """After a job no worker, no thread and no scratch folder of it is left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    own = None if dask is None else {**dask, "local_directory": str(scratch)}
    with ending_clean():
        run_job(job(tmp_path, source, dask=own))
    assert listing(scratch) == []


@pytest.mark.parametrize("dask", [None, WORKERS], ids=["in-process", "two-workers"])
def test_a_job_that_is_stopped_ends_clean(source: str, tmp_path: Path, dask: Any) -> None:
    """A stop in mid-fit ends every restart, leaves no process, and the output as it was."""
    run_job(job(tmp_path, source))
    before = listing(tmp_path / "out")
    stop = threading.Event()

    def on_progress(progress: Progress) -> None:
        stop.set()

    with ending_clean(), pytest.raises(StopRequested):
        run_job(job(tmp_path, source, dask=dask), PlainRunner(Watch(stop, on_progress)))
    assert listing(tmp_path / "out") == before


def test_bad_rows_found_by_workers_end_clean(tmp_path: Path) -> None:
    """An infinity that no footer tells is the user's error, with file, column and count, and leaves nothing."""
    table = noise(3000).set_column(1, "x0", [pa.array([*([0.5] * 2998), np.inf, -np.inf])])
    source = write_files(tmp_path / "data", table, files=3, write_statistics=False)
    with ending_clean(), pytest.raises(DataError, match=r"002\.parquet.*x0.*2 ") as caught:
        run_job(job(tmp_path, source, dask=WORKERS))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def refused(tmp_path: Path, source: str, address: str) -> InfrastructureError:
    """Return the error of a job on a cluster that cannot run it, raised within its time limit, leaving nothing."""
    began = time.monotonic()
    with pytest.raises(InfrastructureError) as caught:
        run_job(job(tmp_path, source, dask={"address": address}))
    assert time.monotonic() - began < 30
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    return caught.value


@pytest.mark.slow
def test_a_scheduler_that_never_answers(source: str, tmp_path: Path) -> None:
    """An address that takes connections and says nothing is given up after 20 seconds."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        assert f"the scheduler at {address} does not answer within 20 s" in str(
            refused(tmp_path, source, address)
        )


@pytest.mark.slow
def test_a_scheduler_that_is_not_there(source: str, tmp_path: Path) -> None:
    """An address where nothing listens is given up after 20 seconds: it might be starting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    assert f"the scheduler at {address} does not answer within 20 s" in str(
        refused(tmp_path, source, address)
    )


def without_our_package(folder: Path) -> Path:
    """Return a folder that holds this environment's packages except ours, as links."""
    folder.mkdir()
    for place in {Path(str(file.locate_file(""))) for file in importlib.metadata.distributions()}:
        for entry in place.iterdir():
            if (
                "kmeans_dask" not in entry.name
                and entry.suffix != ".pth"
                and not (folder / entry.name).exists()
            ):
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.slow
def test_workers_without_our_package(source: str, tmp_path: Path) -> None:
    """A worker whose environment lacks kmeans-dask is told, with the version to install."""
    packages = without_our_package(tmp_path / "packages")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # Not this virtual environment's Python, which finds our package by itself.
    python = os.path.realpath(sys.executable)
    with processes(tmp_path / "cluster", 0) as cluster:
        cluster.add_worker(
            "--no-nanny", python=python, env={**env, "PYTHONPATH": str(packages)}, cwd=tmp_path
        )
        cluster.wait_for_workers(1)
        error = refused(tmp_path, source, cluster.address)
    ours = importlib.metadata.version("kmeans-dask")
    assert f"a worker does not have the package kmeans-dask. Install version {ours}" in str(error)


OTHER_VERSION = """
import importlib.metadata as metadata
ours = metadata.version
metadata.version = lambda name: "0.0.9" if name == "kmeans-dask" else ours(name)
"""


@pytest.mark.slow
def test_workers_with_another_version(source: str, tmp_path: Path) -> None:
    """A worker with another version of kmeans-dask is told by its address, with both versions."""
    (tmp_path / "older.py").write_text(OTHER_VERSION)
    with processes(tmp_path / "cluster", 0) as cluster:
        cluster.add_worker("--no-nanny", "--preload", str(tmp_path / "older.py"))
        cluster.wait_for_workers(1)
        error = refused(tmp_path, source, cluster.address)
    ours = importlib.metadata.version("kmeans-dask")
    assert f"has kmeans-dask 0.0.9, this is {ours}. Install {ours} on all workers" in str(error)


@pytest.mark.slow
def test_a_cluster_without_workers(source: str, tmp_path: Path) -> None:
    """A scheduler that has no workers is told as such."""
    with processes(tmp_path / "cluster", 0) as cluster:
        assert "no workers" in str(refused(tmp_path, source, cluster.address))


@pytest.mark.slow
def test_data_beyond_the_workers_memory(tmp_path: Path) -> None:
    """What an existing cluster's workers cannot hold is refused before a row is read, whatever the plan hoped for."""
    source = write_files(tmp_path / "data", noise(10_000))
    with processes(tmp_path / "cluster", 1, memory_limit="200MiB") as cluster:
        settings = job(tmp_path, source, dask={"address": cluster.address})
        with pytest.raises(DataError, match=r"each worker, more than .* 200 MiB") as caught:
            run_job(settings)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_foreign_cluster_is_left_as_it_was(source: str, tmp_path: Path) -> None:
    """After two jobs at once an existing cluster's workers live, hold nothing, and served both."""
    with processes(tmp_path / "cluster", 2) as cluster:
        runs: list[Run] = []
        settings = {"address": cluster.address, "block_bytes": "4KiB"}
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        threads = [
            threading.Thread(
                target=lambda n=name: runs.append(run_job(job(tmp_path / n, source, dask=settings)))
            )
            for name in ("a", "b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Client(cluster.address, set_as_default=False) as client:
            deadline = time.monotonic() + 30
            while any(client.run(held).values()) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert list(client.run(held).values()) == [0, 0]
    assert result_files(runs[0]) == result_files(runs[1]) == result_files(run_job(job(tmp_path, source)))


def held(dask_worker: Any) -> int:
    """Return how many results and shards a worker holds."""
    return len(dask_worker.data) + len(dask_worker.plugins["kmeans-dask-shards"].shards)


def test_workers_import_only_what_they_need(source: str, tmp_path: Path) -> None:
    """Workers load neither Prefect nor dask.dataframe nor scikit-learn, each of which takes about a second."""
    counted = Counted()
    found: list[dict[str, list[str]]] = []

    class Looking(PlainRunner):
        def step(self, name: str, fn: Any, *args: Any) -> Any:
            if name == "write-labels":
                found.append(args[0]._loads.cluster.client.run(imported))
            return super().step(name, fn, *args)

    run_job(job(tmp_path, source, dask=WORKERS), Looking(Watch(on_progress=counted)))
    assert found == [{address: [] for address in found[0]}]
    assert len(found[0]) == 2


def imported() -> list[str]:
    """Return which of the packages that workers do without are imported."""
    return [name for name in ("prefect", "dask.dataframe", "sklearn") if name in sys.modules]
