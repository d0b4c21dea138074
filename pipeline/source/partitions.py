"""Directories named key=value below the source's directory -> partition columns."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from kmeans_dask.errors import DataError
from pipeline.source.listing import Listed
from pipeline.source.plan import PartitionValue

_NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")  # as written again: 007 is a name, not the number 7


def partition_columns(
    listed: Sequence[Listed],
) -> tuple[dict[str, pa.DataType], list[tuple[PartitionValue, ...]]]:
    """Return each partition column's type, and each file's values: whole numbers if all are, else strings."""
    found = [_pairs(file.below) for file in listed]
    keys = list(found[0])
    for file, pairs in zip(listed, found, strict=True):
        if list(pairs) != keys:
            raise DataError(
                f"partition directories disagree: {listed[0].uri} has {keys}, {file.uri} has {list(pairs)}. "
                "Lay the files out alike."
            )
    types = {key: _type([pairs[key] for pairs in found]) for key in keys}
    rows = [tuple(_value(pairs[key], types[key]) for key in keys) for pairs in found]
    return types, rows


def _pairs(below: str) -> dict[str, str]:
    parts = [directory.partition("=") for directory in below.split("/")[:-1]]
    return {unquote(key): unquote(value) for key, equals, value in parts if key and equals}


def _type(values: Sequence[str]) -> pa.DataType:
    return pa.int64() if all(v == _NULL or _is_int64(v) for v in values) else pa.string()


def _is_int64(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def _value(text: str, type_: pa.DataType) -> PartitionValue:
    if text == _NULL:
        return None
    return int(text) if pa.types.is_integer(type_) else text
