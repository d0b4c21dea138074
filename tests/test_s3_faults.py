"""Stores that change, refuse or go away under a whole job: the exit code, the words, and what readers still see."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import command
from tests.outputs import Output, chain, s3_output
from tests.s3_gate import HANG_UP, PASS, Asked, Gate, gate_before
from tests.s3_jobs import committed, environment, new_bucket, upload, write_job, write_source
from tests.s3_servers import S3Server

FORBIDDEN = 403


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Files large enough that a footer's read leaves most of the data unread."""
    return write_source(tmp_path / "data", n_files=3, n_rows=8_000)


def reads_rows(asked: Asked, path: Path) -> bool:
    """Tell a request for rows of a source file from one for its footer."""
    span = asked.span
    return asked.path.endswith(f"/data/{path.name}") and span is not None and span[1] < path.stat().st_size


def writes_part(asked: Asked) -> bool:
    return asked.method == "PUT" and "/labels/part-" in asked.path


def once_begun(
    begins: Callable[[Asked], bool], act: Callable[[], None], verdict: int
) -> Callable[[Asked], int]:
    """Return a guard that acts once before the first request for which `begins`, and from then on gives `verdict`."""
    begun: list[Asked] = []
    one_at_a_time = threading.Lock()

    def guard(asked: Asked) -> int:
        with one_at_a_time:
            if not begun and begins(asked):
                begun.append(asked)
                act()
            return verdict if begun else PASS

    return guard


@pytest.mark.slow
@pytest.mark.parametrize("dask", [False, True], ids=["here", "dask"])
@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_source_object_that_changes_in_mid_job_is_named(
    change: str, dask: bool, moto: S3Server, paths: list[Path], tmp_path: Path
) -> None:
    """An object replaced or deleted after the plan and before its rows are read exits 2, and nothing is written."""
    output, bucket, last = s3_output(moto), new_bucket(moto), paths[-1]
    data = upload(moto, bucket, paths)
    job = write_job(tmp_path / "job.toml", data, output.uri, **({"dask": {"workers": 2}} if dask else {}))

    def act() -> None:
        client, key = moto.client(), f"data/{last.name}"
        if change == "deleted":
            client.delete_object(Bucket=bucket[5:], Key=key)
        else:
            client.put_object(Bucket=bucket[5:], Key=key, Body=paths[0].read_bytes())
        client.close()

    with gate_before(moto) as gate:
        committed(job, environment(gate.server))
        before = listing(output)
        gate.guard = once_begun(lambda asked: reads_rows(asked, paths[0]), act, PASS)
        done = command("run", job, "--no-prefect", env=environment(gate.server))
    assert done.returncode == 2, done.stderr
    said = {"replaced": "the file changed while the job ran", "deleted": "there is no such file"}[change]
    assert f"{data}{last.name}: {said}" in done.stderr
    assert listing(output) == before


def listing(output: Output) -> dict[str, bytes]:
    return {name: output.read(name) for name in output.names()}


def failed_in_mid_job(
    gate: Gate, job: Path, guard: Callable[[Asked], int], output: Output
) -> "tuple[int, str, set[str]]":
    """Run a job to its end under a guard; return exit code, stderr and the new files, after checking the old run."""
    env = environment(gate.server)
    committed(job, env)
    before = listing(output)
    gate.guard = guard
    done = command("run", job, "--no-prefect", env=env)
    after = listing(output)
    assert {name: after[name] for name in before} == before
    assert [manifest["sequence"] for manifest in chain(output)] == [1]
    gate.guard = lambda asked: PASS
    committed(job, env)
    assert [manifest["sequence"] for manifest in chain(output)] == [2, 1]
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr, set(after) - set(before)


MOMENTS: dict[str, Callable[[Asked], bool]] = {
    "rows": lambda asked: "/data/" in asked.path and asked.span is not None,
    "parts": writes_part,
    "manifest": lambda asked: asked.method == "PUT" and asked.path.endswith("/manifest.json"),
    "pointer": lambda asked: asked.method == "PUT" and asked.path.endswith("/_LATEST.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verdict", [FORBIDDEN, HANG_UP], ids=["refuses", "goes"])
def test_a_store_that_refuses_or_goes_in_mid_job(
    verdict: int, moment: str, moto: S3Server, paths: list[Path], tmp_path: Path
) -> None:
    """Exit 3 whatever the job was doing; readers see the run before, and the next job is the second."""
    output = s3_output(moto)
    data = upload(moto, new_bucket(moto), paths)
    job = write_job(tmp_path / "job.toml", data, output.uri)
    with gate_before(moto) as gate:
        guard = once_begun(MOMENTS[moment], lambda: None, verdict)
        returncode, said, left = failed_in_mid_job(gate, job, guard, output)
    assert returncode == 3, said
    words = "refused the credentials or the access" if verdict == FORBIDDEN else "does not answer"
    assert f"{gate.server.endpoint} {words}" in said
    # With its requests refused a job cannot clean up; without a manifest what it leaves is no run.
    assert any(name.endswith("manifest.json") for name in left) == (moment == "pointer")


@pytest.mark.slow
def test_an_output_bucket_that_is_deleted_in_mid_job(
    moto: S3Server, paths: list[Path], tmp_path: Path
) -> None:
    """The output could be written when it was probed: that its bucket is gone now is the store's failure, exit 3."""
    bucket = new_bucket(moto)
    data = upload(moto, new_bucket(moto), paths)
    job = write_job(tmp_path / "job.toml", data, f"{bucket}/results")

    def act() -> None:
        client = moto.client()
        client.delete_bucket(Bucket=bucket[5:])
        client.close()

    with gate_before(moto) as gate:
        gate.guard = once_begun(writes_part, act, PASS)
        done = command("run", job, "--no-prefect", env=environment(gate.server))
    assert done.returncode == 3, done.stderr
    assert "there is no such bucket" in done.stderr
    assert "It could be written when the job began" in done.stderr
    assert "Traceback" not in done.stderr
