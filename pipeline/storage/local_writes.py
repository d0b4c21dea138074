"""Atomic writes to local directories: a hidden temporary file, flushed, then renamed."""

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmeans_dask.errors import InfrastructureError

_LOCK_SECONDS = 30.0
_ATTEMPTS = 50


def write(target: Path, data: bytes, *, newer_than_ns: int | None = None) -> None:
    """Replace `target` by `data` in one step that survives a power cut.

    With `newer_than_ns` its mtime is later than that, so that an mtime never stands for two contents.
    """
    descriptor, temporary = _create(target, f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
            if newer_than_ns is not None and modified_ns <= newer_than_ns:
                os.utime(file.fileno(), ns=(newer_than_ns + 1, newer_than_ns + 1))
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(target.parent)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target` against other processes and threads; its lock file is gone afterwards."""
    descriptor, path = _take(target)
    try:
        yield
    finally:
        # Unlinked while held: whoever waited for this file finds that the name is no longer its own.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(target: Path) -> tuple[int, Path]:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor, path = _create(target, f".{target.name}.lock", exclusive=False)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, descriptor):
                return descriptor, path
        except BlockingIOError:
            time.sleep(0.005)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise InfrastructureError(f"{path}: another process has held this lock for {_LOCK_SECONDS:.0f} s")


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _create(target: Path, name: str, *, exclusive: bool = True) -> tuple[int, Path]:
    path = target.with_name(name)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if exclusive else 0)
    for _ in range(_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o666), path
        except FileNotFoundError:
            continue  # another job removed the directory while it was empty
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
