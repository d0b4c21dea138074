"""The flow, against a real Prefect server: what its API shows, and what becomes of a job when it vanishes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.server import embedded
from tests.jobs import command, started, visible_run, write_job
from tests.prefect_server import PrefectServer

N_INIT = 4


@pytest.fixture(scope="module")
def finished(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The run id and the flow run of a job that ran against the server."""
    job = write_job(tmp_path_factory.mktemp("job"), n_init=N_INIT)
    done = command("run", job, "--json", env=prefect_server.environment)
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    return run_id, prefect_server.flow_run(run_id)


def restarts_of(server: PrefectServer, flow_run: Any) -> list[Any]:
    """Return the task runs that are restarts; the server records them a moment later."""
    deadline = time.monotonic() + 20
    while True:
        runs = [
            run for run in server.of_flow_run("task_runs", flow_run) if run["name"].startswith("restart-")
        ]
        if (len(runs) >= N_INIT and all(run["state_type"] == "COMPLETED" for run in runs)) or (
            time.monotonic() > deadline
        ):
            return runs
        time.sleep(0.5)


@pytest.mark.slow
def test_the_flow_runs_name_carries_the_run_id(finished: tuple[str, Any]) -> None:
    """The flow run is found by our run id, and is completed."""
    run_id, flow_run = finished
    assert run_id in flow_run["name"]
    assert flow_run["state_type"] == "COMPLETED"


@pytest.mark.slow
def test_each_restart_is_a_task_run_with_its_own_iteration_lines(
    prefect_server: PrefectServer, finished: tuple[str, Any]
) -> None:
    """The API shows n_init task runs, each with its own lines of distortion, labels changed and seconds."""
    run_id, flow_run = finished
    restarts = restarts_of(prefect_server, flow_run)
    assert sorted(run["name"] for run in restarts) == [f"restart-{index}" for index in range(N_INIT)]
    logs = prefect_server.of_flow_run("logs", flow_run)
    for run in restarts:
        index = run["name"].removeprefix("restart-")
        lines = [
            log["message"]
            for log in logs
            if log["task_run_id"] == run["id"] and "iteration" in log["message"]
        ]
        assert lines
        for number, line in enumerate(lines, start=1):
            assert line.startswith(f"{run_id} restart {index} iteration {number}: distortion ")
            assert ", changed " in line
            assert line.endswith(" s")


@pytest.mark.slow
def test_every_step_is_a_task_run(prefect_server: PrefectServer, finished: tuple[str, Any]) -> None:
    """Steps that are no restarts are task runs too, each run once."""
    runs = prefect_server.of_flow_run("task_runs", finished[1])
    assert {run["name"] for run in runs} >= {"plan", "load", "write-labels", "commit"}
    assert {run["run_count"] for run in runs} == {1}


@pytest.mark.slow
def test_artifacts_are_the_restarts_and_a_summary(
    prefect_server: PrefectServer, finished: tuple[str, Any]
) -> None:
    """The flow run has a table with a row for each restart and a markdown summary with the run id."""
    run_id, flow_run = finished
    artifacts = {item["key"]: item for item in prefect_server.of_flow_run("artifacts", flow_run)}
    table = json.loads(artifacts["kmeans-restarts"]["data"])
    assert [row["restart"] for row in table] == list(range(N_INIT))
    assert {"seed", "inertia", "distortion", "iterations", "stop", "seconds"} <= table[0].keys()
    assert run_id in artifacts["kmeans-summary"]["data"]


DEPLOY = """
import sys
from pathlib import Path
from prefect import Flow
source, entrypoint = sys.argv[1:]
deployed = Flow.from_source(source=source, entrypoint=entrypoint)
print(deployed.to_deployment("test").apply())
"""


@pytest.fixture(scope="module")
def deployment(prefect_server: PrefectServer) -> Any:
    """A deployment of the flow by its file's path, the working directory set."""
    root = Path(__file__).parents[1]
    program = [sys.executable, "-c", DEPLOY, str(root), "flows/flow.py:kmeans_flow"]
    done = subprocess.run(
        program, env=prefect_server.environment, cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return prefect_server.ask(f"/deployments/{done.stdout.split()[-1]}")


@pytest.mark.slow
def test_the_schema_has_type_default_and_description_for_every_key(deployment: Any) -> None:
    """The API's parameter schema tells of every key of every section what a form needs."""
    schema = deployment["parameter_openapi_schema"]
    assert list(schema["properties"]) == ["source", "prepare", "kmeans", "dask", "output", "set"]
    for name, parameter in schema["properties"].items():
        assert parameter["description"], name
    for name, section in schema["definitions"].items():
        assert section["additionalProperties"] is False, name
        for key, value in section["properties"].items():
            place = f"{name}.{key}"
            assert value["description"], place
            assert value.keys() & {"type", "anyOf", "$ref", "allOf"}, place
            assert "default" in value or key in section["required"], place


@pytest.mark.slow
@pytest.mark.parametrize(
    "kmeans", [{"n_clusters": 0}, {"n_clusters": 3, "n_int": 2}, {"n_clusters": "three"}, {"n_init": 2}]
)
def test_bad_values_are_refused_when_a_run_is_created(
    prefect_server: PrefectServer, deployment: Any, kmeans: dict[str, Any]
) -> None:
    """The API itself refuses a run with a value out of bounds, of another type, an unknown or a missing key."""
    parameters = {"source": {"path": "data.parquet"}, "kmeans": kmeans, "output": {"path": "out"}}
    with pytest.raises(OSError, match=r"HTTP Error 4(09|22)"):
        prefect_server.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})


@pytest.mark.slow
def test_bad_input_is_a_failed_flow_run_and_exit_code_2(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    """What only the data can tell fails the flow run, exits 2 with the message alone, and is not retried."""
    done = command("run", write_job(tmp_path, n_clusters=601), env=prefect_server.environment)
    assert done.returncode == 2
    assert "601" in done.stderr
    assert "Traceback" not in done.stderr
    failed = prefect_server.ask("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}})
    assert any("601" in run["state"]["message"] for run in failed)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[PrefectServer, int]]:
    """A server to be killed, and its process id."""
    home = tmp_path / "home"
    with embedded(home) as url:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        (pid,) = [
            int(child)
            for child in children
            if url.split(":")[2].removesuffix("/api") in arguments_of(int(child))
        ]
        yield PrefectServer(url, home), pid


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.mark.fault
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=lambda sent: sent.name)
def test_an_api_that_vanishes_in_mid_run_does_not_lose_the_result(
    own_server: tuple[PrefectServer, int], tmp_path: Path, sent: signal.Signals
) -> None:
    """The server is killed, or falls silent, between two iterations: the job commits once, warns, and exits 0."""
    server, pid = own_server
    job = write_job(tmp_path, n_rows=60_000, n_features=8, noise=8.0, n_clusters=40, n_init=6, tol=0)
    log = tmp_path / "log"
    process = started("run", job, env=server.environment, log=log)
    try:
        wait_for(log, "restart 0 iteration 3:", process)
        os.kill(pid, sent)
        assert visible_run(tmp_path / "out") is None
        assert process.wait(timeout=120) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
        os.kill(pid, signal.SIGKILL)
    run_id = visible_run(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == [run_id]
    assert "the run is committed, but the Prefect API could not be told" in log.read_text()


def wait_for(log: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once a process has written a text; fail when it ended before."""
    deadline = time.monotonic() + 90
    while text not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
