"""How the steps of a job are run: here, by plain calls; in `flows`, by an orchestrator."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kmeans_dask.errors import StopRequested

if TYPE_CHECKING:
    from kmeans_dask.lloyd import Fit, Hook, Progress
    from kmeans_dask.restarts import Restart

T = TypeVar("T")

logger = logging.getLogger(__name__)
iterations = logging.getLogger("kmeans_dask.iterations")


class Runner(Protocol):
    """Runs the named steps of a job, and its restarts side by side."""

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        """Return `fn(*args)`."""
        ...

    def restarts(
        self,
        fn: "Callable[[Restart, Hook], Fit]",
        restarts: "Sequence[Restart]",
        at_once: int | None = None,
    ) -> "list[Fit]":
        """Return `fn(restart, hook)` of each restart, in order; the hook logs, reports and stops.

        at_once: how many run side by side, as many as there are cores by default.
        """
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """The hook of a job's restarts: logs and reports each iteration, abandons the fit when `stop` is set."""

    stop: threading.Event = field(default_factory=threading.Event)
    on_progress: "Callable[[Progress], None] | None" = None

    def __call__(self, progress: "Progress") -> None:
        """Serve one iteration; raises StopRequested."""
        self.check()
        iterations.info(
            "%srestart %d iteration %d: distortion %.6g, changed %d, %.3f s",
            "" if progress.n_clusters is None else f"k={progress.n_clusters} ",
            progress.restart,
            progress.iteration,
            progress.distortion,
            progress.changed,
            progress.seconds,
        )
        if self.on_progress is not None:
            self.on_progress(progress)

    def check(self) -> None:
        """Raise StopRequested once `stop` is set."""
        if self.stop.is_set():
            raise StopRequested


@dataclass(frozen=True, slots=True)
class PlainRunner:
    """Runs steps by calling them and restarts on threads of this process."""

    watch: Watch = field(default_factory=Watch)

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        """Return `fn(*args)`."""
        self.watch.check()
        logger.debug("step %s", name)
        return fn(*args)

    def restarts(
        self,
        fn: "Callable[[Restart, Hook], Fit]",
        restarts: "Sequence[Restart]",
        at_once: int | None = None,
    ) -> "list[Fit]":
        """Return the fits in order."""
        return side_by_side(fn, restarts, self.watch, at_once)


def side_by_side(
    fn: "Callable[[Restart, Hook], Fit]",
    restarts: "Sequence[Restart]",
    watch: Watch,
    at_once: int | None = None,
) -> "list[Fit]":
    """Return the fits in order, made on threads; the first failure abandons the others and is raised.

    Each call sees the context variables of the caller.
    """
    failed = threading.Event()

    def hook(progress: "Progress") -> None:
        watch(progress)
        check()

    def check() -> None:
        watch.check()
        if failed.is_set():
            raise StopRequested

    def run(restart: "Restart") -> "Fit":
        check()
        return fn(restart, hook)

    with ThreadPoolExecutor(n_threads(len(restarts), at_once), thread_name_prefix="restart") as pool:
        try:
            futures = [pool.submit(copy_context().run, run, restart) for restart in restarts]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # After success nothing is left to abandon; else leaving the block waits one iteration at most.
            failed.set()
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, StopRequested)):
        raise error
    return [future.result() for future in futures]


def n_threads(n_restarts: int, at_once: int | None = None) -> int:
    """Return how many restarts run at once: by default, more than there are cores only share them."""
    return max(1, min(n_restarts, at_once or os.cpu_count() or 1))
