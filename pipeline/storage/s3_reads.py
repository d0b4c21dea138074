"""Ranges of one version of an object."""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

import obstore
from obstore.exceptions import GenericError, PreconditionError
from obstore.store import S3Store as Client

from pipeline.storage import s3_errors
from pipeline.storage.store import Entry, changed

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Ask(Protocol):
    """Make a request of this process's client; its failures become ours."""

    def __call__(self, path: str, request: Callable[[Client], T]) -> T: ...


def to_entry(meta: "ObjectMeta") -> Entry:
    """Return an object's entry; servers differ in whether a listing quotes etags."""
    return Entry(meta["path"], meta["size"], (meta["e_tag"] or "").removeprefix("W/").strip('"'))


@dataclass(slots=True)
class VersionReads:
    """Reads of the planned version only: the server compares etags, and so do we, as some do not."""

    uri: str
    entry: Entry
    ask: Ask
    _copy: IO[bytes] | None = field(default=None, init=False)

    def fetch(self, start: int, stop: int) -> bytes:
        """Fetch a range by one request."""
        if self._copy is not None:
            return os.pread(self._copy.fileno(), stop - start, start)
        data = self.ask(self.entry.path, lambda client: self._ranged(client, start, stop))
        if data is None:
            self._copy = self.ask(self.entry.path, self._whole)
            return self.fetch(start, stop)
        if len(data) != stop - start:
            raise changed(self.uri, self.entry, self._found())
        return data

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()

    def _ranged(self, client: Client, start: int, stop: int) -> bytes | None:
        only: GetOptions = {"range": (start, stop), "if_match": f'"{self.entry.tag}"'}
        try:
            answer = obstore.get(client, self.entry.path, options=only)
            self._compare(to_entry(answer.meta))
            return bytes(answer.bytes())
        except PreconditionError:
            raise changed(self.uri, self.entry, self._found()) from None
        except GenericError as error:
            if s3_errors.is_status(error, 416):
                raise changed(self.uri, self.entry, self._found()) from None
            if "NotPartial" in str(error):
                return None
            raise

    def _whole(self, client: Client) -> IO[bytes]:
        """Copy the object to a temporary file, for servers whose answers to ranges the client cannot use.

        (rclone sends the right bytes under status 200 where the protocol has 206.)
        """
        logger.debug("%s: the server has no ranges; the whole object is fetched", self.uri)
        answer = obstore.get(client, self.entry.path)
        self._compare(to_entry(answer.meta))
        copy: Any = tempfile.TemporaryFile()  # noqa: SIM115
        for piece in answer.stream():
            copy.write(piece)
        copy.flush()
        return copy  # type: ignore[no-any-return]

    def _found(self) -> Entry:
        return self.ask(self.entry.path, lambda client: to_entry(obstore.head(client, self.entry.path)))

    def _compare(self, found: Entry) -> None:
        if found != self.entry:
            raise changed(self.uri, self.entry, found)
