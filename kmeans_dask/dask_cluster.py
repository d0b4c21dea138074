"""The workers of a client: which there are, what they hold, and how many were lost."""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import Client, Future, get_worker
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from kmeans_dask.dask_messages import (
    COMM_ERRORS,
    Lost,
    Pulse,
    Question,
    answers,
    holders_of,
    listed_workers,
    scheduler_asked,
)
from kmeans_dask.dask_shards import Shards
from kmeans_dask.errors import InfrastructureError
from kmeans_dask.placement import Host
from kmeans_dask.spool import spooled

logger = logging.getLogger(__name__)

T = TypeVar("T")
_LOSSES_WITHOUT_A_PASS = 3
_NOTICE_SECONDS = 5.0
_REPLACEMENT_SECONDS = 15.0
_NO_WORKER_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.001
_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Losses:
    """What a job has lost so far."""

    workers: int = 0
    since_pass: int = 0
    repeated_loads: int = 0
    silent: set[str] = field(default_factory=set)  # given up, though the scheduler may still list them


def current_client() -> Client | None:
    """Return the client that is current in this thread, or None."""
    try:
        client: Client = Client.current()
    except ValueError:
        return None
    return client


@dataclass(frozen=True, slots=True)
class Disk:
    """Room for the scratch files of the workers that share a disk."""

    place: str  # a directory of one of them
    addresses: tuple[str, ...]
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Loads that are made, or in the making, and on which workers."""

    futures: dict[int, Future[Any]] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)


class Cluster:
    """A client's workers, and one job's losses among them; threads may share it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.losses = Losses()
        self._lock = threading.Lock()
        self._register()
        self._expected_workers = len(self.hosts())
        self._relied_on: set[str] = set()

    def _register(self) -> None:
        """Bring the shards' side to all workers, those to come included; one that dies right now fails the call."""
        with scheduler_asked():
            try:
                self.client.register_plugin(Shards())
            except COMM_ERRORS:
                logger.warning("a worker died when it was first asked; asking again")
                self.client.register_plugin(Shards())

    def hosts(self) -> list[Host]:
        """Return the workers that are there."""
        with scheduler_asked():
            workers = self.client.sync(listed_workers, self.client)
        return [
            Host(address, info["nthreads"], info["memory_limit"] or 0)
            for address, info in sorted(workers.items())
            if address not in self.losses.silent and info.get("status", "running") == "running"
        ]

    def disks(self) -> list[Disk]:
        """Return the disks of the workers that answer."""
        questions = [Question(self.client.rpc, host.address, "kmeans_disk", {}) for host in self.hosts()]
        found: dict[tuple[str, int], Disk] = {}
        with suppress(Lost):  # whoever relies on such a worker will notice
            said = self.client.sync(answers, questions)
            for question, (directory, device, free) in zip(questions, said, strict=True):
                others = found[device].addresses if device in found else ()
                place = f"worker {question.address}, {directory}"
                found[device] = Disk(place, (*others, question.address), free)
        return list(found.values())

    def awaited_hosts(self) -> list[Host]:
        """Return the workers that are there, after waiting a while for the lost ones to be replaced."""
        began = time.monotonic()
        while True:
            hosts = self.hosts()
            waited = time.monotonic() - began
            if hosts and (len(hosts) >= self._expected_workers or waited > _REPLACEMENT_SECONDS):
                self._expected_workers = len(hosts)  # those that did not come are not awaited again
                return hosts
            if waited > _NO_WORKER_SECONDS:
                raise InfrastructureError(
                    f"no Dask worker for {_NO_WORKER_SECONDS:.0f} s. Start workers and run again."
                )
            time.sleep(0.1)

    def rely_on(self, addresses: Iterable[str]) -> None:
        """Take note of the workers that hold loads, or shall."""
        self._relied_on = set(addresses)

    def check(self) -> None:
        """Raise Lost for those that left unnoticed, while what another one held was placed anew."""
        with scheduler_asked():
            missing = self._relied_on - set(self.client.sync(listed_workers, self.client))
        if missing:
            raise Lost(missing)

    def lose(self, lost: Lost) -> None:
        """Count lost workers; too many without a pass between them are an error."""
        with self._lock:
            self._expected_workers -= len(lost.silent - self.losses.silent)
            self.losses.silent |= lost.silent
            names = ", ".join(sorted(lost.addresses))
            gone = self.client.sync(self._gone, lost.addresses)
            self._relied_on -= gone
            self.losses.workers += len(gone)
            self.losses.since_pass += 1
            logger.warning("lost workers %s; their blocks are loaded again", names)
            if self.losses.since_pass >= _LOSSES_WITHOUT_A_PASS:
                raise InfrastructureError(
                    f"{self.losses.since_pass} losses of workers without a completed pass between them, the last "
                    f"{names}. The likely cause is memory: raise dask.memory_limit, lower dask.block_bytes or "
                    "add workers."
                )

    def holders(self, futures: Mapping[int, Future[Any]]) -> dict[int, str]:
        """Return a worker that holds each future's result, for those that are held."""
        if not futures:
            return {}
        alive = {host.address for host in self.hosts()}
        with scheduler_asked():
            keys = [str(future.key) for future in futures.values()]
            who_has = self.client.sync(holders_of, self.client, keys)
        held = {i: [a for a in who_has.get(future.key, ()) if a in alive] for i, future in futures.items()}
        return {i: addresses[0] for i, addresses in held.items() if addresses}

    def first_loads(
        self, fn: Callable[..., tuple[T, list[Any]]], make: Callable[[Any, T], Iterable[Any]], *args: Any,
        on_disk: bool = False,
    ) -> tuple[T, Ready]:  # fmt: skip
        """Run fn on a worker; return its first value, and the loads make(item, value) of each item of its second.

        These are in the making: who needs only the value goes on meanwhile. on_disk: blocks go to the worker's disk.
        """
        while True:
            home = self.awaited_hosts()[0].address
            try:
                both = self.submitted("head", home, fn, *args)
                value, n_loads = self._result(
                    self.submitted("head-value", home, _value_and_length, both), home
                )
            except Lost as lost:
                self.lose(lost)
            else:
                # Before any other load of that worker: until then it keeps all that fn returned.
                loads = {
                    i: self.submitted(f"head-{i}", home, _made_of, both, i, make, on_disk, priority=2)
                    for i in range(n_loads)
                }
                self.rely_on([home])
                return value, Ready(loads, dict.fromkeys(loads, home))

    def settle(self, begun: Ready) -> None:
        """Wait until each of these is done, or its worker lost."""
        futures = dict(begun.futures)
        while futures:
            try:
                self.wait(futures, {i: begun.where[i] for i in futures})
            except Lost as lost:
                self.lose(lost)
                futures = {i: future for i, future in futures.items() if begun.where[i] not in lost.addresses}
            else:
                return

    def submitted(
        self, name: str, address: str, fn: Callable[..., Any], *args: Any, priority: int = 0
    ) -> Future[Any]:
        """Submit a task to one worker, under a new key: Dask adds up the failures of a key over the whole job."""
        key = f"kmeans-{name}-{uuid.uuid4().hex[:12]}"
        with scheduler_asked():
            where = {"workers": [address], "allow_other_workers": False}
            return self.client.submit(fn, *args, key=key, priority=priority, **where)

    def computed(self, values: Sequence[Any]) -> list[Future[Any]]:
        """Have Dask make delayed values, wherever it sees fit; what they share is made once."""
        with scheduler_asked():
            return list(self.client.compute(list(values))) if values else []

    def _result(self, future: Future[Any], address: str) -> Any:
        self.wait({0: future}, {0: address})
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except TimeoutError:  # its worker may have gone since
                self._check_workers([Pulse(self.client.rpc, address)])

    def wait(
        self, futures: Mapping[int, Future[Any]], where: Mapping[int, str], others: Iterable[str] = ()
    ) -> None:
        """Wait until every future is done on its worker; raise its error, or Lost when a worker goes or is silent.

        others: workers that the futures need as well.
        """
        pulses = [Pulse(self.client.rpc, address) for address in sorted({*where.values(), *others})]
        looked, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        while True:
            for i, future in futures.items():
                _check(future, where[i])
            if not any(future.status == "pending" for future in futures.values()):
                return
            # Dask's own wait keeps the futures alive when its time is up, and with them the rows.
            time.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS / 10)
            if time.monotonic() - looked > _LOOK_SECONDS:
                self._check_workers(pulses)
                looked = time.monotonic()

    def _check_workers(self, pulses: Sequence[Pulse]) -> None:
        missing = {pulse.address for pulse in pulses} - {host.address for host in self.hosts()}
        if missing:
            raise Lost(missing)

        async def check() -> None:
            await asyncio.gather(*(pulse.check() for pulse in pulses))

        self.client.sync(check)

    async def _gone(self, addresses: set[str]) -> set[str]:
        """Return which addresses are lost for good; the scheduler needs a moment to notice a killed worker."""
        deadline = time.monotonic() + _NOTICE_SECONDS
        while True:
            listed = set(await listed_workers(self.client)) - self.losses.silent
            if not addresses & listed or time.monotonic() > deadline:
                return addresses - listed
            await asyncio.sleep(0.05)


def _check(future: Future[Any], address: str) -> None:
    """Raise a load's error, or Lost if its worker is the cause."""
    if future.status in ("cancelled", "lost"):
        raise Lost({address})
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker | FutureCancelledError):
            raise Lost({address})
        raise error


def _value_and_length(both: tuple[T, list[Any]]) -> tuple[T, int]:
    return both[0], len(both[1])


def _made_of(
    both: tuple[T, list[Any]], i: int, make: Callable[[Any, T], Iterable[Any]], on_disk: bool
) -> Any:
    made = make(both[1][i], both[0])
    return spooled(made, get_worker().local_directory) if on_disk else list(made)
