"""The flow, against a real Prefect server: what its API shows, and what becomes of a job when it vanishes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import command, visible_run, write_job
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
    assert list(schema["properties"]) == ["source", "prepare", "kmeans", "dask", "scores", "output", "set"]
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


@pytest.mark.slow
def test_a_run_of_the_deployment_commits(
    prefect_server: PrefectServer, deployment: Any, tmp_path: Path
) -> None:
    """A run created by the API, with dotted changes in `set`, runs in a process of Prefect's own and commits."""
    write_job(tmp_path)
    parameters = {
        "source": {"path": str(tmp_path / "data.parquet")},
        "kmeans": {"n_clusters": 3, "n_init": 2},
        "output": {"path": str(tmp_path / "out")},
        "set": ["kmeans.n_clusters=4", "prepare.scale=standard"],
    }
    created = prefect_server.ask(
        f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}
    )
    environment = {**prefect_server.environment, "PREFECT__FLOW_RUN_ID": created["id"]}
    done = subprocess.run(
        [sys.executable, "-m", "prefect.engine"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    run_id = visible_run(tmp_path / "out")
    assert run_id is not None, done.stderr
    manifest = json.loads((tmp_path / "out" / "runs" / run_id / "manifest.json").read_text())
    assert manifest["job"]["kmeans"]["n_clusters"] == 4
    assert run_id in prefect_server.ask(f"/flow_runs/{created['id']}")["name"]


def test_a_foreign_package_of_our_name_is_named(tmp_path: Path) -> None:
    """Loaded by its path where another `pipeline` comes first, the flow's file names both paths."""
    foreign = tmp_path / "pipeline" / "__init__.py"
    foreign.parent.mkdir()
    foreign.touch()
    root = Path(__file__).parents[1]
    program = [sys.executable, "-P", "-c", "import runpy; runpy.run_path('flows/flow.py')"]
    done = subprocess.run(
        program,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "ConfigError" in last
    assert str(foreign) in last
    assert str(root / "pipeline") in last
