"""Signals at any moment: nothing of the job lives ten seconds later, and readers see whole runs only."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.interrupts import Interrupted, Interrupts
from tests.jobs import command, processes_with, started, visible_run, write_job

MARK = "KMEANS_DASK_TEST_JOB"
GONE_SECONDS = 10.0
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends children with their parent on Linux only"
)


def long_job(folder: Path) -> Path:
    """Write a job whose restarts take longer than any test waits, on two workers."""
    job = write_job(folder, n_rows=60_000, n_features=8, noise=8.0, n_clusters=60, n_init=1000, tol=0)
    job.write_text(job.read_text() + "\n[dask]\nworkers = 2\n")
    return job


def environment(mark: str, home: Path) -> dict[str, str]:
    """Return an environment that marks the job's processes and has an empty home."""
    cleaned = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**cleaned, MARK: mark, "HOME": str(home), "PREFECT_HOME": str(home / ".prefect")}


def until(holds: Callable[[], bool], seconds: float, *, poll: float = 0.05) -> bool:
    """Return whether something comes to hold in time, asked every `poll` seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll)
    return True


def described(pids: list[int]) -> str:
    """Return the command lines of processes, for a failure's message."""
    lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    return "\n".join(line.read_text().replace("\0", " ") for line in lines if line.exists())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose Prefect database is there already, so that random moments fall into the job as well."""
    folder = tmp_path_factory.mktemp("home")
    job = write_job(tmp_path_factory.mktemp("first"))
    done = command("run", job, env=environment("first", folder))
    assert done.returncode == 0, done.stderr
    return folder


@LINUX
@pytest.mark.fault
@pytest.mark.parametrize("moment", range(10))
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sent: sent.name)
def test_a_signal_at_a_random_moment_leaves_no_process(
    tmp_path: Path, home: Path, sent: signal.Signals, moment: int
) -> None:
    """Whatever a job with an embedded server and workers is doing, a signal ends all of it within ten seconds."""
    mark = uuid.uuid4().hex
    seconds = random.Random(f"{sent.name}-{moment}").uniform(1.0, 14.0)
    log = tmp_path / "log"
    process = started("run", long_job(tmp_path), env=environment(mark, home), log=log)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(sent)
        gone = until(lambda: not processes_with(MARK, mark) and process.poll() is not None, GONE_SECONDS)
        assert gone, described(processes_with(MARK, mark)) + log.read_text()
    finally:
        process.kill()
        process.wait()
    # Before our handlers are in place the signal itself ends the process; a shell says 130 and 143 for both.
    expected = {-sent} if sent == signal.SIGKILL else {-sent, 128 + sent}
    assert process.returncode in expected, log.read_text()
    assert "Traceback" not in log.read_text()
    assert visible_run(tmp_path / "out") is None


@LINUX
@pytest.mark.fault
@pytest.mark.parametrize("moment", range(10))
def test_a_signal_around_the_commit_shows_a_whole_run_or_none(tmp_path: Path, moment: int) -> None:
    """A signal while labels, model, manifest and pointer are written leaves what readers see whole."""
    chance = random.Random(f"commit-{moment}")
    sent = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    log = tmp_path / "log"
    job = write_job(tmp_path, n_rows=60_000, n_init=1)
    process = started("run", job, "--no-prefect", env=environment("commit", tmp_path), log=log)
    try:
        assert until(lambda: "restart 0 iteration 1:" in log.read_text(), 60), log.read_text()
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(sent)
        returncode = process.wait(GONE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert returncode in {0, -sent, 128 + sent}, log.read_text()
    if visible_run(tmp_path / "out") is None:
        assert returncode != 0


@LINUX
@pytest.mark.fault
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_fit_removes_what_it_wrote(tmp_path: Path, sent: signal.Signals) -> None:
    """Without Prefect too, a signal during the restarts exits 130 or 143 soon, says so, and leaves no run."""
    log = tmp_path / "log"
    process = started("run", long_job(tmp_path), "--no-prefect", env=environment("plain", tmp_path), log=log)
    try:
        assert until(lambda: "restart 0 iteration 3:" in log.read_text(), 60), log.read_text()
        process.send_signal(sent)
        assert process.wait(GONE_SECONDS) == 128 + sent
    finally:
        process.kill()
        process.wait()
    assert log.read_text().splitlines()[-1] == f"interrupted by {sent.name}"
    assert not list((tmp_path / "out").glob("runs/*"))


@LINUX
@pytest.mark.fault
@pytest.mark.parametrize("moment", range(8))
def test_a_signal_while_the_workers_start_waits_for_them(tmp_path: Path, home: Path, moment: int) -> None:
    """Workers half started are ended as others are: none goes on and finds its scratch gone."""
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    process = started("run", long_job(tmp_path), "--no-prefect", env=environment(mark, home), log=log)
    try:
        # The command, the server whose copies workers are, its tracker of resources; then the first worker.
        assert until(lambda: len(processes_with(MARK, mark)) > 3, 60, poll=0.002), log.read_text()
        time.sleep(0.02 * moment)
        process.send_signal(signal.SIGTERM)
        assert until(lambda: not processes_with(MARK, mark), GONE_SECONDS), described(
            processes_with(MARK, mark)
        )
        assert process.wait(GONE_SECONDS) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert log.read_text().splitlines()[-1] == "interrupted by SIGTERM"
    assert "Traceback" not in log.read_text()


@LINUX
@pytest.mark.fault
def test_ctrl_c_reaches_the_whole_group_and_the_server_hears_of_it(tmp_path: Path, home: Path) -> None:
    """A SIGINT to every process of the job's group, as a terminal sends it, exits 130 and leaves none."""
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    process = started("run", long_job(tmp_path), env=environment(mark, home), log=log)
    try:
        assert until(lambda: "restart 0 iteration 2:" in log.read_text(), 60), log.read_text()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(GONE_SECONDS) == 130
        assert until(lambda: not processes_with(MARK, mark), GONE_SECONDS)
    finally:
        process.kill()
        process.wait()


@LINUX
@pytest.mark.fault
def test_two_first_jobs_at_once_on_a_fresh_home_both_start(tmp_path: Path) -> None:
    """Neither job trips over the other making Prefect's database; both commit."""
    home = tmp_path / "home"
    home.mkdir()
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    jobs = [
        started("run", write_job(folder), env=environment("both", home), log=folder / "log")
        for folder in folders
    ]
    for job, folder in zip(jobs, folders, strict=True):
        assert job.wait(150) == 0, (folder / "log").read_text()
        assert visible_run(folder / "out") is not None


CLUSTER = """
import time
from distributed import Client, LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, preload=["pipeline.processes"])
    client = Client(cluster)
    futures = client.map(time.sleep, [60, 61])
    time.sleep(1)
    print("up", flush=True)
    time.sleep(60)
"""


@LINUX
@pytest.mark.fault
def test_dask_workers_end_with_their_client(tmp_path: Path) -> None:
    """After SIGKILL of the process that started a LocalCluster its workers are gone, busy though they were."""
    mark, program = uuid.uuid4().hex, tmp_path / "cluster.py"
    program.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(processes_with(MARK, mark)) >= 3
        process.kill()
    assert until(lambda: not processes_with(MARK, mark), GONE_SECONDS), described(processes_with(MARK, mark))


ORPHAN = """
import os, subprocess, sys, time
from pipeline.processes import die_with_parent
parent = os.getpid()
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleep, preexec_fn=lambda: die_with_parent(parent))
print(child.pid, flush=True)
time.sleep(60)
"""


@LINUX
def test_die_with_parent_ends_a_child_at_once() -> None:
    """A child that called it does not outlive the SIGKILL of its parent."""
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert until(lambda: not Path(f"/proc/{child}").exists(), 5)


def test_the_first_signal_sets_stop_and_raises() -> None:
    """SIGTERM sets stop, raises in the main thread, exit code 143; after the block no handler or watchdog is left."""
    before = signal.getsignal(signal.SIGTERM)
    interrupts = Interrupts(threading.Event(), grace_seconds=600)
    with interrupts.handled(), pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.stop.is_set()
    assert interrupts.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()), 5)


def test_a_signal_within_a_callback_from_c_raises_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    """Where ctypes swallows the exception, it is raised again in a moment, and no traceback is printed."""
    signalled = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))

    def waits() -> None:
        signalled()
        time.sleep(60)

    interrupts = Interrupts(threading.Event(), grace_seconds=600)
    with interrupts.handled(), pytest.raises(Interrupted):
        waits()
    assert interrupts.exit_code == 130
    assert capfd.readouterr().err == ""


LINGERING = """
import signal, threading, time
from flows.interrupts import Interrupted, Interrupts
with Interrupts(threading.Event(), grace_seconds={grace}).handled():
    while True:
        try:
            print("up", flush=True)
            time.sleep(60)
        except Interrupted:
            print("interrupted", flush=True)
"""


@pytest.mark.parametrize(("grace", "signals"), [(0.2, 1), (60, 2)], ids=["watchdog", "second signal"])
def test_a_job_that_lingers_is_ended(grace: float, signals: int) -> None:
    """A process that goes on after a signal ends when the grace is over, or at the second signal, with code 130."""
    with subprocess.Popen(
        [sys.executable, "-c", LINGERING.format(grace=grace)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            process.stdout.readline()
        assert process.wait(10) == 130
