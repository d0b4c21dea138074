"""Questions to workers: one message each, answered, refused, or lost with the worker."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client
from distributed.comm.core import CommClosedError

from kmeans_dask.dask_shards import opened
from kmeans_dask.errors import InfrastructureError

_PING_SECONDS = 5.0
_SILENT_SECONDS = 30.0
_SCHEDULER_SECONDS = 30.0
_COMM_ERRORS = (OSError, CommClosedError, asyncio.TimeoutError)


class Lost(Exception):
    """Workers that could not be asked; silent: those the scheduler may still list."""

    def __init__(self, addresses: set[str], *, silent: bool = False) -> None:
        super().__init__(sorted(addresses))
        self.addresses = addresses
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Question:
    """One message to one worker."""

    client: Client
    address: str
    op: str
    message: dict[str, Any]

    async def answer(self) -> Any:
        """Return the answer's value; raise its error, or Lost if the worker is gone or silent for 30 s."""
        call = asyncio.ensure_future(getattr(self.client.rpc(self.address), self.op)(**self.message))
        heard = time.monotonic()
        try:
            while not call.done():
                await asyncio.wait([call], timeout=_PING_SECONDS)
                if call.done():
                    break
                if await self._pings():
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENT_SECONDS:
                    raise Lost({self.address}, silent=True)
            return opened(call.result())
        except _COMM_ERRORS as error:
            raise Lost({self.address}) from error
        finally:
            call.cancel()

    async def _pings(self) -> bool:
        """Whether the worker's event loop answers; it does while kernels run, which release the GIL."""
        try:
            await asyncio.wait_for(self.client.rpc(self.address).kmeans_ping(), _PING_SECONDS)
        except TimeoutError:
            return False
        return True


async def answers(questions: Sequence[Question]) -> list[Any]:
    """Return all values; raise an error, or Lost with every lost worker once all others have answered."""
    found = await asyncio.gather(*(question.answer() for question in questions), return_exceptions=True)
    lost: set[str] = set()
    silent = False
    for value in found:
        if isinstance(value, Lost):
            lost |= value.addresses
            silent = silent or value.silent
        elif isinstance(value, BaseException):
            raise value
    if lost:
        raise Lost(lost, silent=silent)
    return found


async def listed_workers(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of each worker, by address."""
    try:
        scheduler: Any = client.scheduler
        identity = await asyncio.wait_for(scheduler.identity(n_workers=-1), _SCHEDULER_SECONDS)
    except _COMM_ERRORS as error:
        raise InfrastructureError(
            f"the Dask scheduler does not answer ({error!r}). Check it and run again."
        ) from error
    workers: dict[str, Any] = identity["workers"]
    return workers
