"""A local directory as a store."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from kmeans_dask.errors import ConfigError, DataError, InfrastructureError
from pipeline.storage import local_writes
from pipeline.storage.ranges import RangeFile
from pipeline.storage.store import Entry, changed, missing, segments

_ATTEMPTS = 3
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_FULL_OR_BROKEN = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOTEMPTY,
}


@dataclass(frozen=True, slots=True)
class LocalStore:
    """See `pipeline.storage.store.Store`."""

    uri: str

    def uri_of(self, path: str) -> str:
        return os.path.join(self.uri, path) if path else self.uri

    def within(self, prefix: str) -> "LocalStore":
        return LocalStore(str(self._locate(prefix)))

    def list(self, prefix: str = "") -> list[Entry]:
        start = self._locate(prefix)
        with _reading(str(start)):
            found = [prefix] if start.is_file() else _walk(start, prefix)
        return [self.head(path) for path in sorted(found)]

    def head(self, path: str) -> Entry:
        location = self._locate(path)
        with _reading(str(location)):
            if location.is_dir():
                raise missing(str(location))
            return _entry(path, os.stat(location))

    def read(self, path: str) -> bytes:
        return self.fetch(path)[1]

    def fetch(self, path: str) -> tuple[Entry, bytes]:
        location = self._locate(path)
        with _reading(str(location)), open(location, "rb") as file:
            return _entry(path, os.fstat(file.fileno())), file.read()

    def open(self, entry: Entry) -> BinaryIO:
        uri = self.uri_of(entry.path)
        with _reading(uri):
            descriptor = os.open(self._locate(entry.path), os.O_RDONLY | os.O_CLOEXEC)

        def check() -> None:
            found = _entry(entry.path, os.fstat(descriptor))
            if found != entry:
                raise changed(uri, entry, found)

        def fetch(start: int, stop: int) -> bytes:
            with _reading(uri):
                data = _read_range(descriptor, start, stop)
            check()  # after the read: a writer sets the time before it changes the bytes
            return data

        try:
            check()
        except DataError:
            os.close(descriptor)
            raise
        return cast(BinaryIO, RangeFile(entry.size, fetch, lambda: os.close(descriptor)))

    def put(self, path: str, data: bytes) -> None:
        location = self._locate(path)
        with _writing(str(location)):
            local_writes.write(location, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self.replace(path, data, None)

    def replace(self, path: str, data: bytes, tag: str | None) -> bool:
        location = self._locate(path)
        with _writing(str(location)), local_writes.locked(location):
            found = os.stat(location).st_mtime_ns if location.exists() else None
            if (None if found is None else str(found)) != tag:
                return False
            local_writes.write(location, data, newer_than_ns=found)
            return True

    def delete(self, path: str) -> None:
        location = self._locate(path)
        with _writing(str(location)):
            location.unlink(missing_ok=True)
            self._prune(location.parent)

    def delete_prefix(self, prefix: str) -> None:
        location = self._locate(prefix)
        with _writing(str(location)):
            for _ in range(_ATTEMPTS):  # a worker that was given up may still be writing into it
                shutil.rmtree(location, ignore_errors=True)
                if not location.exists():
                    break
            else:
                shutil.rmtree(location)
            self._prune(location.parent)

    def _locate(self, path: str) -> Path:
        return Path(self.uri, *segments(path, self.uri))

    def _prune(self, directory: Path) -> None:
        """Remove empty directories, as an object store has none, but never the store's own."""
        while directory != Path(self.uri) and Path(self.uri) in directory.parents:
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(path, status.st_size, str(status.st_mtime_ns))


def _walk(start: Path, prefix: str) -> list[str]:
    found: list[str] = []
    pending: list[tuple[Path, str, frozenset[str]]] = [(start, prefix, frozenset())]
    while pending:
        directory, name, above = pending.pop()
        real = os.path.realpath(directory)
        if real in above or not directory.is_dir():
            continue  # links to directories are followed, but not in circles
        for child in directory.iterdir():
            if child.name.startswith("."):
                continue
            path = f"{name}/{child.name}" if name else child.name
            if child.is_dir():
                pending.append((child, path, above | {real}))
            else:
                found.append(path)
    return found


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    pieces = []
    while start < stop:  # one call returns at most 2 GiB
        piece = os.pread(descriptor, stop - start, start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT:
            raise missing(uri) from None
        if isinstance(error, PermissionError):
            raise DataError(f"{uri}: it may not be read by this user ({error.strerror})") from None
        raise InfrastructureError(f"{uri}: reading failed: {error.strerror}") from error


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_OR_BROKEN:
            raise InfrastructureError(f"{uri}: writing failed: {error.strerror}") from error
        raise ConfigError(f"{uri}: it cannot be written: {error.strerror}. Choose another path.") from None
