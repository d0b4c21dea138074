"""What every store offers: a directory of named byte strings, written whole or not at all."""

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from kmeans_dask.errors import DataError, InfrastructureError


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was when listed: `tag` is an object's etag, or a local file's mtime in nanoseconds."""

    path: str
    size: int
    tag: str


class NoSuchFileError(DataError):
    """A file that is not there."""


class ConditionalPutError(InfrastructureError):
    """A store that says of itself that it has no conditional puts."""


class Store(Protocol):
    """A directory or prefix; paths are relative to it, with forward slashes.

    Picklable: it travels as its address alone and connects anew, with that process's environment.
    Reading what is missing is a DataError, a place that cannot be written a ConfigError, a server that
    does not answer or refuses us an InfrastructureError.
    """

    @property
    def uri(self) -> str:
        """Its own address: `s3://bucket/prefix`, or an absolute local path."""

    def uri_of(self, path: str) -> str:
        """The address of a file in it, for messages and manifests."""

    def within(self, prefix: str) -> "Store":
        """The store of everything under `prefix`."""

    def list(self, prefix: str = "") -> list[Entry]:
        """Every file under `prefix` at any depth, or `prefix` itself where it names a file, sorted by path.

        `prefix` is whole path segments. Names that begin with a dot are left out. Nothing there: empty.
        """

    def head(self, path: str) -> Entry: ...

    def read(self, path: str) -> bytes: ...

    def fetch(self, path: str) -> tuple[Entry, bytes]:
        """The bytes together with the entry they belong to."""

    def open(self, entry: Entry) -> BinaryIO:
        """A seekable file; a read that finds another size or tag than `entry`'s is a DataError."""

    def put(self, path: str, data: bytes) -> None:
        """Write or replace a file; readers see the old bytes or the new ones."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists; False if it does."""

    def replace(self, path: str, data: bytes, tag: str | None) -> bool:
        """Write a file if its tag is still `tag` (None: if it is absent); False if it is not."""

    def delete(self, path: str) -> None:
        """Remove a file if it is there."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything under `prefix`, temporary files included."""


def changed(uri: str, planned: Entry, found: Entry) -> DataError:
    """Say that a file is no longer the one that was planned."""
    return DataError(
        f"{uri}: the file changed while the job ran: planned size {planned.size}, tag {planned.tag}; "
        f"found size {found.size}, tag {found.tag}. Run the job again on files that stay as they are."
    )


def missing(uri: str) -> NoSuchFileError:
    """Say that there is no such file."""
    return NoSuchFileError(f"{uri}: there is no such file. Check the path.")


def segments(path: str, place: str) -> list[str]:
    """Split a relative path; one that is absolute or climbs out of its store is refused."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") for part in parts):
        raise DataError(f"{place}: {path!r} is not a relative path within it")
    return parts
