"""NumPy arrays to Arrow arrays and back, without pandas.

pyarrow's own conversions import pandas wherever it is installed, a third of a second that a short job would notice.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def arrow_of(values: Array, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers or bools, (n,), as Arrow has them, null where `missing`; contiguous numbers are not copied."""
    validity = None
    if missing is not None and missing.any():
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    held = (
        np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    )
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), [validity, pa.py_buffer(held)]
    )


def numpy_of(values: pa.ChunkedArray | pa.Array) -> Array:
    """Return numbers, (n,); with nulls floats that are NaN there, float64 unless the values are smaller floats.

    Read-only where the values are one chunk without nulls.
    """
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    found = [_numpy_of_chunk(chunk, has_nulls=values.null_count > 0) for chunk in chunks]
    if len(found) == 1:
        return found[0]
    return np.concatenate(found) if found else np.empty(0, values.type.to_pandas_dtype())


def _numpy_of_chunk(chunk: pa.Array, *, has_nulls: bool) -> Array:
    validity, data = chunk.buffers()
    dtype = np.dtype(chunk.type.to_pandas_dtype())
    values: Array = np.empty(0, dtype)
    if len(chunk):  # else there may be no buffer
        values = np.frombuffer(data, dtype, len(chunk), chunk.offset * dtype.itemsize)
    if not has_nulls:
        return values
    floats = values.astype(dtype if dtype.kind == "f" else np.float64)
    if chunk.null_count:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        floats[bits[chunk.offset : chunk.offset + len(chunk)] == 0] = np.nan
    return floats
