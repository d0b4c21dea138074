"""NumPy arrays as Arrow has them and back: pyarrow's own conversions are the oracle."""

import numpy as np
import pyarrow as pa
import pytest

from kmeans_dask.arrow import arrow_of, numpy_of

TYPES = ("int8", "uint16", "int32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("dtype", [*TYPES, "bool"])
def test_numbers_become_what_pyarrow_makes_of_them(dtype: str, n: int) -> None:
    """Values and nulls are pyarrow's, also of a strided array."""
    rng = np.random.default_rng(n)
    values = rng.integers(0, 100, (n, 2)).astype(dtype)[:, 1]
    for missing in (None, rng.random(n) < 0.5, np.zeros(n, np.bool_)):
        found, expected = arrow_of(values, missing), pa.array(values, mask=missing)
        found.validate(full=True)
        assert found.equals(expected)
        assert found.null_count == expected.null_count


@pytest.mark.parametrize("dtype", TYPES)
def test_columns_come_back_as_pyarrow_gives_them(dtype: str) -> None:
    """Chunks, offsets and nulls: the values and, without nulls, the type of `to_numpy`."""
    values = np.arange(40).astype(dtype)
    plain = pa.array(values)
    nulls = pa.array(values, mask=values % 3 == 0)
    columns = {
        "one chunk": pa.chunked_array([plain]),
        "a slice": pa.chunked_array([plain.slice(3, 11)]),
        "nulls in a slice": pa.chunked_array([nulls.slice(5, 20)]),
        "chunks, some with nulls": pa.chunked_array([plain.slice(9), plain.slice(0, 0), nulls.slice(1, 17)]),
        "no rows": pa.chunked_array([], plain.type),
    }
    for name, column in columns.items():
        expected = column.to_numpy()
        if column.null_count:
            expected = column.cast(pa.float64()).to_numpy() if dtype[0] != "f" else expected
        found = numpy_of(column)
        assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"), name
        assert found.dtype == expected.dtype, name
        assert found.flags.c_contiguous, name
