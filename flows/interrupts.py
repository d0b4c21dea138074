"""SIGINT and SIGTERM: abandon the job, end within seconds, leave no process behind."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

GRACE_SECONDS: Final = 6.0
_SHOW_CURSOR: Final = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first SIGINT or SIGTERM."""


class Interrupts:
    """What a signal does: set `stop`, raise in the main thread, and end the process if it lingers."""

    def __init__(self, stop: threading.Event, grace_seconds: float = GRACE_SECONDS) -> None:
        self.stop = stop
        self.signal: int | None = None
        self._grace_seconds = grace_seconds
        self._watchdog: threading.Timer | None = None
        self._depth = 0

    @property
    def exit_code(self) -> int | None:
        """130 or 143 after a signal, else None."""
        return None if self.signal is None else 128 + self.signal

    def said(self) -> int:
        """Say on stderr what happened, and return the exit code."""
        print(self._message, file=sys.stderr)  # noqa: T201
        return self.exit_code or 1

    @property
    def _message(self) -> str:
        return f"interrupted by {signal.Signals(self.signal or 0).name}"

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals within the block, in the main thread; may be entered again within itself."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._depth == 0 and self._watchdog is not None:
                self._watchdog.cancel()  # the block has ended in time: what comes after it is not the job

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self._exit()
        self.signal = number
        self.stop.set()
        # An exception raised by a handler can be lost (in a finalizer) or wait on a library's thread.
        self._watchdog = threading.Timer(self._grace_seconds, self._exit)
        self._watchdog.daemon = True
        self._watchdog.start()
        raise Interrupted(signal.Signals(number).name)

    def _exit(self) -> None:
        """End now: the kernel kills the children with this process, and nothing uncommitted is visible."""
        with suppress(OSError, ValueError):
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            os.write(sys.stderr.fileno(), f"{cursor}{self._message}\n".encode())
        os._exit(self.exit_code or 1)
