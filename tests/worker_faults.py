"""Worker processes stopped and killed at known moments, and clusters of processes of their own.

A moment is known because the worker is stopped first: then nothing that needs it can end, so what is in flight after
another look is in flight when it is killed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from distributed import Client
from distributed.nanny import Nanny
from distributed.scheduler import Scheduler, WorkerState

PASS = "DaskBlocks._answers.<locals>.ask"
WRITING = "DaskBlocks.map_runs.<locals>.ask"
RELOAD = "Loads.current"
_DRAIN_SECONDS = 0.2


def local_workers() -> dict[str, int]:
    """Return the process id of each worker, by address, of the local clusters of this process."""
    found = {}
    for nanny in list(Nanny._instances):
        process = nanny.process
        if nanny.worker_address and process is not None and process.pid is not None:
            found[nanny.worker_address] = int(process.pid)
    return found


def worker_state(address: str) -> WorkerState | None:
    """Return what this process's scheduler knows of a worker."""
    for scheduler in list(Scheduler._instances):
        if address in scheduler.workers:
            return scheduler.workers[address]
    return None


def loading(address: str) -> list[str]:
    """Return the keys of the loads that a worker is at."""
    state = worker_state(address)
    keys = [] if state is None else [str(task.key) for task in list(state.processing)]
    return [key for key in keys if key.startswith(("kmeans-load", "kmeans-head"))]


def held_bytes() -> dict[str, int]:
    """Return how many bytes of loads each worker holds."""
    found = {}
    for address in local_workers():
        state = worker_state(address)
        if state is not None:
            found[address] = sum(task.nbytes for task in list(state.has_what) if "kmeans" in str(task.key))
    return found


def threads_in(function: str) -> int:
    """Return how many threads of this process are inside a function, by its qualified name."""
    stacks = [traceback.walk_stack(frame) for frame in sys._current_frames().values()]
    return sum(any(frame.f_code.co_qualname == function for frame, _ in stack) for stack in stacks)


def stopped(pid: int) -> bool:
    """Whether a process exists and is stopped."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def signal_to(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_when(
    worker: Callable[[], str | None], in_flight: Callable[[str], bool], timeout: float = 60.0
) -> int:
    """Kill the worker whose address `worker` returns, once it is stopped and in flight; return its process id."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        address = worker()
        pid = local_workers().get(address) if address is not None else None
        if address is None or pid is None or not in_flight(address):
            time.sleep(0.001)
            continue
        signal_to(pid, signal.SIGSTOP)
        time.sleep(_DRAIN_SECONDS)
        if in_flight(address) and stopped(pid):
            signal_to(pid, signal.SIGKILL)
            return pid
        signal_to(pid, signal.SIGCONT)
    raise TimeoutError(f"no worker was in flight within {timeout} s")


def kill_in_pass(which: int) -> int:
    """Kill a worker in a pass: it holds blocks, and a thread of the job waits for all workers' answers."""

    def one() -> str | None:
        holding = sorted(address for address, n_bytes in held_bytes().items() if n_bytes)
        return holding[which % len(holding)] if len(holding) == 2 else None

    return kill_when(one, lambda address: threads_in(PASS) > 0 and threads_in(RELOAD) == 0)


def kill_in_reload() -> int:
    """Kill a worker in a reload: it is at a load, and a thread of the job waits for the loads."""

    def one() -> str | None:
        return next((address for address in sorted(local_workers()) if loading(address)), None)

    return kill_when(one, lambda address: bool(loading(address)) and threads_in(RELOAD) > 0)


@dataclass(slots=True)
class Processes:
    """A scheduler and workers as processes of their own, ended by their ids."""

    folder: Path
    address: str = ""
    scheduler: "subprocess.Popen[bytes] | None" = None
    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start_scheduler(self) -> None:
        """Start the scheduler and wait for its address."""
        file = self.folder / "scheduler.json"
        where = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
        self.scheduler = self._start(
            "scheduler", [*_module("scheduler"), "--no-dashboard", "--no-show", *where]
        )
        deadline = time.monotonic() + 60
        while not self.address:
            if time.monotonic() > deadline:
                raise TimeoutError("the scheduler does not start")
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                self.address = json.loads(file.read_text())["address"]

    def add_worker(self, *options: str, python: str = sys.executable, **keys: Any) -> None:
        """Start a worker of one thread; keys are those of Popen."""
        fixed = [self.address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        command = [*_module("worker", python), *fixed, *options]
        self.workers.append(self._start(f"worker-{len(self.workers)}", command, **keys))

    def wait_for_workers(self, n_workers: int) -> None:
        """Wait until that many workers are there."""
        if n_workers:
            with Client(self.address, set_as_default=False) as client:
                client.wait_for_workers(n_workers, timeout=60)

    def _start(self, name: str, command: list[str], **keys: Any) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, **keys)

    def end(self) -> None:
        """Kill what is left of all of them."""
        for process in (*self.workers, self.scheduler):
            if process is None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    signal_to(child.pid, signal.SIGKILL)
            signal_to(process.pid, signal.SIGKILL)
            process.wait()


def _module(role: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", f"distributed.cli.dask_{role}"]


@contextlib.contextmanager
def processes(folder: Path, n_workers: int, memory_limit: str = "1GiB") -> Iterator[Processes]:
    """Give a scheduler and workers without nannies, killed afterwards."""
    folder.mkdir()
    found = Processes(folder)
    try:
        found.start_scheduler()
        for _ in range(n_workers):
            found.add_worker("--no-nanny", "--memory-limit", memory_limit)
        found.wait_for_workers(n_workers)
        yield found
    finally:
        found.end()
