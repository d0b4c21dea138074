"""A part of the plan -> the id columns of its rows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kmeans_dask.arrow import arrow_of
from pipeline.source.chunks import read_chunks
from pipeline.source.columns import plain
from pipeline.source.plan import Part, Plan, RowGroup

Offsets = npt.NDArray[np.integer]


def read_ids(plan: Plan, part: Part, listed: Offsets | None = None) -> pa.Table:
    """Return the id columns of the rows at `listed`, ascending offsets from `part.first_row`.

    None: every row of the part's row groups. Each column chunk is read once, those without a listed row not
    at all. Without ids nothing is read and the table has no columns.
    """
    file = plan.file(part.file)
    partition = {
        name: pa.scalar(value, type_)
        for (name, type_), value in zip(plan.partitions, file.partition, strict=True)
    }
    offsets = _offsets(part.row_groups, part.first_row) if listed is None else listed
    stored = [name for name in plan.ids if name not in partition]
    table = _read(plan, part, stored, offsets) if stored else None
    columns = {}
    for name in plan.ids:
        if name in partition:
            columns[name] = pa.chunked_array([pa.repeat(partition[name], len(offsets))])
        elif table is not None:
            columns[name] = _decoded(table[name])
    return pa.table(columns)


def _read(plan: Plan, part: Part, columns: list[str], offsets: Offsets) -> pa.Table:
    starts = np.array([group.first_row - part.first_row for group in part.row_groups])
    of_group = np.searchsorted(starts, offsets, side="right") - 1
    groups = [part.row_groups[i] for i in np.unique(of_group)]
    if not groups:
        return plan.file(part.file).metadata.schema.to_arrow_schema().empty_table().select(columns)
    table = read_chunks(plan, groups, columns)
    present = _offsets(groups, part.first_row)
    if len(present) == len(offsets):
        return table
    return table.take(arrow_of(np.searchsorted(present, offsets)))


def _offsets(groups: Sequence[RowGroup], first_row: int) -> Offsets:
    return np.concatenate([np.arange(g.first_row - first_row, g.end_row - first_row) for g in groups])


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return plain values: parts would else differ in how they encode the same column."""
    return values.cast(plain(values.type)) if pa.types.is_dictionary(values.type) else values
