"""Scratch folders, and room for packed blocks on disks: where, how much is free, and whether it is a disk at all."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kmeans_dask.errors import ConfigError, InfrastructureError

logger = logging.getLogger(__name__)

_MOUNTS = Path("/proc/mounts")
_IN_MEMORY = ("tmpfs", "ramfs")
_PREFIX = "kmeans-dask-"
_LOCK = "in-use"


@contextmanager
def folder(parent: str | None) -> Iterator[str]:
    """Give a new folder, removed afterwards, as are those of processes that were killed; raises OSError."""
    _remove_abandoned(Path(directory_of(parent)))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as path, _held(Path(path)):
        yield path


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, put in its place when it is held; where there are none, none."""
    with (path / f"{_LOCK}-soon").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / f"{_LOCK}-soon").rename(path / _LOCK)
        yield


def _remove_abandoned(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open() as file:  # not ours, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)
            logger.info("removed %s, the scratch folder of a job that was killed", lock.parent)


def directory_of(local_directory: str | None) -> str:
    """Return where scratch files go on this machine."""
    return local_directory or tempfile.gettempdir()


def check_here(directory: str, needed: int) -> None:
    """Refuse to begin where a directory of this machine has no room for so many bytes."""
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise ConfigError(
            f"{directory}: the scratch directory cannot be looked at ({error.strerror}). "
            "Make it, or name another in dask.local_directory, or in TMPDIR without a local cluster."
        ) from error
    check_room(directory, needed, free)
    if is_memory(directory):
        logger.warning(
            "the scratch directory %s is itself in memory (tmpfs), which packed blocks would fill: name one on a disk "
            "in dask.local_directory, or in TMPDIR without a local cluster",
            directory,
        )


def check_room(place: str, needed: int, free: int) -> None:
    """Refuse less room than is needed."""
    from kmeans_dask.spool import ROOM  # with NumPy and more, which whoever only makes a folder does not need

    if needed > free:
        raise InfrastructureError(
            f"{place}: packed blocks need {_mib(needed)} of scratch room there, and {_mib(free)} are free. {ROOM}"
        )


def is_memory(directory: str, mounts: Path = _MOUNTS) -> bool:
    """Whether a directory lies on a file system that is kept in memory."""
    path = os.path.realpath(directory)
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return False
    holding = [
        (len(point), kind)
        for _, point, kind, *_ in lines
        if path == point or path.startswith(point.rstrip("/") + "/")
    ]
    return bool(holding) and max(holding)[1] in _IN_MEMORY


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
