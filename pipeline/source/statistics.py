"""What footers say of values -> the errors that would else come while reading."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from kmeans_dask.errors import DataError
from pipeline.filters import Range
from pipeline.source.columns import Columns, plain
from pipeline.source.numbers import Place, check_value, check_weights, counted, nulls_refused


@dataclass(frozen=True, slots=True)
class Found:
    """A row group's statistics, for the columns that have any."""

    uri: str
    n_rows: int
    ranges: Mapping[str, Range]
    schema: pa.Schema


def check(found: Sequence[Found], columns: Columns, nulls: str, dtype: str) -> None:
    """Refuse what is certain already: nulls under "error", columns without a value, values out of range.

    With a filter only whole columns can be judged, as it may leave out the rows in question.
    """
    if nulls == "mean":
        for name in columns.features:
            _check_not_all_null(found, name)
    if columns.filter is not None:
        return
    for uri, groups in groupby(found, key=lambda item: item.uri):
        of_file = list(groups)
        if nulls == "error":
            _check_no_nulls(uri, of_file, columns.features)
        for item in of_file:
            for name in columns.features:
                _check_range(item, name, dtype)
            if columns.weight is not None and columns.weight in item.ranges:
                _check_range(item, columns.weight, "float64")
                known = item.ranges[columns.weight]
                check_weights(known.n_nulls or 0, known.low, Place(uri, columns.weight))


def _check_range(item: Found, name: str, dtype: str) -> None:
    known = item.ranges.get(name)
    if known is not None:
        kind = plain(item.schema.field(name).type)
        for extreme in (known.low, known.high):
            # The readers refuse infinities: they can count them.
            if not (isinstance(extreme, float) and math.isinf(extreme)):
                check_value(extreme, kind, dtype, Place(item.uri, name))


def _check_not_all_null(found: Sequence[Found], name: str) -> None:
    ranges = [item.ranges.get(name) for item in found]
    if all(known is not None and known.n_nulls == known.n_rows for known in ranges):
        raise DataError(
            f'column {name!r} is null in every row, so it has no mean for source.nulls = "mean". '
            "Leave it out of source.columns."
        )


def _check_no_nulls(uri: str, found: Sequence[Found], features: Sequence[str]) -> None:
    problems = []
    for name in features:
        counts = [item.ranges[name].n_nulls or 0 for item in found if name in item.ranges]
        if sum(counts):
            problems.append(f"column {name!r} holds {counted(sum(counts), 'null')}")
    if problems:
        raise nulls_refused(f"{uri}: {', '.join(problems)}")
