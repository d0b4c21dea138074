"""The job's Dask section -> a connected client. The only module of the pipeline that knows `distributed`."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import dask
from distributed import Client, LocalCluster, Security
from distributed.core import rpc
from distributed.utils import LoopRunner, sync

from kmeans_dask.ahead import ready_client
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.errors import ConfigError, InfrastructureError
from pipeline import fork_server, scratch
from pipeline.config import DaskConfig
from pipeline.processes import deaf_to_sigint

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 20
# The shards refer to their blocks: spilling would copy them to disk and free nothing, pausing would hang new tasks.
# What fits is checked before anything is read.
_LOCAL_SETTINGS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.worker-ttl": "30s",
    # So long after a loss Dask closes the nanny if its worker is not there at that moment: also if it died again.
    "distributed.deploy.lost-worker-timeout": "1h",
    "distributed.admin.tick.limit": "60s",
    **{
        f"distributed.nanny.pre-spawn-environ.{name}": value
        for name, value in fork_server.ENVIRONMENT.items()
    },
}


@contextmanager
def connected(settings: DaskConfig) -> Iterator[Cluster]:
    """Give the workers of the section's cluster: its own local one, ended afterwards, or the one at its address."""
    with ExitStack() as stack:
        if settings.address is not None:
            _check_scheduler(settings.address)
            client = stack.enter_context(_client(settings.address))
            _check_package(client)
        else:
            stack.enter_context(dask.config.set(_LOCAL_SETTINGS | stack.enter_context(_copies())))
            client = stack.enter_context(_client(stack.enter_context(_local_cluster(settings))))
        yield Cluster(client)


def _client(where: "str | LocalCluster") -> Client:
    try:
        return Client(where, direct_to_workers=True, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise _no_scheduler(str(where), error) from error


def _check_scheduler(address: str) -> None:
    """Refuse an address where no scheduler answers: a client waits for ever on a port that only takes connections."""

    async def identity() -> None:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await scheduler.identity(n_workers=0)

    try:
        with _loop() as loop:
            sync(loop, identity, callback_timeout=CONNECT_SECONDS)
    except Exception as error:  # what answers there may be anything
        raise _no_scheduler(address, error) from error


def _no_scheduler(where: str, error: Exception) -> InfrastructureError:
    return InfrastructureError(
        f"dask.address: the scheduler at {where} does not answer within {CONNECT_SECONDS} s ({error!r}). "
        "Check the address and that the scheduler runs."
    )


@contextmanager
def _local_cluster(settings: DaskConfig) -> Iterator[LocalCluster]:
    with (
        _scratch(settings.local_directory) as local_directory,
        _loop() as loop,
        ThreadPoolExecutor(1, thread_name_prefix="start of the workers") as starter,
    ):
        ready_client()  # while the fork server imports what workers need
        starting = starter.submit(
            LocalCluster,
            loop=loop,
            n_workers=settings.workers,
            threads_per_worker=settings.threads_per_worker,
            memory_limit=settings.memory_limit,
            local_directory=local_directory,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: /metrics and /health, and no clash of two jobs
            preload=["pipeline.processes"],
            silence_logs=logging.ERROR,
        )
        try:
            yield _started(starting)
        finally:
            # After a signal too: workers that are starting would go on, and find their scratch gone.
            if starting.exception() is None:
                starting.result().close(timeout=5)


def _started(starting: Future[LocalCluster]) -> LocalCluster:
    try:
        return starting.result()
    except (RuntimeError, OSError) as error:  # a TimeoutError is an OSError
        raise _not_started(error) from error


@contextmanager
def _copies() -> Iterator[dict[str, str]]:
    """Give the settings by which workers are copies of one process."""
    with ExitStack() as stack:
        try:
            settings = stack.enter_context(fork_server.held())
        except (RuntimeError, OSError) as error:
            raise _not_started(error) from error
        yield settings


@contextmanager
def _scratch(directory: str | None) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            path = stack.enter_context(scratch.folder(directory))
        except OSError as error:
            raise ConfigError(
                f"dask.local_directory: the workers' scratch cannot be made in "
                f"{directory or 'the temporary directory'} ({error.strerror}). "
                "Make that directory, or name another that can be written to."
            ) from error
        yield path


def _not_started(error: Exception) -> InfrastructureError:
    return InfrastructureError(f"dask: the local workers did not start ({error}). {_hint()}")


def _hint() -> str:
    """Return why workers may not start: they import the script that runs the job."""
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == "<stdin>":
        return "They import the script that runs the job, and cannot read it from stdin: put it in a file."
    return (
        "They import the script that runs the job: it must be a file, and run the job under "
        '`if __name__ == "__main__":`. Else see above for what they said.'
    )


@contextmanager
def _loop() -> "Iterator[IOLoop]":
    """Give an event loop in a thread of its own, whose processes do not hear Ctrl-C."""
    runner = LoopRunner()
    with deaf_to_sigint():
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


async def _versions(client: Client) -> dict[str, str]:
    found: dict[str, str] = await asyncio.wait_for(client.run(version, "kmeans-dask"), CONNECT_SECONDS)
    return found


def _check_package(client: Client) -> None:
    """Refuse workers without our package or with another version of it."""
    ours = version("kmeans-dask")
    try:
        found = client.sync(_versions, client)
    except (OSError, TimeoutError) as error:  # a worker that hangs, or that died meanwhile
        raise InfrastructureError(
            f"dask.address: not every worker answers within {CONNECT_SECONDS} s ({error!r}). "
            "Check that each worker of the cluster runs and is not stopped, or end those that hang."
        ) from error
    except PackageNotFoundError as error:
        raise InfrastructureError(
            f"dask.address: a worker does not have the package kmeans-dask. Install version {ours} on all workers."
        ) from error
    other = {address: theirs for address, theirs in found.items() if theirs != ours}
    if other:
        address, theirs = next(iter(other.items()))
        raise InfrastructureError(
            f"dask.address: worker {address} has kmeans-dask {theirs}, this is {ours}. Install {ours} on all workers."
        )
    if not found:
        raise InfrastructureError("dask.address: the scheduler has no workers. Start some and run again.")
