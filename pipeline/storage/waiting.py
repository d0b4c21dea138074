"""Waiting for a server so that a signal still gets through."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def interruptible(request: Callable[[], T]) -> T:
    """Return what `request` returns; a signal to the main thread need not wait for it.

    The client waits outside the interpreter, where no handler runs until the server answers or is given up.
    """
    if threading.current_thread() is not threading.main_thread():
        return request()
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(request())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="storage-request", daemon=True).start()
    return future.result()
