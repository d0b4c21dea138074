"""A bucket or a prefix of it, on anything that speaks S3."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store as Client

from kmeans_dask.errors import KMeansError
from pipeline.config import StorageConfig
from pipeline.storage import s3_errors
from pipeline.storage.credentials import resolve
from pipeline.storage.ranges import RangeFile
from pipeline.storage.s3_client import connect
from pipeline.storage.s3_reads import VersionReads, to_entry
from pipeline.storage.store import ConditionalPutError, Entry, NoSuchFileError, segments
from pipeline.storage.waiting import interruptible

T = TypeVar("T")

_PIECE_BYTES = 16 * 2**20  # larger uploads go in pieces; they too appear only once complete
_PIECES_AT_ONCE = 2
_SMALL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class S3Store:
    """See `pipeline.storage.store.Store`. It holds an address only: a client is made in each process."""

    bucket: str
    prefix: str
    options: StorageConfig

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def uri_of(self, path: str) -> str:
        return f"{self.uri}/{path}" if path else self.uri

    def within(self, prefix: str) -> "S3Store":
        path = "/".join(segments(prefix, self.uri))
        return S3Store(self.bucket, f"{self.prefix}/{path}".strip("/"), self.options)

    def list(self, prefix: str = "") -> list[Entry]:
        found = [entry for entry in self._list(prefix) if not _hidden(entry.path, prefix)]
        if not found and prefix:
            found = [entry for entry in [self._find(prefix)] if entry is not None]
        return sorted(found, key=lambda entry: entry.path)

    def head(self, path: str) -> Entry:
        return to_entry(self._ask(path, lambda client: obstore.head(client, path)))

    def read(self, path: str) -> bytes:
        return self.fetch(path)[1]

    def fetch(self, path: str) -> tuple[Entry, bytes]:
        def get(client: Client) -> tuple[Entry, bytes]:
            answer = obstore.get(client, path)
            return to_entry(answer.meta), bytes(answer.bytes())

        return self._ask(path, get)

    def open(self, entry: Entry) -> BinaryIO:
        reads = VersionReads(self.uri_of(entry.path), entry, self._ask)
        return cast(BinaryIO, RangeFile(entry.size, reads.fetch, reads.close))

    def put(self, path: str, data: bytes) -> None:
        def put(client: Client) -> None:
            obstore.put(client, path, data, chunk_size=_PIECE_BYTES, max_concurrency=_PIECES_AT_ONCE)

        self._ask(path, put, writing=True, patient=len(data) > _SMALL_BYTES)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self.replace(path, data, None)

    def replace(self, path: str, data: bytes, tag: str | None) -> bool:
        def put(client: Client) -> bool:
            try:
                obstore.put(client, path, data, mode="create" if tag is None else {"e_tag": f'"{tag}"'})
            except (AlreadyExistsError, PreconditionError):
                return False
            except s3_errors.FAILURES as error:
                if s3_errors.is_status(error, 409):  # two conditional puts at once: one of them is told so
                    return False
                if s3_errors.is_status(error, 501):
                    raise ConditionalPutError(f"{self.uri_of(path)}: no conditional puts here") from None
                raise
            return True

        return self._ask(path, put, writing=True)

    def delete(self, path: str) -> None:
        self._ask(path, lambda client: obstore.delete(client, path), writing=True)

    def delete_prefix(self, prefix: str) -> None:
        paths = [entry.path for entry in self._list(prefix)]
        if paths:
            self._ask(prefix, lambda client: obstore.delete(client, paths), writing=True)

    def _find(self, path: str) -> Entry | None:
        try:
            return self.head(path)
        except NoSuchFileError:
            return None

    def _list(self, prefix: str) -> Sequence[Entry]:
        def ask(client: Client) -> Sequence[Entry]:
            return [to_entry(meta) for meta in obstore.list(client, prefix or None).collect()]

        return self._ask(prefix, ask)

    def _ask(
        self, path: str, request: Callable[[Client], T], *, writing: bool = False, patient: bool = False
    ) -> T:
        segments(path, self.uri)
        client = connect(self.bucket, self.prefix, resolve(self.options), patient)
        try:
            return interruptible(lambda: request(client))
        except KMeansError:  # ours already, and some are ValueErrors
            raise
        except s3_errors.FAILURES as error:
            raise self._failure(error, path, writing=writing) from None

    def _failure(self, error: Exception, path: str, *, writing: bool) -> KMeansError:
        endpoint = resolve(self.options).endpoint
        return s3_errors.translated(error, self.uri_of(path), endpoint, writing=writing)


def _hidden(path: str, prefix: str) -> bool:
    return any(name.startswith(".") for name in path[len(prefix) :].split("/"))
