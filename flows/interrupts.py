"""SIGINT and SIGTERM: abandon the job, end within seconds, leave no process behind."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final

GRACE_SECONDS: Final = 6.0
_AGAIN_SECONDS: Final = 0.02  # until then whatever swallowed an interruption has returned
_SHOW_CURSOR: Final = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first SIGINT or SIGTERM, and again where it was swallowed."""


class Interrupts:
    """What a signal does: set `stop`, raise in the main thread, and end the process if it lingers."""

    def __init__(self, stop: threading.Event, grace_seconds: float = GRACE_SECONDS) -> None:
        self.stop = stop
        self.signal: int | None = None
        self._grace_seconds = grace_seconds
        self._timers: list[threading.Timer] = []
        self._is_again = False  # the next signal is our own
        self._lock = threading.Lock()
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
        return f"interrupted by {self._name}"

    @property
    def _name(self) -> str:
        return signal.Signals(self.signal or 0).name

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals within the block, in the main thread; may be entered again within itself."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        hook = sys.unraisablehook
        sys.unraisablehook = partial(self._unraisable, hook)
        self._depth += 1
        try:
            yield
        finally:
            try:
                self._leave()
            finally:
                sys.unraisablehook = hook
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._is_again = False

    def _leave(self) -> None:
        with self._lock:
            self._depth -= 1
            while self._depth == 0 and self._timers:
                self._timers.pop().cancel()  # the block has ended in time: what comes after it is not the job

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_again:
            self._is_again = False
            raise Interrupted(self._name)
        if self.signal is not None:
            self._exit()
        self.signal = number
        self.stop.set()
        # What a handler raises can wait on a library's thread.
        self._after(self._grace_seconds, self._exit)
        raise Interrupted(self._name)

    def _unraisable(
        self, hook: Callable[["sys.UnraisableHookArgs"], None], error: "sys.UnraisableHookArgs"
    ) -> None:
        """Raise again, a moment later, what a finalizer or a callback from C code has swallowed."""
        if not isinstance(error.exc_value, Interrupted):
            hook(error)
            return
        self._after(_AGAIN_SECONDS, self._raise_again)

    def _raise_again(self) -> None:
        with self._lock:
            if self._depth > 0:
                self._is_again = True
                signal.pthread_kill(threading.main_thread().ident or 0, self.signal or signal.SIGINT)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, then)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _exit(self) -> None:
        """End now: the kernel kills the children with this process, and nothing uncommitted is visible."""
        with suppress(OSError, ValueError):
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            os.write(sys.stderr.fileno(), f"{cursor}{self._message}\n".encode())
        os._exit(self.exit_code or 1)
