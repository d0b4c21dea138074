"""A filter's tree, checked against the columns' types: a mask of rows, and a test of row groups."""

import difflib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.filters import tree
from pipeline.filters.grammar import parse
from pipeline.filters.literals import MismatchError, kind, typed
from pipeline.filters.tree import Column, Compare, Either, Every, IsNull, Literal, Node, refusal

_COMPUTE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}
_PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Range:
    """What a footer says of a column in one row group; None: unknown."""

    low: Any
    high: Any
    n_nulls: int | None
    n_rows: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that fits the source's columns. A null, and so a NaN, satisfies no comparison."""

    text: str
    columns: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    root: Node

    def mask(self, values: Mapping[str, pa.ChunkedArray]) -> npt.NDArray[np.bool_]:
        """Return which rows it keeps."""
        kept = pc.fill_null(_mask(self.root, {name: _plain(values[name]) for name in self.columns}), False)
        return np.asarray(kept.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def may_keep(self, ranges: Mapping[str, Range]) -> bool:
        """Return False only if no row of a row group with these ranges is kept."""
        return _may_keep(self.root, ranges, dict(zip(self.columns, self.types, strict=True)))


def bind(text: str, types: Mapping[str, pa.DataType]) -> Filter:
    """Return the filter of `text` over columns of these types; ConfigError if they do not fit."""
    root = parse(text)
    names = tuple(dict.fromkeys(column.name for column in tree.columns(root)))
    for column in tree.columns(root):
        if column.name not in types:
            close = difflib.get_close_matches(column.name, types, n=1)
            hint = f"The nearest is {close[0]!r}" if close else f"The columns are {', '.join(types)}"
            raise refusal(text, column.at, f"there is no column {column.name!r}. {hint}")
    bound = Filter(text, names, tuple(types[name] for name in names), _bound(root, text, types))
    try:
        bound.mask({name: pa.chunked_array([], types[name]) for name in names})
    except pa.ArrowException as error:
        raise refusal(text, 0, f"it does not fit the columns ({error})") from None
    return bound


def _bound(node: Node, text: str, types: Mapping[str, pa.DataType]) -> Node:
    match node:
        case Every(parts) | Either(parts):
            return type(node)(tuple(_bound(part, text, types) for part in parts))
        case Compare(left, _, Column() as right):
            kinds = kind(types[left.name]), kind(types[right.name])
            if kinds[0] != kinds[1] or not kinds[0]:
                what = f"{left.name!r} ({types[left.name]}) and {right.name!r} ({types[right.name]})"
                raise refusal(text, left.at, f"columns {what} cannot be compared")
            return node
        case Compare(left, op, Literal() as right):
            try:
                op, value = typed(right.value, op, types[left.name])
            except MismatchError as error:
                problem = f"column {left.name!r} holds {types[left.name]}, and {error}"
                raise refusal(text, left.at, problem) from None
            return Compare(left, op, replace(right, value=value))
    return node


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values that compare: dictionaries decoded, NaN as null."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return values


def _mask(node: Node, values: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    match node:
        case Every(parts):
            return reduce(pc.and_kleene, (_mask(part, values) for part in parts))
        case Either(parts):
            return reduce(pc.or_kleene, (_mask(part, values) for part in parts))
        case IsNull(column, negated):
            return (pc.is_valid if negated else pc.is_null)(values[column.name])
        case Compare(left, op, Column(name)):
            return _COMPUTE[op](values[left.name], values[name])
        case Compare(left, op, Literal(value)):
            return _COMPUTE[op](values[left.name], _scalar(value, values[left.name].type))


def _scalar(value: Any, type_: pa.DataType) -> pa.Scalar:
    # Small whole numbers and decimals may be compared to larger ones than they can hold.
    wider = pa.types.is_decimal(type_) or (pa.types.is_integer(type_) and not pa.types.is_uint64(type_))
    return pa.scalar(value) if wider else pa.scalar(value, type_)


def _may_keep(node: Node, ranges: Mapping[str, Range], types: Mapping[str, pa.DataType]) -> bool:
    match node:
        case Every(parts):
            return all(_may_keep(part, ranges, types) for part in parts)
        case Either(parts):
            return any(_may_keep(part, ranges, types) for part in parts)
        case IsNull(column, negated):
            found = ranges.get(column.name)
            if found is None or found.n_nulls is None:
                return True
            # NaN counts as null here, but not in a footer.
            return found.n_nulls < found.n_rows if negated else _has_nulls(found, types[column.name])
        case Compare(left, op, Literal(value)):
            return _may_hold(op, value, ranges.get(left.name))
    return True


def _has_nulls(found: Range, type_: pa.DataType) -> bool:
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(found.n_nulls) or pa.types.is_floating(plain)


def _may_hold(op: str, value: Any, found: Range | None) -> bool:
    if found is None:
        return True
    if found.n_nulls is not None and found.n_nulls == found.n_rows:
        return False
    if found.low is None or found.high is None:
        return True
    try:
        if op == "==":
            return bool(found.low <= value <= found.high)
        if op == "!=":
            return not found.low == found.high == value
        return _PYTHON[op](found.low if op in ("<", "<=") else found.high, value)
    except TypeError:  # a footer whose values are of another kind tells nothing
        return True
