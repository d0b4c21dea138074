"""Room for packed blocks on disks: where, how much is free, and whether it is a disk at all."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from kmeans_dask.errors import ConfigError, InfrastructureError
from kmeans_dask.spool import ROOM

logger = logging.getLogger(__name__)

_MOUNTS = Path("/proc/mounts")
_IN_MEMORY = ("tmpfs", "ramfs")


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
