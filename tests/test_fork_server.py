"""The process whose copies workers are: what copies find, what it leaves alone, and that it ends."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import fork_server
from pipeline.processes import COPIES_WORKERS

pytestmark = pytest.mark.skipif(not COPIES_WORKERS, reason="workers start afresh here")
SEEN = ("ARROW_DEFAULT_MEMORY_POOL", "PYTHONHASHSEED", "OPENBLAS_NUM_THREADS")


def context() -> BaseContext:
    """Return the context that Dask finds under our method's name."""
    return multiprocessing.get_context(fork_server.METHOD)


def tell(found: Any) -> None:
    """Say what a process finds as it begins."""
    server = os.getppid()
    found.put(
        {
            "is_ready": "pipeline.labels" in sys.modules,
            "server": server,
            "threads": len(os.listdir(f"/proc/{server}/task")),
            "path": sys.path,
            "environment": {name: os.environ.get(name) for name in SEEN},
            "hears_sigint": signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []),
        }
    )


def told() -> dict[str, Any]:
    """Return what a new process finds."""
    found = context().Queue()
    process = context().Process(target=tell, args=(found,))  # type: ignore[attr-defined]
    process.start()
    said: dict[str, Any] = found.get(timeout=120)
    process.join(10)
    assert process.exitcode == 0
    return said


def servers() -> list[int]:
    """Return the fork servers among this process's children."""
    return [child.pid for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]


def test_a_copy_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy finds everything imported, our search path and its variables; no thread ran where it was made."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    before = dict(os.environ)
    with fork_server.held() as settings:
        assert dict(os.environ) == before
        said = told()
        assert said["server"] in servers()
    assert settings == {fork_server.SETTING: fork_server.METHOD}
    assert said["is_ready"]
    assert said["threads"] == 1
    assert said["path"] == [entry or os.getcwd() for entry in sys.path]
    assert said["environment"] == dict(zip(SEEN, ("system", "6640", "1"), strict=True))
    assert not said["hears_sigint"]


def test_the_last_holder_ends_it() -> None:
    """Two holders share one server, which ends with the second; multiprocessing's own was never started."""
    with fork_server.held():
        with fork_server.held():
            (first,) = servers()
        assert servers() == [first]
        assert told()["server"] == first
    assert servers() == []
    assert forkserver._forkserver._forkserver_pid is None  # type: ignore[attr-defined]


def test_nothing_stays_in_the_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's socket lies in a folder of its own that nobody else may enter, and goes with it."""
    with tempfile.TemporaryDirectory() as short:  # the name of a socket may have 107 bytes
        monkeypatch.setattr(tempfile, "tempdir", short)
        with fork_server.held():
            (folder,) = Path(short).iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
            assert told()["is_ready"]
        assert list(Path(short).iterdir()) == []


def test_where_it_cannot_be_started_workers_start_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a temporary directory that it could use there is no server, and no error."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with fork_server.held() as settings:
        assert settings == {}
        assert servers() == []


def test_it_outlives_the_thread_of_its_first_holder() -> None:
    """Two jobs in two threads share it; the one that began first may end first."""
    holds, leave = threading.Event(), threading.Event()

    def first() -> None:
        with fork_server.held():
            holds.set()
            leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    holds.wait()
    with fork_server.held():
        leave.set()
        thread.join()
        time.sleep(0.5)
        assert told()["server"] == servers()[0]
    assert servers() == []


def test_forked_children_leave_it_alone() -> None:
    """A child that the job forks knows of no server, and does not take its folder along."""
    with fork_server.held():
        child = os.fork()
        if child == 0:
            os._exit(fork_server._server.is_running)
        assert os.waitpid(child, 0)[1] == 0
        subprocess.run(["true"], check=True, preexec_fn=gc.collect)
        assert told()["server"] == servers()[0]


def test_a_server_that_others_have_waited_for_is_no_error() -> None:
    """Where a program waits for all its children, processes start afresh, and the next holder has a server again."""
    with fork_server.held():
        [server] = servers()
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        assert told()["server"] == os.getpid()
    with fork_server.held():
        assert told()["server"] == servers()[0]


def test_without_the_server_workers_start_afresh() -> None:
    """After the server was killed, processes are started as if there were none."""
    with fork_server.held():
        os.kill(servers()[0], signal.SIGKILL)
        assert told()["server"] == os.getpid()


ORPHAN = """
import time
from pipeline import fork_server
from tests.test_fork_server import servers
if __name__ == "__main__":
    with fork_server.held():
        print(servers()[0], flush=True)
        time.sleep(60)
"""


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [0.0, 4.0], ids=["as it imports", "as it waits"])
def test_it_ends_with_the_job(tmp_path: Path, seconds: float) -> None:
    """The server of a job that is killed is gone soon."""
    program = tmp_path / "orphan.py"
    program.write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(program)], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        time.sleep(seconds)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


COUNT = """
import numpy as np
from kmeans_dask.kernels import count_rows
count_rows(np.zeros(3, np.int32), np.zeros(1, np.int64))
"""
READ = """
from kmeans_dask import ahead
for name in {*ahead._BOTH, *ahead._OF_WORKERS, *ahead._OF_CLIENTS}:
    module, kernel = name.split(".")
    exec(f"from kmeans_dask.{module} import {kernel}")
ahead.ready_worker()
ahead.ready_client()
stats = [value.stats for value in list(globals().values()) if hasattr(value, "stats")]
print(sum(len(kernel.cache_hits) for kernel in stats), sum(len(kernel.cache_misses) for kernel in stats))
"""


def test_kernels_are_read_and_not_compiled() -> None:
    """Every kernel that is read ahead exists; what is on disk of it is read, and nothing is compiled."""
    subprocess.run([sys.executable, "-c", COUNT], check=True, timeout=120)  # one is there at least
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    n_read, n_compiled = map(int, done.stdout.split())
    assert n_read > 0
    assert n_compiled == 0
