"""One column as Arrow has it -> float32 or float64 numbers that mean exactly the same, or a DataError."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kmeans_dask.arrow import numpy_of
from kmeans_dask.errors import DataError
from pipeline.source.columns import plain

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# From here on a float64 rounds to infinity as float32.
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103
_EXACT = {"float32": 2**24, "float64": 2**53}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, for messages; rows are counted from the file's first."""

    uri: str
    column: str
    rows: str = ""

    def __str__(self) -> str:
        return f"{self.uri}: column {self.column!r}{self.rows}"


def as_floats(values: pa.ChunkedArray, dtype: str, place: Place) -> FloatArray:
    """Return the values as stored for floats, else as float64; NaN where null.

    Refused are infinities, whole numbers and decimals that `dtype` does not keep exactly, and values that it
    cannot hold.
    """
    kind = plain(values.type)
    if pa.types.is_dictionary(values.type):
        values = values.cast(kind)
    if pa.types.is_decimal(kind):
        return _decimals(values, dtype, place)
    if pa.types.is_integer(kind):
        limits = pc.min_max(values).as_py()
        check_value(limits["min"], kind, dtype, place)
        check_value(limits["max"], kind, dtype, place)
        return _numpy(values if values.null_count else values.cast(pa.float64()))
    floats = _numpy(values.cast(pa.float32()) if pa.types.is_float16(kind) else values)
    _check_floats(floats, dtype, place)
    return floats


def check_value(value: Any, type_: pa.DataType, dtype: str, place: Place) -> None:
    """Refuse one value of a column of this type that `dtype` cannot stand for; None passes."""
    if value is None:
        return
    if pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        digits = int(value.scaleb(type_.scale)) if isinstance(value, Decimal) else value
        if abs(digits) > _EXACT[dtype]:
            raise _inexact(value, dtype, place)
    elif dtype == "float32" and abs(value) >= FLOAT32_OVERFLOW:
        raise DataError(f'{place} holds {value:.9g}, too large for float32. Set kmeans.dtype = "float64".')


def as_weights(values: pa.ChunkedArray, place: Place) -> npt.NDArray[np.float64]:
    """Return row weights as float64; refused are nulls, NaN, infinities and negative values."""
    weights = as_floats(values, "float64", place).astype(np.float64, copy=False)
    check_weights(int(np.count_nonzero(np.isnan(weights))), weights.min(initial=0.0), place)
    return weights


def check_weights(n_nulls: int, low: Any, place: Place) -> None:
    """Refuse weights by their number of nulls and their lowest value, if that is known."""
    found = counted(n_nulls, "null") if n_nulls else f"{low}" if low is not None and low < 0 else ""
    if found:
        raise DataError(f"{place} holds {found}; a weight must be zero or more. Fill it or filter the rows.")


def check_no_nulls(values: FloatArray, place: Place) -> None:
    """Refuse nulls and NaN, which are NaN here."""
    n_nulls = int(np.count_nonzero(np.isnan(values)))
    if n_nulls:
        raise nulls_refused(f"{place} holds {counted(n_nulls, 'null')} (NaN counts as null)")


def nulls_refused(found: str) -> DataError:
    """Return the error of nulls in features under nulls = "error"."""
    return DataError(
        f'{found}, and source.nulls is "error". Set it to "drop" or "mean", '
        "or leave the column out of source.columns."
    )


def counted(n: int, noun: str) -> str:
    """Return "1 null" or "2 nulls"."""
    return f"{n} {noun}{'s' * (n != 1)}"


def _numpy(values: pa.ChunkedArray) -> FloatArray:
    floats: FloatArray = numpy_of(values)
    return floats


def _check_floats(values: FloatArray, dtype: str, place: Place) -> None:
    if values.size == 0:
        return
    low, high = values.min(), values.max()
    if np.isnan(low):
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    if np.isinf(low) or np.isinf(high):
        count = int(np.count_nonzero(np.isinf(values)))
        raise DataError(
            f"{place} holds {counted(count, 'infinite value')}. "
            "They are always refused: remove or replace them."
        )
    for extreme in (low, high):
        if not np.isnan(extreme):
            check_value(float(extreme), pa.float64(), dtype, place)


def _decimals(values: pa.ChunkedArray, dtype: str, place: Place) -> FloatArray:
    """Return decimals correctly rounded: few enough digits over a power of ten."""
    scale = values.type.scale
    try:
        wide = values.cast(pa.decimal128(38, scale))
    except pa.ArrowInvalid:
        raise _inexact("a decimal of more than 38 digits", dtype, place) from None
    pieces = [_digits(chunk) for chunk in wide.chunks]
    digits = np.concatenate([low for low, _ in pieces]) if pieces else np.empty(0, np.int64)
    small = np.concatenate([fits for _, fits in pieces]) if pieces else np.empty(0, np.bool_)
    valid = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    limit = _EXACT[dtype]
    bad = np.flatnonzero(valid & ~(small & (digits <= limit) & (digits >= -limit)))
    if bad.size:
        raise _inexact(values[int(bad[0])].as_py(), dtype, place)
    digits[~valid] = 0
    power = float(f"1e{abs(scale)}")
    floats = digits.astype(np.float64) / power if scale >= 0 else digits.astype(np.float64) * power
    floats[~valid] = np.nan
    _check_floats(floats, dtype, place)
    return floats


def _digits(chunk: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the lower 64 bits of unscaled decimals, and whether they are the whole number."""
    if len(chunk) == 0:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    limbs = np.frombuffer(chunk.buffers()[1], "<i8").reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk)]
    low, high = limbs[:, 0], limbs[:, 1]
    return low.copy(), high == low >> 63


def _inexact(value: Any, dtype: str, place: Place) -> DataError:
    fix = (
        'Set kmeans.dtype = "float64".'
        if dtype == "float32"
        else "Write the column with fewer digits, or leave it out of source.columns."
    )
    limit = f"2**{24 if dtype == 'float32' else 53}"
    return DataError(f"{place} holds {value}, beyond the range ({limit}) that {dtype} keeps exactly. {fix}")
