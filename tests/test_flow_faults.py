"""The flow when things fail: what is retried, and a Prefect API that vanishes in mid-run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import embedded
from tests.jobs import started, visible_run, write_job
from tests.prefect_server import PrefectServer

STEPS = """
import json
from prefect import flow
from flows.prefect_runner import PrefectRunner
from kmeans_dask.errors import DataError, InfrastructureError

class Step:
    def __init__(self, error, after=0):
        self.error, self.after, self.calls = error, after, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.after:
            raise self.error

@flow
def steps():
    runner = PrefectRunner()
    made = {
        "recovers": Step(InfrastructureError("gone"), after=1),
        "stays away": Step(InfrastructureError("gone"), after=9),
        "commit": Step(InfrastructureError("gone"), after=9),
        "bad data": Step(DataError("bad"), after=9),
        "defect": Step(ZeroDivisionError("by zero"), after=9),
    }
    raised = {}
    for name, step in made.items():
        try:
            runner.step(name, step)
            raised[name] = None
        except Exception as error:
            raised[name] = type(error).__name__
    print(json.dumps({name: [made[name].calls, raised[name]] for name in made}))

steps()
"""


@pytest.mark.slow
def test_only_failures_of_the_infrastructure_are_retried(prefect_server: PrefectServer) -> None:
    """A step that failed with exit code 3 is made once more, save the commit; every other failure is final."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        env=prefect_server.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "recovers": [2, None],
        "stays away": [2, "InfrastructureError"],
        "commit": [1, "InfrastructureError"],
        "bad data": [1, "DataError"],
        "defect": [1, "ZeroDivisionError"],
    }


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
