"""Row groups of a plan -> checked columns of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kmeans_dask.arrow import arrow_of
from kmeans_dask.errors import DataError
from pipeline.source.chunks import read_chunks
from pipeline.source.numbers import FloatArray, Place, as_floats, as_weights, check_no_nulls
from pipeline.source.plan import Plan, RowGroup

AnyArray = TypeVar("AnyArray", bound=npt.NDArray[Any])
Offsets = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the source that pass the filter, as one array for each feature.

    `listed` are their offsets from `first_row`; None: all `n_source_rows`. A null is NaN. The arrays are
    C-contiguous float32 or float64 as the source has them (float16 becomes float32, whole numbers and
    decimals float64), and may be read-only.
    """

    first_row: int
    n_source_rows: int
    listed: Offsets | None
    columns: tuple[FloatArray, ...]
    weights: npt.NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was read from one file."""

    listed: Offsets
    columns: tuple[FloatArray, ...]
    weights: npt.NDArray[np.float64] | None


def read_rows(plan: Plan, row_groups: Sequence[RowGroup]) -> Rows:
    """Return the rows of consecutive row groups of the plan; each projected column chunk is read once.

    Raises DataError for infinities, values that `plan.dtype` cannot hold, bad weights, damaged pages, a file
    that changed, and for nulls or NaN where `plan.nulls` is "error".
    """
    first_row = row_groups[0].first_row
    n_source_rows = row_groups[-1].end_row - first_row
    pieces = [
        _read_piece(plan, list(groups), first_row)
        for _, groups in groupby(row_groups, key=lambda group: group.file)
    ]
    listed = _joined([piece.listed for piece in pieces])
    columns = tuple(_joined(parts) for parts in zip(*(piece.columns for piece in pieces), strict=True))
    weights = [piece.weights for piece in pieces if piece.weights is not None]
    return Rows(
        first_row=first_row,
        n_source_rows=n_source_rows,
        listed=listed if len(listed) < n_source_rows else None,
        columns=columns,
        weights=_joined(weights) if weights else None,
    )


def _read_piece(plan: Plan, groups: list[RowGroup], first_row: int) -> _Piece:
    file = plan.file(groups[0].file)
    table = read_chunks(plan, groups, plan.columns)
    listed = np.concatenate([np.arange(g.first_row - first_row, g.end_row - first_row) for g in groups])
    try:
        kept = _kept(plan, table, file.partition)
    except pa.ArrowException as error:  # two columns whose values no common type holds
        raise DataError(f"{file.uri}: source.filter cannot be evaluated ({error}).") from None
    chosen = None if kept is None else arrow_of(kept)
    rows = f", rows {groups[0].first_row - file.first_row} to {groups[-1].end_row - file.first_row - 1}"

    def column(name: str) -> tuple[pa.ChunkedArray, Place]:
        values = table[name] if chosen is None else table[name].filter(chosen)
        return values, Place(file.uri, name, rows)

    features = tuple(_feature(*column(name), plan) for name in plan.features)
    weights = as_weights(*column(plan.weight)) if plan.weight is not None else None
    return _Piece(
        listed.astype(np.uint32) if kept is None else listed[kept].astype(np.uint32), features, weights
    )


def _kept(plan: Plan, table: pa.Table, partition: tuple[object, ...]) -> npt.NDArray[np.bool_] | None:
    """Return which rows pass the filter, or None if all do."""
    if plan.filter is None:
        return None
    values = {name: table[name] for name in plan.filter.columns if name in table.column_names}
    values |= dict(_constants(plan, partition, table.num_rows))
    kept = plan.filter.mask(values)
    return None if kept.all() else kept


def _constants(plan: Plan, partition: tuple[object, ...], n: int) -> Iterator[tuple[str, pa.ChunkedArray]]:
    for (name, type_), value in zip(plan.partitions, partition, strict=True):
        yield name, pa.chunked_array([pa.repeat(pa.scalar(value, type_), n)])


def _feature(values: pa.ChunkedArray, place: Place, plan: Plan) -> FloatArray:
    floats = as_floats(values, plan.dtype, place)
    if plan.nulls == "error":
        check_no_nulls(floats, place)
    return floats


def _joined(arrays: Sequence[AnyArray]) -> AnyArray:
    return arrays[0] if len(arrays) == 1 else cast(AnyArray, np.concatenate(arrays))
