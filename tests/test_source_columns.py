"""Columns: which are used, and which are refused."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask.errors import ConfigError, DataError
from pipeline.source import read_ids
from tests.source_files import planned, read, refusal, write

MIXED: dict[str, Any] = {
    "i": pa.array([1, 2], pa.int16()),
    "s": ["a", "b"],
    "f": pa.array([0.5, 1.5], pa.float32()),
    "flag": [True, False],
    "when": [dt.datetime(2013, 1, 1, tzinfo=dt.UTC)] * 2,
    "xs": [[1.0], [2.0]],
    "st": [{"a": 1}, {"a": 2}],
    "d": pa.array([Decimal("1.25"), Decimal("-7.50")], pa.decimal128(9, 2)),
    "u": pa.array([7, 8], pa.uint64()).dictionary_encode(),
    "h": pa.array([0.25, 0.75], pa.float16()),
    "w": [1, 0],
}


def test_default_columns(tmp_path: Path) -> None:
    """Every numeric column that is not boolean, id or weight is a feature, in the schema's order."""
    plan = planned(write(tmp_path / "a.parquet", MIXED), ids=["u"], weight="w")
    assert plan.features == ("i", "f", "d", "h")


def test_values(tmp_path: Path) -> None:
    """Every kind of number becomes the same value as a float; float32 stays float32."""
    plan = planned(write(tmp_path / "a.parquet", MIXED), columns=["u", "d", "h", "f", "i"], weight="w")
    rows = read(plan)
    assert [column.tolist() for column in rows.columns] == [
        [7, 8],
        [1.25, -7.5],
        [0.25, 0.75],
        [0.5, 1.5],
        [1, 2],
    ]
    assert [column.dtype.name for column in rows.columns] == [
        "float64",
        "float64",
        "float32",
        "float32",
        "float64",
    ]
    assert rows.weights is not None
    assert rows.weights.tolist() == [1.0, 0.0]
    assert (rows.first_row, rows.n_source_rows, rows.listed) == (0, 2, None)


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"columns": ["ff"]}, ["source.columns", "'ff'", "Did you mean 'f'?"]),
        ({"ids": ["whenn"]}, ["source.ids", "'when'"]),
        ({"weight": "ww"}, ["source.weight", "'w'"]),
        ({"filter": "ii > 2"}, ["source.filter", "'ii'", "'i'"]),
        ({"filter": "s > 2"}, ["source.filter", "string"]),
        ({"columns": ["f", "i", "f"]}, ["'f' is named twice"]),
        ({"ids": ["s", "s"]}, ["'s' is named twice"]),
        ({"columns": ["s"]}, ["'s' is string, not a number"]),
        ({"columns": ["xs"]}, ["'xs' is list"]),
        ({"columns": ["st"]}, ["'st' is struct"]),
        ({"columns": ["when"]}, ["'when' is timestamp"]),
        ({"columns": ["flag"]}, ["'flag' is bool"]),
        ({"weight": "s"}, ["'s' is string"]),
        ({"columns": ["w"], "weight": "w"}, ["also a feature"]),
    ],
)
def test_bad_columns(tmp_path: Path, keys: dict[str, Any], parts: list[str]) -> None:
    """A column that is missing or cannot be used so is refused at scan."""
    path = write(tmp_path / "a.parquet", MIXED)
    message = refusal(lambda: planned(path, **keys))
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("name", ["cluster", "distance", "size"])
def test_reserved_names(tmp_path: Path, name: str) -> None:
    """Features and ids cannot be named like a column of the results."""
    path = write(tmp_path / "a.parquet", {"x": [1.0], name: [1.0]})
    assert repr(name) in refusal(lambda: planned(path), ConfigError)
    assert repr(name) in refusal(lambda: planned(path, columns=["x"], ids=[name]), ConfigError)
    assert planned(path, columns=["x"]).features == ("x",)


def test_repeated_column(tmp_path: Path) -> None:
    """A column whose name occurs twice in a file cannot be used."""
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0]), pa.array([3.0])], names=["x", "x", "y"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "two columns are named 'x'" in refusal(lambda: planned(tmp_path), DataError)
    assert planned(tmp_path, columns=["y"]).features == ("y",)


def test_no_numbers(tmp_path: Path) -> None:
    """A source without a numeric column is refused."""
    path = write(tmp_path / "a.parquet", {"s": ["a"], "n": pa.nulls(1)})
    assert "no numeric column" in refusal(lambda: planned(path), DataError)


@pytest.mark.parametrize(
    ("other", "keys", "parts"),
    [
        ({"x": [1], "y": [1.0]}, {}, ["'x'", "double", "int64"]),
        ({"y": [1.0]}, {}, ["'x'", "no such column"]),
        ({"x": [1.0], "y": [1.0], "z": [1.0]}, {}, ["'z'", "no such column"]),
        ({"x": [1.0], "s": ["a"]}, {}, ["'y'"]),
        ({"x": [1.0], "y": [1.0]}, {"columns": ["x"], "ids": ["s"]}, ["'s'", "string", "no such column"]),
    ],
)
def test_schemas_disagree(
    tmp_path: Path, other: dict[str, Any], keys: dict[str, Any], parts: list[str]
) -> None:
    """Files that differ in a used column are refused: both are named, with the column and its types."""
    write(tmp_path / "a.parquet", {"x": [1.0], "y": [1.0], "s": ["a"]})
    write(tmp_path / "b.parquet", other)
    message = refusal(lambda: planned(tmp_path, **keys), DataError)
    missing = [part for part in [*parts, "a.parquet", "b.parquet"] if part not in message]
    assert missing == [], message


def test_schemas_may_differ_where_nothing_is_read(tmp_path: Path) -> None:
    """Order, encoding and unused columns do not matter."""
    write(tmp_path / "a.parquet", {"x": [1.0], "y": pa.array(["p"]).dictionary_encode(), "z": [1]})
    write(tmp_path / "b.parquet", {"z": ["?"], "y": ["q"], "x": [2.0]})
    plan = planned(tmp_path, columns=["x"], ids=["y"])
    assert read(plan).columns[0].tolist() == [1.0, 2.0]
    assert [read_ids(plan, part)["y"].to_pylist() for part in plan.parts] == [["p"], ["q"]]
