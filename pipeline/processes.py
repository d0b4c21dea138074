"""Processes that never outlive the job that started them.

As a Dask preload (`preload="pipeline.processes"`) it binds a worker to the process of its nanny.
"""

import ctypes
import os
import signal
import sys
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


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


def dask_setup(worker: Any) -> None:
    """Bind a Dask worker to its nanny: what a preload is called with."""
    die_with_parent()
