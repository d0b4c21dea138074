"""What a job will read, known before any row is read."""

import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import StorageConfig
from pipeline.filters import Filter
from pipeline.storage import Entry

PartitionValue = int | str | None
_FOOTERS_AT_HAND = 4


def packed_footer(metadata: pq.FileMetaData) -> bytes:
    """Return a file's metadata as bytes for `SourceFile.footer`."""
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    return zlib.compress(sink.getvalue(), 1)


@lru_cache(_FOOTERS_AT_HAND)
def _metadata(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(zlib.decompress(footer)))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was planned; `first_row` is the row id of its first row in the whole source."""

    index: int
    store_uri: str
    path: str
    size: int
    tag: str
    n_rows: int
    first_row: int
    uri: str
    partition: tuple[PartitionValue, ...]  # one value for each of the plan's partition columns
    footer: bytes = field(repr=False, compare=False)  # packed: every load of a file carries it

    @property
    def metadata(self) -> pq.FileMetaData:
        """The file's metadata, ten times as large as its footer or more."""
        return _metadata(self.footer)

    @property
    def entry(self) -> Entry:
        """The file's version, which every read compares."""
        return Entry(self.path, self.size, self.tag)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Row group `index` of file `file`, with the uncompressed bytes of the columns that are clustered."""

    file: int
    index: int
    first_row: int
    n_rows: int
    n_bytes: int

    @property
    def end_row(self) -> int:
        """The row id after its last row."""
        return self.first_row + self.n_rows


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one output file: consecutive rows of one source file, whatever the filter.

    `row_groups` are those of the plan in this range; a row group that the filter rules out is not among them.
    """

    file: int
    first_row: int
    n_rows: int
    row_groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The files, and the row groups that can hold rows which pass the filter, in the source's order."""

    place: str  # the source as the user wrote it, for messages
    files: tuple[SourceFile, ...]  # in the order of their indices; all of them, unless narrowed
    row_groups: tuple[RowGroup, ...]
    parts: tuple[Part, ...]
    features: tuple[str, ...]
    ids: tuple[str, ...]
    weight: str | None
    filter: Filter | None
    nulls: str
    dtype: str
    partitions: tuple[tuple[str, pa.DataType], ...]
    n_rows: int  # of `row_groups`: at most so many rows are clustered
    n_source_rows: int  # of all files
    n_bytes: int  # compressed, of the column chunks that are read to be clustered
    storage: StorageConfig

    @property
    def columns(self) -> tuple[str, ...]:
        """The file columns that are read to be clustered: features, weight and the filter's, each once."""
        wanted = (*self.features, *filter(None, [self.weight]), *(self.filter.columns if self.filter else ()))
        partitions = {name for name, _ in self.partitions}
        return tuple(name for name in dict.fromkeys(wanted) if name not in partitions)

    def file(self, index: int) -> SourceFile:
        """Return the file of an index, by which row groups and parts name it."""
        return self.files[bisect_left(self.files, index, key=attrgetter("index"))]

    def head(self, n: int = 65_536) -> tuple[RowGroup, ...]:
        """Return the row groups that hold the first `n` source rows; empty if the filter rules them out."""
        return tuple(group for group in self.row_groups if group.first_row < n)

    def narrowed(self, row_groups: Sequence[RowGroup]) -> "Plan":
        """Return this plan for reading `row_groups` alone: it travels to a worker without the other files."""
        files = tuple(self.file(index) for index in sorted({group.file for group in row_groups}))
        return replace(self, files=files, row_groups=tuple(row_groups), parts=())
