"""Column chunks of one file -> an Arrow table; the only place where rows are read."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.errors import DataError, KMeansError
from pipeline.source.footers import DAMAGE
from pipeline.source.plan import Plan, RowGroup, SourceFile
from pipeline.storage import open_store


def read_chunks(plan: Plan, groups: Sequence[RowGroup], columns: Sequence[str]) -> pa.Table:
    """Return columns of row groups of one file, each column chunk read once and on this thread."""
    file = plan.file(groups[0].file)
    try:
        table = _read(plan, file, groups, columns)
    except KMeansError:
        raise
    except DAMAGE as error:
        if isinstance(error, MemoryError):
            raise
        raise _damaged(plan, file, groups, columns, error) from None
    expected = sum(group.n_rows for group in groups)
    for name in columns:
        if len(table[name]) != expected:
            raise DataError(
                f"{file.uri}: column {name!r} holds {len(table[name])} rows where the footer says {expected}. "
                "Write the file again."
            )
    return table


def _read(plan: Plan, file: SourceFile, groups: Sequence[RowGroup], columns: Sequence[str]) -> pa.Table:
    with open_store(file.store_uri, plan.storage).open(file.entry) as handle:
        parquet = pq.ParquetFile(
            handle, metadata=file.metadata, pre_buffer=True, page_checksum_verification=True
        )
        indices = [group.index for group in groups]
        return parquet.read_row_groups(indices, columns=list(columns), use_threads=False)


def _damaged(
    plan: Plan, file: SourceFile, groups: Sequence[RowGroup], columns: Sequence[str], error: Exception
) -> DataError:
    """Return an error that names column and row group, found by reading each chunk alone."""
    where = f"row groups {groups[0].index} to {groups[-1].index}"
    for group in groups:
        for name in columns:
            try:
                _read(plan, file, [group], [name])
            except KMeansError:
                raise
            except DAMAGE as found:
                reason = str(found).partition("\n")[0].rstrip(".")
                return DataError(
                    f"{file.uri}: column {name!r} in row group {group.index} is damaged ({reason}). "
                    "Write the file again."
                )
    return DataError(f"{file.uri}: {where} cannot be read ({error}). Write the file again.")
