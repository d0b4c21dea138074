"""How long questions to a shard take, and so which may be answered by the event loop itself, without a thread."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from kmeans_dask.local_blocks import Call

_IN_A_ROW = (
    4  # answers to questions of a function, all of which were quick where the next one is taken for quick
)
_QUICK_SECONDS = 0.01
SMALL_BYTES = (
    2**16
)  # of questions: larger ones bring many centroids, which a first pass compares with every row


class Pace:
    """How long the last questions of each function took."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def note(self, calls: Sequence[Call], seconds: float) -> None:
        """Remember how long some questions took together."""
        for name in {_name_of(call.fn) for call in calls}:
            self._seconds.setdefault(name, deque(maxlen=_IN_A_ROW)).append(seconds)

    @property
    def has_quick(self) -> bool:
        """Whether the questions of any function are quick."""
        return any(map(_are_quick, list(self._seconds.values())))

    def is_quick(self, calls: Sequence[Call]) -> bool:
        """Whether a thread would cost these questions more than they are likely to keep the event loop waiting."""
        return all(_are_quick(self._seconds.get(_name_of(call.fn), ())) for call in calls)


def _are_quick(seconds: Sequence[float]) -> bool:
    return len(seconds) == _IN_A_ROW and max(seconds) < _QUICK_SECONDS


def _name_of(fn: Callable[..., Any]) -> str:
    """Return the name by which a function can be imported; one that has none is told by itself."""
    name = getattr(fn, "__qualname__", "<")
    return repr(fn) if "<" in name else f"{fn.__module__}.{name}"
