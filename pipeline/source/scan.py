"""The source section -> a plan, from footers alone; whatever footers can tell is refused here."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.errors import DataError
from pipeline.config import SourceConfig
from pipeline.filters import Range
from pipeline.source import footers
from pipeline.source.columns import Columns, choose, schema_of
from pipeline.source.listing import Listed, list_files
from pipeline.source.partitions import partition_columns
from pipeline.source.plan import Part, PartitionValue, Plan, RowGroup, SourceFile, packed_footer
from pipeline.source.statistics import Found, check

PART_ROWS = 2**20

_FOOTERS_AT_ONCE = 16
_PATHS_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Scanned:
    """A file's row groups in order, empty ones left out."""

    groups: tuple[RowGroup, ...]
    kept: tuple[RowGroup, ...]
    n_bytes: int
    found: tuple[Found, ...]


def scan(source: SourceConfig, dtype: str) -> Plan:
    """Return the plan for a source that is clustered as `dtype`; each footer is read once."""
    place = _place(source.path)
    listed = list_files(source.path, source.storage)
    with ThreadPoolExecutor(min(_FOOTERS_AT_ONCE, len(listed))) as pool:
        metadata = list(pool.map(footers.read_footer, listed))
    partitions, values = partition_columns(listed)
    arrow = [footers.schema(file, footer) for file, footer in zip(listed, metadata, strict=True)]
    schemas = [schema_of(f.uri, schema, partitions) for f, schema in zip(listed, arrow, strict=True)]
    columns = choose(source, schemas, partitions)
    files = _number(listed, metadata, values)
    n_source_rows = sum(file.n_rows for file in files)
    if n_source_rows == 0:
        raise DataError(f"{place}: it holds no rows. Point source.path at files with rows.")
    scanned = [
        _scan_file(file, schema, columns, tuple(partitions))
        for file, schema in zip(files, arrow, strict=True)
    ]
    check([found for file in scanned for found in file.found], columns, source.nulls, dtype)
    groups = tuple(group for file in scanned for group in file.kept)
    if not groups:
        raise DataError(f"{place}: no row passes source.filter = {source.filter!r}. Change the filter.")
    return Plan(
        place=place,
        files=files,
        row_groups=groups,
        parts=tuple(part for file in scanned for part in _parts(file)),
        features=columns.features,
        ids=columns.ids,
        weight=columns.weight,
        filter=columns.filter,
        nulls=source.nulls,
        dtype=dtype,
        partitions=tuple(partitions.items()),
        n_rows=sum(group.n_rows for group in groups),
        n_source_rows=n_source_rows,
        n_bytes=sum(file.n_bytes for file in scanned),
        storage=source.storage,
    )


def _place(paths: Sequence[str]) -> str:
    """Return the paths for a message; a list of thousands stays short."""
    more = len(paths) - _PATHS_NAMED
    named = ", ".join(paths[:_PATHS_NAMED])
    return named if more <= 0 else f"{named} and {more:,} more"


def _number(
    listed: Sequence[Listed],
    metadata: Sequence[pq.FileMetaData],
    values: Sequence[tuple[PartitionValue, ...]],
) -> tuple[SourceFile, ...]:
    """Return the files with the row id of their first row."""
    files: list[SourceFile] = []
    first_row = 0
    for file, footer, partition in zip(listed, metadata, values, strict=True):
        entry = file.entry
        files.append(
            SourceFile(
                index=len(files),
                store_uri=file.store.uri,
                path=entry.path,
                size=entry.size,
                tag=entry.tag,
                n_rows=footer.num_rows,
                first_row=first_row,
                uri=file.uri,
                partition=partition,
                footer=packed_footer(footer),
            )
        )
        first_row += footer.num_rows
    return tuple(files)


def _scan_file(
    file: SourceFile, schema: pa.Schema, columns: Columns, partitions: tuple[str, ...]
) -> _Scanned:
    bound = columns.filter
    wanted = dict.fromkeys(
        (*columns.features, *filter(None, [columns.weight]), *(bound.columns if bound else ()))
    )
    metadata = file.metadata
    chunks = footers.chunk_indices(metadata)
    indices = {name: chunks[name] for name in wanted if name in chunks and name not in partitions}
    constant = {
        name: Range(value, value, int(value is None), 1)
        for name, value in zip(partitions, file.partition, strict=True)
    }
    groups, kept, found, n_bytes, first_row = [], [], [], 0, file.first_row
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        sizes = [group.column(i) for i in indices.values()]
        size = sum(chunk.total_uncompressed_size for chunk in sizes)
        planned = RowGroup(file.index, index, first_row, group.num_rows, size)
        first_row = planned.end_row
        if planned.n_rows == 0:
            continue
        groups.append(planned)
        known = dict(footers.ranges(group, indices, schema))
        found.append(Found(file.uri, planned.n_rows, known, schema))
        if bound is None or bound.may_keep({**known, **constant}):
            kept.append(planned)
            n_bytes += sum(chunk.total_compressed_size for chunk in sizes)
    return _Scanned(tuple(groups), tuple(kept), n_bytes, tuple(found))


def _parts(file: _Scanned) -> Iterator[Part]:
    """Yield a file's parts: where they begin and end depends on its row groups alone."""
    kept = set(file.kept)
    for run in _runs(file.groups):
        chosen = tuple(group for group in run if group in kept)
        if chosen:
            n_rows = run[-1].end_row - run[0].first_row
            yield Part(run[0].file, run[0].first_row, n_rows, chosen)


def _runs(groups: Sequence[RowGroup]) -> Iterator[list[RowGroup]]:
    run: list[RowGroup] = []
    for group in groups:
        if run and group.end_row - run[0].first_row > PART_ROWS:
            yield run
            run = []
        run.append(group)
    if run:
        yield run
