"""A job's steps and restarts as Prefect task runs, which do their work once whatever becomes of the API."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from kmeans_dask.errors import InfrastructureError
from pipeline.runner import Watch, side_by_side

if TYPE_CHECKING:
    from kmeans_dask.lloyd import Fit, Hook
    from kmeans_dask.restarts import Restart

T = TypeVar("T")

logger = logging.getLogger("flows")

# A commit may have arrived though its answer was lost; only the commit itself can tell.
_NOT_RETRIED: Final = frozenset({"commit"})


class Call(Generic[T]):
    """A call that returns its value at most once: a second `run` after success does nothing.

    (A class of its own, since Prefect walks into the dataclasses and containers among a task's parameters.)
    """

    def __init__(self, fn: Callable[..., T], *args: Any) -> None:
        self._fn, self._args = fn, args
        self._values: list[T] = []
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the value is there."""
        return bool(self._values)

    @property
    def value(self) -> T:
        """What the call returned."""
        return self._values[0]

    def run(self) -> None:
        """Make the call unless it has succeeded before."""
        if self.done:
            return
        self.error = None
        try:
            self._values.append(self._fn(*self._args))
        except BaseException as error:
            self.error = error
            raise


def may_help(task: "Task[Any, Any]", task_run: TaskRun, state: "State[Any]") -> bool:
    """Return whether a retry may help: only after a failure of the infrastructure."""
    return isinstance(state.data, InfrastructureError)


@task(cache_policy=NO_CACHE, persist_result=False, log_prints=False)
def make(call: Call[Any]) -> None:
    """Make one call of the job."""
    call.run()


@dataclass(frozen=True, slots=True)
class PrefectRunner:
    """Runs each step and each restart in a task run; where Prefect itself fails, without one."""

    watch: Watch = field(default_factory=Watch)
    on_fits: "Callable[[Sequence[Fit]], None]" = lambda fits: None
    retries: int = 1

    def step(self, name: str, fn: Callable[..., T], *args: Any) -> T:
        """Return `fn(*args)`, made in a task run of that name."""
        self.watch.check()
        retries = 0 if name in _NOT_RETRIED else self.retries
        options = make.with_options(
            name=name, task_run_name=name, retries=retries, retry_delay_seconds=2, retry_condition_fn=may_help
        )
        return in_task(options, Call(fn, *args))

    def restarts(
        self,
        fn: "Callable[[Restart, Hook], Fit]",
        restarts: "Sequence[Restart]",
        at_once: int | None = None,
    ) -> "list[Fit]":
        """Return the fits in order, each made in a task run of its own."""

        def in_own_task(restart: "Restart", hook: "Hook") -> "Fit":
            sweep = "" if restart.n_clusters is None else f"k-{restart.n_clusters}-"
            name = f"{sweep}restart-{restart.index}"
            return in_task(make.with_options(name="restart", task_run_name=name), Call(fn, restart, hook))

        fits = side_by_side(in_own_task, restarts, self.watch, at_once)
        self.on_fits(fits)
        return fits


def in_task(options: "Task[[Call[Any]], None]", call: Call[T]) -> T:
    """Return the call's value; a failure of Prefect around it neither loses it nor makes it twice."""
    try:
        options(call)
    except Exception as error:
        if call.error is not None:
            raise call.error from None
        logger.warning("Prefect failed around %s; going on without it (%s)", options.name, error)
        call.run()
    return call.value
