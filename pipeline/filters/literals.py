"""A value as written -> the value a column of some type is compared to, or why it cannot be."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBER = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


class MismatchError(ValueError):
    """A value that a column's type cannot be compared to; the message says why."""


def kind(type_: pa.DataType) -> str:
    """Return what a column's values are compared as; "" if they cannot be."""
    if pa.types.is_dictionary(type_):
        return kind(type_.value_type)
    if any(test(type_) for test in _TEXT):
        return "text"
    if any(test(type_) for test in _NUMBER):
        return "numbers"
    if pa.types.is_boolean(type_):
        return "truth values"
    if pa.types.is_date(type_):
        return "dates"
    if pa.types.is_timestamp(type_):
        return "times" if type_.tz is None else "times with a zone"
    return ""


def typed(value: Any, op: str, type_: pa.DataType) -> tuple[str, Any]:
    """Return the comparison with `value` in the column's own type, so that it is exact.

    A whole-number column is compared to the next whole number, a float32 column to the nearest float32.
    """
    if pa.types.is_dictionary(type_):
        return typed(value, op, type_.value_type)
    match kind(type_), value:
        case ("text", str()) | ("truth values", bool()):
            return op, value
        case ("numbers", int() | float()) if not isinstance(value, bool):
            return _number(value, op, type_)
        case "dates", str():
            return op, _parsed(value, date, "2013-06-01")
        case "times", str():
            return op, _naive(value)
        case "times with a zone", str():
            time: datetime = _parsed(value, datetime, "2013-06-01T12:00:00+00:00")
            return op, time if time.tzinfo else time.replace(tzinfo=UTC)
    raise MismatchError(f"it is compared to {value!r}")


def _number(value: float, op: str, type_: pa.DataType) -> tuple[str, Any]:
    if pa.types.is_decimal(type_):
        return op, Decimal(repr(value))
    if pa.types.is_floating(type_):
        return op, _float(value, single=not pa.types.is_float64(type_))
    if value != math.floor(value):
        if op in ("==", "!="):
            raise MismatchError(f"whole numbers never equal {value!r}")
        value = math.ceil(value) if op in ("<", ">=") else math.floor(value)
    low, high = (0, 2**64 - 1) if pa.types.is_uint64(type_) else (-(2**63), 2**63 - 1)
    if not low <= value <= high:
        raise MismatchError(f"{value!r} is outside its range")
    return op, int(value)


def _float(value: float, *, single: bool) -> float:
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(value)) if single else float(value)
    except OverflowError:
        raise MismatchError("the number is outside its range") from None


def _parsed(text: str, parser: Any, example: str) -> Any:
    try:
        return parser.fromisoformat(text)
    except ValueError:
        raise MismatchError(f"it is compared to {text!r}, which is not written like '{example}'") from None


def _naive(text: str) -> datetime:
    time: datetime = _parsed(text, datetime, "2013-06-01T12:00:00")
    if time.tzinfo is not None:
        raise MismatchError(f"it has no time zone, and {text!r} has one")
    return time
