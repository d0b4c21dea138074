"""Workers killed, stopped and retired in the middle of a job: the same bytes, or a clear end."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from kmeans_dask.errors import InfrastructureError
from pipeline import run_job
from pipeline.runner import PlainRunner
from tests.engine_jobs import Counted, job, listing, noise, result_files, write_files
from tests.worker_faults import (
    WRITING,
    Processes,
    held_bytes,
    kill_in_pass,
    kill_in_reload,
    kill_when,
    loading,
    local_workers,
    processes,
    signal_to,
    threads_in,
)

pytestmark = pytest.mark.fault
LONG: dict[str, Any] = {"n_clusters": 40, "n_init": 4, "tol": 0.0, "max_iter": 150, "scale": "standard"}
LOCAL = {"workers": 2, "block_bytes": "64KiB"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """120,000 rows in eight files of small row groups."""
    return write_files(tmp_path_factory.mktemp("noise") / "data", noise(120_000), files=8, group_rows=2500)


@pytest.fixture(scope="module")
def undisturbed(source: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the job writes when nothing happens to it."""
    return result_files(run_job(job(tmp_path_factory.mktemp("undisturbed"), source, **LONG)))


def test_ten_kills(source: str, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Ten kills in one job, five each during a pass and during the reload it caused, change no byte."""
    counted = Counted()

    def kill() -> list[int]:
        killed = []
        for which in range(5):
            counted.wait_for_more(3)
            killed += [kill_in_pass(which), kill_in_reload()]
            counted.wait_for_more(3)
            held = sorted(held_bytes().values())
            assert len(held) == 2, "a worker is missing"
            assert held[0] > 0.35 * sum(held), f"the blocks are not spread: {held}"
        return killed

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        run = run_job(job(tmp_path, source, dask=LOCAL, **LONG), counted.runner())
        assert len(set(killing.result())) == 10
    assert run.manifest["workers_lost"] == 10
    assert result_files(run) == undisturbed


def test_kills_in_a_search(source: str, tmp_path: Path) -> None:
    """Two kills while centroids are inserted and removed change no byte."""
    keys: dict[str, Any] = {"n_clusters": 16, "n_init": 1, "refine": True, "scale": "standard"}
    expected = run_job(job(tmp_path / "undisturbed", source, **keys))
    assert expected.model.breaths > 20
    counted = Counted()

    def kill() -> None:
        counted.wait_for_more(len(expected.model.history) + 50)
        kill_in_pass(0)
        counted.wait_for_more(50)
        kill_in_pass(1)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        run = run_job(job(tmp_path, source, dask=LOCAL, **keys), counted.runner())
        killing.result()
    assert run.manifest["workers_lost"] == 2
    assert result_files(run) == result_files(expected)


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments(source: str, undisturbed: dict[str, str], tmp_path: Path, seed: int) -> None:
    """Two kills at random moments, from the first load over seeding to the last label, change no byte."""
    draw = random.Random(seed)
    counted = Counted()

    def kill() -> None:
        while len(held_bytes()) < 2:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 3))
        for _ in range(2):
            workers = local_workers()
            signal_to(workers[draw.choice(sorted(workers))], signal.SIGKILL)
            counted.wait_for_more(1, timeout=20)
            time.sleep(draw.uniform(0, 2))

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        run = run_job(job(tmp_path, source, dask=LOCAL, **LONG), counted.runner())
        killing.cancel()
    assert run.manifest["workers_lost"] <= 2
    assert result_files(run) == undisturbed


def test_three_losses_without_a_pass(source: str, tmp_path: Path) -> None:
    """A third loss before any pass completed ends the job, naming memory, and leaves the output as it was."""
    counted = Counted()

    def kill() -> None:
        counted.wait_for_more(3)
        kill_in_pass(0)
        kill_in_reload()
        kill_in_reload()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(
            InfrastructureError, match=r"3 losses of workers .* likely cause is memory"
        ) as caught:
            run_job(job(tmp_path, source, dask=LOCAL, **LONG), counted.runner())
        killing.result()
    assert caught.value.exit_code == 3
    assert [path for path in listing(tmp_path) if "labels" in path or path.endswith(".json")] == []
    assert local_workers() == {}


def test_a_kill_in_the_first_load(source: str, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A worker killed while the first rows are read, before any block exists, changes no byte."""

    def one() -> str | None:
        return next((address for address in sorted(local_workers()) if loading(address)), None)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_when, one, lambda address: bool(loading(address)))
        run = run_job(job(tmp_path, source, dask=LOCAL, **LONG))
        killing.result()
    assert run.manifest["workers_lost"] == 1
    assert result_files(run) == undisturbed


@dataclass(frozen=True, slots=True)
class AtStep(PlainRunner):
    """Does something right before a step begins."""

    name: str = ""
    act: Callable[[], object] = lambda: None

    def step(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Return fn(*args)."""
        if name == self.name:
            self.act()
        return PlainRunner.step(self, name, fn, *args)


def test_a_kill_while_labels_are_written(source: str, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A worker killed while it writes labels changes no byte: its rows are read again, its files written again."""
    with ThreadPoolExecutor(1) as pool:
        kills = []

        def begin() -> None:
            worker = sorted(local_workers())[0]
            signal_to(local_workers()[worker], signal.SIGSTOP)
            kills.append(pool.submit(kill_when, lambda: worker, lambda _: threads_in(WRITING) > 0))

        run = run_job(job(tmp_path, source, dask=LOCAL, **LONG), AtStep(name="write-labels", act=begin))
        assert kills[0].result()
    assert run.manifest["workers_lost"] == 1
    assert result_files(run) == undisturbed


def test_a_stopped_worker(source: str, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """A worker that SIGSTOP silences is given up within a minute, on a cluster of the job's own."""
    counted = Counted()

    def stop() -> int:
        counted.wait_for_more(3)
        pid = local_workers()[sorted(local_workers())[1]]
        signal_to(pid, signal.SIGSTOP)
        return pid

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        run = run_job(job(tmp_path, source, dask=LOCAL, **LONG), counted.runner())
        with pytest.raises(ProcessLookupError):
            os.kill(stopping.result(), 0)
    assert run.manifest["workers_lost"] == 1
    assert longest_pause(counted) < 60
    assert result_files(run) == undisturbed


def longest_pause(counted: Counted) -> float:
    """Return the seconds of the longest time without an iteration."""
    times = [at for at, _ in counted.seen]
    return max(b - a for a, b in pairwise(times))


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Processes]:
    """A scheduler of Dask's own settings, which waits five minutes for a silent worker, and two workers."""
    with processes(tmp_path / "cluster", 2) as found:
        yield found


def foreign_job(tmp_path: Path, source: str, cluster: Processes, **keys: Any) -> Any:
    """Return the long job on a foreign cluster."""
    return job(
        tmp_path, source, dask={"address": cluster.address, "block_bytes": "64KiB"}, **{**LONG, **keys}
    )


def test_a_stopped_worker_elsewhere(
    source: str, undisturbed: dict[str, str], foreign: Processes, tmp_path: Path
) -> None:
    """A silent worker is given up within a minute where the scheduler would still wait for it."""
    counted = Counted()

    def stop() -> None:
        counted.wait_for_more(3)
        signal_to(foreign.workers[0].pid, signal.SIGSTOP)

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        run = run_job(foreign_job(tmp_path, source, foreign), counted.runner())
        stopping.result()
    assert run.manifest["workers_lost"] == 1
    assert longest_pause(counted) < 60
    assert result_files(run) == undisturbed


@pytest.mark.parametrize("step", ["load", "write-labels"])
def test_a_worker_stopped_at_a_step(
    source: str, undisturbed: dict[str, str], foreign: Processes, tmp_path: Path, step: str
) -> None:
    """A worker that is silent while rows are read, or while labels are written, is given up as well."""
    runner = AtStep(name=step, act=lambda: signal_to(foreign.workers[0].pid, signal.SIGSTOP))
    began = time.monotonic()
    run = run_job(foreign_job(tmp_path, source, foreign), runner)
    assert time.monotonic() - began < 90
    assert run.manifest["workers_lost"] == 1
    assert result_files(run) == undisturbed


def test_a_retired_worker(
    source: str, undisturbed: dict[str, str], foreign: Processes, tmp_path: Path
) -> None:
    """A worker that is retired in mid-job goes at once, and the job goes on without it."""
    counted = Counted()

    def retire() -> float:
        counted.wait_for_more(3)
        with Client(foreign.address, set_as_default=False) as client:
            began = time.monotonic()
            client.retire_workers([sorted(client.scheduler_info()["workers"])[0]], close_workers=True)
            return time.monotonic() - began

    with ThreadPoolExecutor(1) as pool:
        retiring = pool.submit(retire)
        run = run_job(foreign_job(tmp_path, source, foreign), counted.runner())
        assert retiring.result() < 30
    assert sum(worker.poll() is not None for worker in foreign.workers) == 1
    assert result_files(run) == undisturbed


def test_a_killed_scheduler(source: str, foreign: Processes, tmp_path: Path) -> None:
    """A scheduler that dies in mid-job ends the job as infrastructure's fault, within a minute."""
    counted = Counted()

    def kill() -> float:
        counted.wait_for_more(3)
        assert foreign.scheduler is not None
        signal_to(foreign.scheduler.pid, signal.SIGKILL)
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        with pytest.raises(InfrastructureError, match="scheduler"):
            run_job(foreign_job(tmp_path, source, foreign), counted.runner())
        assert time.monotonic() - killing.result() < 60


def test_a_stopped_scheduler(source: str, foreign: Processes, tmp_path: Path) -> None:
    """A scheduler that falls silent when it is needed ends the job as infrastructure's fault, within a minute."""
    assert foreign.scheduler is not None
    stop = AtStep(name="load", act=lambda: signal_to(foreign.scheduler.pid, signal.SIGSTOP))
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match="the Dask scheduler does not answer"):
        run_job(foreign_job(tmp_path, source, foreign), stop)
    assert time.monotonic() - began < 60
