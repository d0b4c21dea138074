"""Values: which numbers are read, and which are refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kmeans_dask.errors import DataError
from tests.source_files import NAN, planned, read, refusal, write

BAD: list[tuple[Any, str, list[str]]] = [
    (pa.array([1.0, None, None]), "float32", ["2 nulls", "source.nulls"]),
    (pa.array([1, None], pa.int32()), "float32", ["1 null", "source.nulls"]),
    (pa.array([1.0, NAN]), "float32", ["1 null ", "NaN"]),
    (pa.array([1.0, NAN], pa.float16()), "float32", ["1 null ", "NaN"]),
    (pa.array([1.0, float("inf"), 2.0]), "float64", ["1 infinite value"]),
    (pa.array([1.0, -float("inf")], pa.float32()), "float32", ["1 infinite value"]),
    (pa.array([1.0, float("inf")], pa.float16()), "float32", ["1 infinite value"]),
    (pa.array([1.0, 3.4028236e38]), "float32", ["3.4028236e+38", 'kmeans.dtype = "float64"']),
    (pa.array([1, 2**24 + 1]), "float32", ["16777217", 'kmeans.dtype = "float64"']),
    (pa.array([1, -(2**24) - 1], pa.int32()), "float32", ["-16777217"]),
    (pa.array([1, 2**24 + 1], pa.uint32()), "float32", ["16777217"]),
    (pa.array([1, 2**53 + 1]), "float64", ["9007199254740993", "2**53"]),
    (pa.array([1, -(2**63)]), "float64", ["-9223372036854775808"]),
    (pa.array([1, 2**64 - 1], pa.uint64()), "float64", ["18446744073709551615"]),
    (pa.array([Decimal("167772.17")], pa.decimal128(12, 2)), "float32", ["167772.17"]),
    (pa.array([Decimal(2**53 + 1)], pa.decimal128(30, 0)), "float64", ["9007199254740993"]),
    (pa.array([Decimal(10**30)], pa.decimal128(38, 0)), "float64", ["1000000000000"]),
    (pa.array([Decimal(10**50)], pa.decimal256(60, 0)), "float64", ["float64 keeps exactly"]),
]


BAD_NAMES = [f"{i}-{values.type}-{parts[0]}" for i, (values, _, parts) in enumerate(BAD)]


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(("values", "dtype", "parts"), BAD, ids=BAD_NAMES)
def test_bad_values(tmp_path: Path, values: pa.Array, dtype: str, parts: list[str], statistics: bool) -> None:
    """Nulls, infinities and values the dtype cannot hold are named with file, column and value or count."""
    path = write(tmp_path / "a.parquet", {"x": values}, write_statistics=statistics)
    message = refusal(lambda: read(planned(path, dtype)), DataError)
    assert [part for part in [str(path), "'x'", *parts] if part not in message] == [], message


def test_footers_alone_tell(tmp_path: Path) -> None:
    """Nulls and values out of range are refused before any row is read where footers have statistics."""
    for values, dtype, _ in BAD[:2] + BAD[7:14]:
        path = write(tmp_path / "a.parquet", {"x": values})
        assert "'x'" in refusal(lambda path=path, dtype=dtype: planned(path, dtype), DataError)  # type: ignore[misc]


def test_bad_values_may_be_filtered_out(tmp_path: Path) -> None:
    """Only rows that pass the filter are judged."""
    columns = {"x": [1.0, None, float("inf"), 1e300], "keep": [1, 0, 0, 0]}
    path = write(tmp_path / "a.parquet", columns)
    rows = read(planned(path, columns=["x"], filter="keep == 1"))
    assert rows.columns[0].tolist() == [1.0]
    assert rows.listed is not None
    assert rows.listed.tolist() == [0]


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("weights", "problem"),
    [([1.0, None], "1 null"), ([1.0, -0.5], "-0.5"), ([1.0, NAN], "1 null"), ([1, float("inf")], "infinit")],
)
def test_bad_weights(tmp_path: Path, weights: list[Any], problem: str, statistics: bool) -> None:
    """A weight that is null, negative or not finite is refused."""
    path = write(tmp_path / "a.parquet", {"x": [1.0, 2.0], "w": weights}, write_statistics=statistics)
    message = refusal(lambda: read(planned(path, weight="w")), DataError)
    assert "'w'" in message
    assert problem in message


def test_boundaries_are_accepted(tmp_path: Path) -> None:
    """The last values that each dtype holds exactly are read as they are."""
    exact = {
        "i": pa.array([2**24, -(2**24)]),
        "d": pa.array([Decimal("167772.16"), Decimal("-0.01")], pa.decimal128(20, 2)),
        "f": pa.array([3.4028235e38, -3.4028235e38]),
        "tiny": pa.array([Decimal("0.0000001"), None], pa.decimal256(50, 7)),
    }
    plan = planned(write(tmp_path / "a.parquet", exact), nulls="drop")
    i, d, f, tiny = read(plan).columns
    assert i.tolist() == [2**24, -(2**24)]
    assert d.tolist() == [167772.16, -0.01]
    assert np.isfinite(f.astype(np.float32)).all()
    assert tiny[0] == 1e-7
    assert np.isnan(tiny[1])
    wide = write(tmp_path / "b.parquet", {"i": pa.array([2**53, -(2**53)])})
    assert read(planned(wide, "float64")).columns[0].tolist() == [2.0**53, -(2.0**53)]


def test_nulls_stay_for_the_caller(tmp_path: Path) -> None:
    """Under "drop" and "mean" a null or NaN is NaN, in every type."""
    columns = {
        "f": [1.0, None, NAN],
        "g": pa.array([1.0, None, NAN], pa.float32()),
        "i": pa.array([1, None, 2**24], pa.int64()),
        "d": pa.array([Decimal("0.5"), None, Decimal("1.5")], pa.decimal128(5, 1)),
        "e": pa.array([1, None, 1]).dictionary_encode(),
    }
    path = write(tmp_path / "a.parquet", columns)
    for nulls in ("drop", "mean"):
        found = [column.tolist() for column in read(planned(path, nulls=nulls)).columns]
        np.testing.assert_array_equal(
            found, [[1, NAN, NAN], [1, NAN, NAN], [1, NAN, 2**24], [0.5, NAN, 1.5], [1, NAN, 1]]
        )


def test_no_mean_of_nothing(tmp_path: Path) -> None:
    """A column that is null in every row has no mean; under "drop" the caller sees that no row is left."""
    write(tmp_path / "a.parquet", {"x": [1.0], "y": pa.nulls(1, pa.float64())})
    write(tmp_path / "b.parquet", {"x": [1.0], "y": pa.nulls(1, pa.float64())})
    assert "'y' is null in every row" in refusal(lambda: planned(tmp_path, nulls="mean"), DataError)
    assert planned(tmp_path, nulls="drop").n_rows == 2


def test_no_rows(tmp_path: Path) -> None:
    """A source without rows is refused, and so is a filter that footers show to keep none."""
    empty = write(tmp_path / "empty.parquet", {"x": pa.array([], pa.float64())})
    assert "no rows" in refusal(lambda: planned(empty), DataError)
    write(tmp_path / "full.parquet", {"x": [1.0]})
    assert "no row passes" in refusal(lambda: planned(tmp_path, filter="x > 1"), DataError)


def test_columns_that_cannot_be_compared(tmp_path: Path) -> None:
    """A filter over two columns whose values no common type holds is told, not a traceback."""
    columns = {"x": [1.0, 2.0], "big": [2**53 + 1, 0]}
    path = write(tmp_path / "a.parquet", columns)
    message = refusal(lambda: read(planned(path, columns=["x"], filter="big > x")), DataError)
    assert "source.filter" in message
