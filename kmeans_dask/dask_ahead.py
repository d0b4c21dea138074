"""What a worker makes while another decides what becomes of it; it is given away once, and else let go of."""

from collections.abc import Callable
from typing import Any

from distributed import get_worker


class Held:
    """A value until somebody takes it."""

    def __init__(self, value: Any) -> None:
        self._left = [value]

    def taken(self) -> Any:
        """Return the value, or None after the first time."""
        return self._left.pop() if self._left else None


def hold(fn: Callable[..., Any], *args: Any) -> Held | None:
    """Return fn(*args), held by the worker under the key of this task; None where it fails, as a load will."""
    try:
        return Held(fn(*args))
    except Exception:  # whatever it is: the load meets it again, and tells it
        return None


def taken(key: str) -> Any:
    """Return what this worker holds under a key, and holds no longer; None if there is nothing."""
    held = get_worker().data.get(key)
    return held.taken() if isinstance(held, Held) else None
