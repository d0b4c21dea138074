"""Directories that a failed job made for its output."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from pipeline.storage.local import LocalStore
from pipeline.storage.store import Store


@contextmanager
def no_empty_directories(store: Store) -> Iterator[None]:
    """When the body fails, remove what it made of a local store's path and left empty; others' directories stay."""
    made = _absent(Path(store.uri)) if isinstance(store, LocalStore) else []
    try:
        yield
    except BaseException:
        for directory in made:
            with suppress(OSError):
                directory.rmdir()
        raise


def _absent(path: Path) -> list[Path]:
    """Return the directories that a first write would make, innermost first."""
    return list(takewhile(lambda directory: not directory.exists(), (path, *path.parents)))
