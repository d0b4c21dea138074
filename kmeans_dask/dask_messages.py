"""Questions to workers: one message each, answered, refused, or lost with the worker.

An answer is a pickled (True, value) or (False, error), so that an error of the work is never taken for one of the way.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.core import ConnectionPool
from distributed.protocol.pickle import loads

from kmeans_dask.errors import InfrastructureError

_PING_SECONDS = 5.0
_SILENT_SECONDS = 30.0
_SCHEDULER_SECONDS = 30.0
_AT_ONCE = 32  # questions to one worker, which works on as many as it has threads
# A client that has lost its scheduler closes, and then raises RuntimeError.
COMM_ERRORS = (OSError, CommClosedError, asyncio.TimeoutError, ClosedClientError, RuntimeError)


class Lost(Exception):
    """Workers that could not be asked; silent: those the scheduler may still list."""

    def __init__(self, addresses: set[str], silent: set[str] | None = None) -> None:
        super().__init__(addresses, silent or set())
        self.addresses = addresses
        self.silent = silent or set()


class ShardGone(Exception):
    """The worker does not hold that shard: it is new, or its blocks were taken away."""


class Absent(Exception):
    """Loads that were on the disk of a worker they have left; only their handles came along."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(keys)
        self.keys = keys


def opened(answer: bytes) -> Any:
    """Return the value of an answer, or raise its error."""
    ok, value = loads(answer)
    if not ok:
        raise value
    return value


@dataclass(slots=True)
class Pulse:
    """A worker as its asker hears it."""

    pool: ConnectionPool
    address: str
    heard: float = field(default_factory=time.monotonic)

    async def check(self) -> None:
        """Ping the worker; raise Lost if it is gone, or silent for 30 s. Its event loop answers while kernels run."""
        try:
            await asyncio.wait_for(self.pool(self.address).kmeans_ping(), _PING_SECONDS)
        except TimeoutError:
            if time.monotonic() - self.heard > _SILENT_SECONDS:
                raise Lost({self.address}, {self.address}) from None
        except COMM_ERRORS as error:
            raise Lost({self.address}) from error
        else:
            self.heard = time.monotonic()


@dataclass(frozen=True, slots=True)
class Question:
    """One message to one worker."""

    pool: ConnectionPool
    address: str
    op: str
    message: dict[str, Any]

    async def answer(self, room: asyncio.Semaphore) -> Any:
        """Return the answer's value; raise its error, or Lost if the worker is gone. room: for questions to it."""
        try:
            async with room:
                answer = await getattr(self.pool(self.address), self.op)(**self.message)
        except COMM_ERRORS as error:
            raise Lost({self.address}) from error
        return opened(answer)


async def answers(questions: Sequence[Question]) -> list[Any]:
    """Return all values; raise an error, or Lost with every lost worker once all others have answered.

    A worker that is gone, or silent for 30 s, is lost.
    """
    # A worker's questions wait here and not in the connection pool, which carries the pings too.
    room = {question.address: asyncio.Semaphore(_AT_ONCE) for question in questions}
    pulses = {question.address: Pulse(question.pool, question.address) for question in questions}
    calls = {asyncio.ensure_future(one.answer(room[one.address])): one.address for one in questions}
    lost: dict[str, Lost] = {}
    try:
        left = set(calls)
        while left:
            _, left = await asyncio.wait(left, timeout=_PING_SECONDS)
            lost |= await _lost([pulses[address] for address in sorted({calls[call] for call in left})])
            for call in [call for call in left if calls[call] in lost]:
                call.cancel()
    finally:
        for call in calls:
            call.cancel()
    gone = asyncio.CancelledError()
    return _values([lost.get(a, gone) if call.cancelled() else _outcome(call) for call, a in calls.items()])


async def _lost(pulses: Sequence[Pulse]) -> dict[str, Lost]:
    """Return the addresses of those workers that are lost, and why."""

    async def lost(pulse: Pulse) -> Lost | None:
        try:
            await pulse.check()
        except Lost as error:
            return error
        return None

    found = await asyncio.gather(*map(lost, pulses))
    return {pulse.address: error for pulse, error in zip(pulses, found, strict=True) if error}


def _outcome(call: asyncio.Future[Any]) -> Any:
    return call.exception() or call.result()


def _values(found: list[Any]) -> list[Any]:
    """Return what was found; raise an error that is in it, or Lost of all the lost where there is no other."""
    errors = [value for value in found if isinstance(value, BaseException)]
    lost = [error for error in errors if isinstance(error, Lost)]
    for error in errors:
        if not isinstance(error, Lost | ShardGone):
            raise error
    if lost:
        raise Lost(set().union(*(e.addresses for e in lost)), set().union(*(e.silent for e in lost)))
    for error in errors:
        raise error
    return found


@contextmanager
def scheduler_asked() -> Iterator[None]:
    """Raise InfrastructureError for whatever a call makes of a scheduler that is gone."""
    try:
        yield
    except COMM_ERRORS as error:
        raise InfrastructureError(
            f"the Dask scheduler does not answer ({error!r}). Check it and run again."
        ) from error


async def listed_workers(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of each worker, by address."""
    found = await _scheduler_says(client, "identity", n_workers=-1)
    workers: dict[str, Any] = found["workers"]
    return workers


async def holders_of(client: Client, keys: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the addresses of the workers that hold each key."""
    found: dict[str, Sequence[str]] = await _scheduler_says(client, "who_has", keys=list(keys))
    return found


async def _scheduler_says(client: Client, op: str, **message: Any) -> Any:
    with scheduler_asked():
        if client.scheduler is None:  # the client has noticed that it is gone
            raise CommClosedError("the client has lost its scheduler")
        return await asyncio.wait_for(getattr(client.scheduler, op)(**message), _SCHEDULER_SECONDS)
