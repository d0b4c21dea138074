"""Processes that never outlive the job that started them.

As a Dask preload (`preload="pipeline.processes"`) it binds a worker to the process that started it: that of its nanny,
which alone speaks to the user, or the fork server, which is bound to that one.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
# Whether workers of a local cluster are copies of one process: see `pipeline.fork_server`, which builds on parts of
# multiprocessing that are not documented, and is tested on this Python.
COPIES_WORKERS: Final = sys.platform == "linux" and sys.version_info[:2] == (3, 11)


def die_with_parent(parent: int | None = None) -> None:
    """Make the kernel kill this process when the thread that started it ends; does nothing where it cannot.

    `parent` is the starter's process id where known: a starter that ended before this call is noticed too.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if parent is not None and os.getppid() != parent:
        os._exit(1)


@contextmanager
def deaf_to_sigint() -> Iterator[None]:
    """Hold back SIGINT from threads started in the block, and from every process that those start.

    Ctrl-C reaches all processes of a terminal's group; the job's main thread hears it and ends the others.
    """
    # The first start of a process would start it and let SIGINT through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dask_setup(worker: Any) -> None:
    """Bind a Dask worker to what started it: what a preload is called with."""
    die_with_parent()
    # What a task raises the client gets, and says once; a scheduler that is gone is the job's own end.
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
