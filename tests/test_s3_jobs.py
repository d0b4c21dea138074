"""Whole jobs on object stores: results, races and kills, as readers that know nothing of our code see them."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem

from tests.jobs import started
from tests.outputs import Output, Reader, chain, check_run, local_output, s3_output
from tests.recompute import recomputed
from tests.s3_gate import PASS, Asked, gate_before
from tests.s3_jobs import (
    brought_home,
    committed,
    environment,
    lasting_bytes,
    latest,
    new_bucket,
    upload,
    write_job,
    write_source,
)
from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of 500 rows."""
    return write_source(tmp_path_factory.mktemp("source") / "data")


@pytest.fixture(scope="module")
def local_bytes(source: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The lasting files of the job on local files."""
    folder = tmp_path_factory.mktemp("local")
    committed(write_job(folder / "job.toml", str(source[0].parent), "out"), environment())
    found = lasting_bytes(local_output(folder / "out"))
    assert len(found) == 3 + len(["centroids.parquet", "model.json", "model.parquet"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dask", [False, True], ids=["here", "dask"])
@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_job_on_an_object_store_is_the_job_on_local_files(
    name: str,
    dask: bool,
    source: list[Path],
    local_bytes: dict[str, bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Labels, centroids and model have the local job's bytes; plain readers find order, inertia and checksums right."""
    server: S3Server = request.getfixturevalue(name)
    output = s3_output(server)
    sections: dict[str, Any] = {"dask": {"workers": 2, "block_bytes": "8KiB"}} if dask else {}
    job = write_job(tmp_path / "job.toml", upload(server, new_bucket(server), source), output.uri, **sections)
    results = [committed(job, environment(server)) for _ in range(2)]

    assert lasting_bytes(output) == local_bytes
    manifests = chain(output)
    assert [manifest["run_id"] for manifest in manifests] == [result["run_id"] for result in results[::-1]]
    assert [manifest["sequence"] for manifest in manifests] == [2, 1]
    assert manifests[0]["conditional_put"] is output.conditional
    found = recomputed(brought_home(output, tmp_path / "home"), source)
    assert found["rows"] == found["source_rows"] == 1500
    assert found["inertia"] == pytest.approx(results[1]["inertia"], rel=1e-6)
    assert (found["mislabelled"], found["sizes_agree"], found["nulls_where_nulls"]) == (0, True, True)
    parts = manifests[0]["parts"]
    home = f"{output.uri.removeprefix('s3://')}runs/{latest(output)}/"
    labels = pa.concat_tables([read_by_pyarrow(server, home + part["path"], output) for part in parts])
    assert labels["id"].to_pylist() == list(range(1500))
    assert labels["name"].to_pylist() == [f"row {i}" for i in range(1500)]


def read_by_pyarrow(server: S3Server, path: str, output: Output) -> pa.Table:
    """Read a table by pyarrow's own S3 client; rclone's answers to ranges are not for it, so there by boto3."""
    if not output.conditional:
        return pq.read_table(pa.BufferReader(output.read(path.partition("/results/k means/")[2])))
    files = S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=server.endpoint, region="us-east-1"
    )
    return pq.read_table(path, filesystem=files)


def race(jobs: list[Path], env: dict[str, str], folder: Path) -> None:
    """Start jobs together and see all of them commit."""
    logs = [folder / f"log-{number}" for number in range(len(jobs))]
    processes = [
        started("run", job, "--no-prefect", env=env, log=log) for job, log in zip(jobs, logs, strict=True)
    ]
    for process, log in zip(processes, logs, strict=True):
        try:
            assert process.wait(120) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_two_jobs_that_move_the_pointer_at_once_both_end_as_whole_runs(
    moto: S3Server, source: list[Path], tmp_path: Path
) -> None:
    """Two first pointers are held back until both are under way: one is refused, and its job becomes the second."""
    output, both = s3_output(moto), threading.Barrier(2)
    pointers: list[Asked] = []

    def guard(asked: Asked) -> int:
        if asked.method == "PUT" and asked.path.endswith("/_LATEST.json"):
            pointers.append(asked)
            if len(pointers) <= 2:
                both.wait(60)
        return PASS

    with gate_before(moto) as gate:
        gate.guard = guard
        data = upload(moto, new_bucket(moto), source)
        jobs = [write_job(tmp_path / f"{name}.toml", data, output.uri) for name in "ab"]
        race(jobs, environment(gate.server), tmp_path)
    assert len(pointers) == 3
    manifests = chain(output)
    assert [manifest["sequence"] for manifest in manifests] == [2, 1]
    assert len({manifest["run_id"] for manifest in manifests}) == 2


@pytest.mark.slow
def test_two_jobs_race_to_one_directory(source: list[Path], tmp_path: Path) -> None:
    """Pairs of jobs started together on one directory leave a chain of whole runs."""
    output = local_output(tmp_path / "out")
    jobs = [write_job(tmp_path / f"{name}.toml", str(source[0].parent), "out") for name in "ab"]
    for _ in range(2):
        race(jobs, environment(), tmp_path)
    assert [manifest["sequence"] for manifest in chain(output)] == [4, 3, 2, 1]


@pytest.mark.slow
def test_two_jobs_race_without_conditional_puts(rclone: S3Server, source: list[Path], tmp_path: Path) -> None:
    """Where the last writer wins both runs are whole all the same, and the pointer names one of them."""
    output = s3_output(rclone)
    data = upload(rclone, new_bucket(rclone), source)
    jobs = [write_job(tmp_path / f"{name}.toml", data, output.uri) for name in "ab"]
    race(jobs, environment(rclone), tmp_path)
    runs = runs_in(output.names())
    assert len(runs) == 2
    for run_id in runs:
        assert check_run(output, run_id)["conditional_put"] is False
    assert latest(output) in runs


def runs_in(names: list[str]) -> set[str]:
    """Return the runs that have any file."""
    return {name.split("/")[1] for name in names if name.startswith("runs/")}


def killed_after_first_part(
    job: Path, env: dict[str, str], output: Output, folder: Path, delay: float
) -> str | None:
    """Run a job, kill it once its first part is there; return its run, or None where it was too quick for us."""
    before = runs_in(output.names())
    process = started("run", job, "--no-prefect", env=env, log=folder / "log")
    try:
        deadline = time.monotonic() + 60
        begun = list[str]()
        while not begun:
            ended = process.poll() is not None  # asked before the listing, which takes its time
            begun = [n for n in output.names() if "/labels/part-" in n and n.split("/")[1] not in before]
            assert begun or not ended, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()
    (run_id,) = runs_in(begun)
    time.sleep(0.2)  # a request that was on its way when its sender died may still arrive
    return None if f"runs/{run_id}/manifest.json" in output.names() else run_id


@pytest.mark.fault
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "n_kills", "n_files"), [("moto", 20, 60), ("dask", 3, 25), ("local", 10, 120)]
)
def test_readers_see_whole_runs_while_whole_jobs_are_killed(
    kind: str, n_kills: int, n_files: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Jobs killed by SIGKILL after their first part and before their manifest are never seen; later jobs commit."""
    paths = write_source(tmp_path / "data", n_files=n_files, n_rows=40)
    if kind != "local":
        server: S3Server = request.getfixturevalue("moto")
        output, env = s3_output(server), environment(server)
        data = upload(server, new_bucket(server), paths)
    else:
        output, env, data = local_output(tmp_path / "out"), environment(), str(tmp_path / "data")
    workers: dict[str, Any] = {"dask": {"workers": 2}} if kind == "dask" else {}
    job = write_job(tmp_path / "job.toml", data, output.uri, **workers)
    committed(job, env)
    killed, draw = list[str](), random.Random(kind)
    with Reader(output) as reader:
        for _ in range(5 * n_kills):  # on a busy machine many jobs end before they are killed
            run_id = killed_after_first_part(job, env, output, tmp_path, draw.uniform(0, 0.05))
            killed += [run_id] if run_id else []
            if len(killed) == n_kills:
                break
        committed(job, env)
        time.sleep(1)

    assert reader.failures == []
    assert reader.seen == sorted(reader.seen)
    assert reader.seen[-1] == chain(output)[0]["sequence"] >= 2
    assert len(killed) == n_kills
    assert {manifest["run_id"] for manifest in chain(output)}.isdisjoint(killed)
    names = output.names()
    for run_id in killed:
        assert any(name.startswith(f"runs/{run_id}/labels/part-") for name in names)
        assert f"runs/{run_id}/manifest.json" not in names
