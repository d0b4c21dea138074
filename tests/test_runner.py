"""The plain runner: order, side by side, the first failure, and stop."""

import threading
import time

import numpy as np
import pytest

from kmeans_dask.errors import InfrastructureError, StopRequested
from kmeans_dask.lloyd import Fit, Hook, Progress
from kmeans_dask.restarts import Restart
from pipeline.runner import PlainRunner, Watch

RESTARTS = tuple(Restart(index, 100 + index) for index in range(5))


def progress(restart: Restart, iteration: int) -> Progress:
    return Progress(restart.index, restart.seed, iteration, 1.0, 1.0, 1, 0.0)


def fit(restart: Restart) -> Fit:
    return Fit(restart.index, restart.seed, np.zeros((1, 1)), (1,), 1.0, 1.0, 1, "converged", ())


def endless(restart: Restart, hook: Hook) -> Fit:
    """Iterate until a hook raises."""
    for iteration in range(1, 10**6):
        hook(progress(restart, iteration))
        time.sleep(0.001)
    raise AssertionError("nothing stopped it")


def test_a_step_returns_its_value() -> None:
    """A step is a call."""
    assert PlainRunner().step("add", lambda a, b: a + b, 1, 2) == 3


def test_restarts_come_back_in_order() -> None:
    """The fits are in the order of the restarts, whichever ends first."""

    def slower_first(restart: Restart, hook: Hook) -> Fit:
        time.sleep(0.05 / (1 + restart.index))
        return fit(restart)

    assert [done.restart for done in PlainRunner().restarts(slower_first, RESTARTS)] == [0, 1, 2, 3, 4]


def test_each_iteration_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The hook logs one line and calls on_progress once for each iteration."""
    seen: list[Progress] = []

    def one(restart: Restart, hook: Hook) -> Fit:
        hook(progress(restart, 1))
        return fit(restart)

    with caplog.at_level("INFO", logger="kmeans_dask"):
        PlainRunner(Watch(on_progress=seen.append)).restarts(one, RESTARTS)
    assert sorted(item.restart for item in seen) == [0, 1, 2, 3, 4]
    assert sum("iteration 1: distortion 1, changed 1, 0.000 s" in line for line in caplog.messages) == 5


def test_a_failure_abandons_the_other_restarts_and_is_raised() -> None:
    """One restart fails: the others end at their next iteration, and its error is what the caller gets."""

    def second_fails(restart: Restart, hook: Hook) -> Fit:
        if restart.index == 1:
            raise InfrastructureError("a worker is gone")
        return endless(restart, hook)

    with pytest.raises(InfrastructureError, match="a worker is gone"):
        PlainRunner().restarts(second_fails, RESTARTS)


def test_stop_abandons_every_restart() -> None:
    """Once `stop` is set all restarts end at their next iteration, and no step begins."""
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    runner = PlainRunner(Watch(stop))
    with pytest.raises(StopRequested):
        runner.restarts(endless, RESTARTS)
    with pytest.raises(StopRequested):
        runner.step("next", lambda: None)
    timer.join()
