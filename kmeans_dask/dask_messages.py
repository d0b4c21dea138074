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

    async def answer(self) -> Any:
        """Return the answer's value; raise its error, or Lost if the worker is gone or silent for 30 s."""
        call = asyncio.ensure_future(getattr(self.pool(self.address), self.op)(**self.message))
        pulse = Pulse(self.pool, self.address)
        try:
            while not (await asyncio.wait([call], timeout=_PING_SECONDS))[0]:
                await pulse.check()
            answer = call.result()
        except COMM_ERRORS as error:
            raise Lost({self.address}) from error
        finally:
            call.cancel()
        return opened(answer)


async def answers(questions: Sequence[Question]) -> list[Any]:
    """Return all values; raise an error, or Lost with every lost worker once all others have answered."""
    # A worker's questions wait here and not in the connection pool, which carries the pings too.
    room = {question.address: asyncio.Semaphore(_AT_ONCE) for question in questions}

    async def answered(question: Question) -> Any:
        async with room[question.address]:
            return await question.answer()

    found = await asyncio.gather(*map(answered, questions), return_exceptions=True)
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
