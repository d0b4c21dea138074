"""What Prefect is told besides its own states: log lines and artifacts, none of which is worth the job."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from prefect.events.worker import EventsWorker
from prefect.exceptions import MissingContextError
from prefect.logging.handlers import APILogHandler, APILogWorker
from prefect.settings import PREFECT_API_URL

from flows.health import wait_until_healthy
from kmeans_dask.errors import InfrastructureError

logger = logging.getLogger("flows")

_DRAIN_SECONDS: Final = 5.0


def send(what: str, fn: Callable[..., None], *args: Any) -> None:
    """Call `fn(*args)`, which tells the API something, if the API answers; a failure is a warning."""
    try:
        check_api()
        fn(*args)
    except Exception as error:
        logger.warning("Prefect does not get %s: %s", what, error)


def drain() -> None:
    """Wait until the API has the events and lines that are on their way, a few seconds at most."""
    try:
        check_api()
    except InfrastructureError:
        return
    EventsWorker.drain_all(timeout=_DRAIN_SECONDS)
    APILogWorker.drain_all(timeout=_DRAIN_SECONDS)


def check_api(seconds: float = 5) -> None:
    """Raise InfrastructureError unless the API answers within seconds; Prefect's client waits minutes."""
    url = PREFECT_API_URL.value()
    if url:
        wait_until_healthy(url, seconds)


class RunLogHandler(APILogHandler):
    """Sends the lines of our own loggers to the API, under the task run or flow run they were logged in."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Leave a line logged on a thread outside any run to stderr."""
        if not isinstance(sys.exc_info()[1], MissingContextError):
            super().handleError(record)


@contextmanager
def logs_in_prefect(run_id: str) -> Iterator[None]:
    """Send our loggers' lines, from INFO on and with the run id, to the Prefect API within the block."""
    handler = RunLogHandler(logging.INFO)
    handler.setFormatter(logging.Formatter(f"{run_id} %(message)s"))
    loggers = [logging.getLogger(name) for name in ("kmeans_dask", "pipeline", "flows")]
    levels = [ours.level for ours in loggers]
    for ours in loggers:
        ours.addHandler(handler)
        if ours.getEffectiveLevel() > logging.INFO:
            ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        for ours, level in zip(loggers, levels, strict=True):
            ours.removeHandler(handler)
            ours.setLevel(level)
