"""A file's footer -> its metadata, and what that says of the columns we use."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.errors import DataError, KMeansError
from pipeline.filters import Range
from pipeline.source.columns import plain
from pipeline.source.listing import Listed

# What pyarrow raises for bytes that make no sense.
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)

_MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"


def read_footer(file: Listed) -> pq.FileMetaData:
    """Return the metadata of a Parquet file; DataError if it is not one or is truncated."""
    with file.store.open(file.entry) as handle:
        try:
            metadata = pq.read_metadata(handle)
        except KMeansError:
            raise
        except DAMAGE as error:
            if isinstance(error, MemoryError):
                raise
            handle.seek(0)
            start = handle.read(4)
            handle.seek(max(file.entry.size - 4, 0))
            raise DataError(f"{file.uri}: {_why(file.entry.size, start, handle.read(4), error)}") from None
    counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if sum(counts) != metadata.num_rows or min(counts, default=0) < 0:
        raise DataError(f"{file.uri}: its footer is damaged (row counts disagree). Write it again.")
    return metadata


def schema(file: Listed, metadata: pq.FileMetaData) -> pa.Schema:
    """Return the file's Arrow schema."""
    try:
        return metadata.schema.to_arrow_schema()
    except DAMAGE as error:
        raise DataError(f"{file.uri}: its schema cannot be read ({_first_line(error)}).") from None


def chunk_indices(metadata: pq.FileMetaData) -> dict[str, int]:
    """Return the column chunk of each flat column."""
    parquet = metadata.schema
    return {parquet.column(i).path: i for i in range(metadata.num_columns)}


def ranges(
    group: pq.RowGroupMetaData, indices: Mapping[str, int], schema: pa.Schema
) -> Iterator[tuple[str, Range]]:
    """Yield what a row group's statistics say of the columns in `indices`."""
    for name, index in indices.items():
        statistics = group.column(index).statistics
        if statistics is not None:
            n_nulls = statistics.null_count if statistics.has_null_count else None
            low, high = _limits(statistics, plain(schema.field(name).type))
            yield name, Range(low, high, n_nulls, group.num_rows)


def _limits(statistics: pq.Statistics, type_: pa.DataType) -> tuple[Any, Any]:
    """Return bounds that hold for certain, or None and None."""
    if not statistics.has_min_max or pa.types.is_float16(type_):
        return None, None
    try:
        low, high = statistics.min, statistics.max
    except (pa.ArrowException, ValueError, OverflowError, NotImplementedError):
        return None, None
    if pa.types.is_timestamp(type_):
        return _moment(low, dt.timedelta(0)), _moment(high, dt.timedelta(microseconds=1))
    if low != low or high != high:  # some writers put NaN here
        return None, None
    return low, high


def _moment(value: Any, rounding: dt.timedelta) -> dt.datetime:
    """Return a datetime; where pandas is installed, nanoseconds come as its own type."""
    if not hasattr(value, "to_pydatetime"):
        return value  # type: ignore[no-any-return]
    moment: dt.datetime = value.to_pydatetime(warn=False)
    return moment + rounding if value.nanosecond else moment


def _why(size: int, start: bytes, end: bytes, error: Exception) -> str:
    if _ENCRYPTED in (start, end):
        return "an encrypted Parquet file, which is not supported. Decrypt it first."
    if size == 0:
        return "an empty file, not a Parquet file. Write it again, or leave it out of source.path."
    if start != _MAGIC:
        return "not a Parquet file (it does not begin with PAR1). Leave it out of source.path."
    if end != _MAGIC:
        return "a truncated Parquet file (it does not end with PAR1). Write it again."
    return f"its footer is damaged ({_first_line(error)}). Write it again."


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip().rstrip(".")
