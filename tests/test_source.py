"""The source: what a plan holds, what reading gives, and what either refuses."""

import datetime as dt
import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask.errors import ConfigError, DataError, KMeansError
from pipeline.config import SourceConfig
from pipeline.source import Plan, Rows, read_ids, read_rows, scan

NAN = float("nan")


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """Write a Parquet file with page checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, write_page_checksum=True, **options)
    return path


def planned(path: Path | str | Sequence[str], dtype: str = "float32", **keys: Any) -> Plan:
    """Scan a source."""
    return scan(
        SourceConfig.model_validate({"path": path if isinstance(path, list) else str(path), **keys}), dtype
    )


def read(plan: Plan) -> Rows:
    """Read the whole plan."""
    return read_rows(plan, plan.row_groups)


def positions(rows: Rows) -> list[int]:
    """Return the row ids of what was read."""
    listed = np.arange(rows.n_source_rows) if rows.listed is None else rows.listed
    return [int(offset) + rows.first_row for offset in listed]


def refusal(act: Callable[[], Any], kind: type[KMeansError] = KMeansError) -> str:
    """Return the error of something that must be refused."""
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


def names(plan: Plan) -> list[str]:
    """Return the files' names in order."""
    return [Path(file.uri).name for file in plan.files]


# Where files are ----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a directory with data, hidden and foreign files."""
    for i, name in enumerate(["b.parquet", "a.parquet", "sub/c.parquet", "sub/deep/d.parquet", "_x.parquet"]):
        write(tmp_path / name, {"x": [float(i)]})
    write(tmp_path / "_tmp/e.parquet", {"x": [9.0]})
    write(tmp_path / "odd", {"x": [5.0]})
    (tmp_path / ".hidden.parquet").write_text("no data")
    (tmp_path / "README.md").write_text("no data")
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([""], ["a", "b", "c", "d"]),
        (["sub"], ["c", "d"]),
        (["*.parquet"], ["a", "b"]),
        (["[!b]*.parquet"], ["a"]),
        (["?.parquet"], ["a", "b"]),
        (["**/*.parquet"], ["a", "b", "c", "d"]),
        (["**"], ["a", "b", "c", "d"]),
        (["s*/deep/*"], ["d"]),
        (["s*"], ["c", "d"]),
        (["_*.parquet"], ["_x"]),
        (["odd"], ["odd"]),
        (["sub", "b.parquet", "a.parquet"], ["c", "d", "b", "a"]),
    ],
)
def test_paths(tree: Path, paths: list[str], expected: list[str]) -> None:
    """Files, directories, globs and lists of them give files in an explicit order."""
    for prefix in (f"{tree}/", f"file://{tree}/"):
        plan = planned([prefix + path for path in paths])
        assert [Path(file.uri).stem for file in plan.files] == expected
        assert [file.first_row for file in plan.files] == list(range(len(expected)))


def test_odd_directory_names(tmp_path: Path) -> None:
    """Brackets, spaces and percent signs in a directory are found as they are, and escaped in a pattern."""
    odd = tmp_path / "a[1] %20"
    write(odd / "x.parquet", {"x": [1.0]})
    assert names(planned(odd / "x.parquet")) == names(planned(odd)) == ["x.parquet"]
    assert names(planned(f"{tmp_path}/a[[]1] %20/*.parquet")) == ["x.parquet"]
    assert names(planned(f"{tmp_path}/a[[]1] %20/x.parquet")) == ["x.parquet"]
    assert names(planned((odd / "x.parquet").as_uri())) == ["x.parquet"]


def test_nothing_there(tmp_path: Path) -> None:
    """A missing path, an empty directory, a pattern without a match and a file listed twice are refused."""
    (tmp_path / "empty").mkdir()
    for path in ("absent", "absent.parquet", "empty", "*.parquet", "absent/*.parquet"):
        assert f"{tmp_path}/{path}" in refusal(lambda path=path: planned(tmp_path / path), DataError)  # type: ignore[misc]
    write(tmp_path / "a.parquet", {"x": [1.0]})
    twice = [f"{tmp_path}/a.parquet", f"{tmp_path}/*.parquet"]
    assert "listed twice" in refusal(lambda: planned(twice), DataError)


def footer_size(data: bytes) -> int:
    """Return the length of a file's footer, as its last bytes tell."""
    return int.from_bytes(data[-8:-4], "little")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda data: b"", "an empty file"),
        (lambda data: b"a,b\n1,2\n" * 9, "not a Parquet file"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (
            lambda data: data[: -8 - footer_size(data)] + bytes(60) + data[60 - 8 - footer_size(data) :],
            "footer",
        ),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "is damaged"),
        (lambda data: b"PARE" + data[4:-4] + b"PARE", "encrypted"),
    ],
)
def test_not_parquet(tmp_path: Path, content: Callable[[bytes], bytes], problem: str) -> None:
    """A file that is not Parquet, or not all of it, is named with what is wrong."""
    write(tmp_path / "a.parquet", {"x": [1.0, 2.0]})
    bad = write(tmp_path / "b.parquet", {"x": [1.0, 2.0]})
    bad.write_bytes(content(bad.read_bytes()))
    message = refusal(lambda: planned(tmp_path), DataError)
    assert str(bad) in message
    assert problem in message


# Which columns are used ---------------------------------------------------------------------------------

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


# What values are refused --------------------------------------------------------------------------------

BAD: list[tuple[Any, str, list[str]]] = [
    (pa.array([1.0, None, None]), "float32", ["2 nulls", "source.nulls"]),
    (pa.array([1, None], pa.int32()), "float32", ["1 null", "source.nulls"]),
    (pa.array([1.0, NAN]), "float32", ["1 null ", "NaN"]),
    (pa.array([1.0, NAN], pa.float16()), "float32", ["1 null ", "NaN"]),
    (pa.array([1.0, float("inf"), 2.0]), "float64", ["infinit"]),
    (pa.array([1.0, -float("inf")], pa.float32()), "float32", ["infinit"]),
    (pa.array([1.0, float("inf")], pa.float16()), "float32", ["infinit"]),
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
    for values, dtype, _ in BAD[:2] + BAD[4:6] + BAD[7:14]:
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


# Row groups, parts and the filter -----------------------------------------------------------------------


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """Make three files, the second without rows, of row groups of 4 rows with one year each."""
    for name, start, n in (("a", 0, 10), ("b", 0, 0), ("c", 10, 9)):
        x = np.arange(start, start + n, dtype=np.float64)
        columns = {"x": x, "year": pa.array(2010 + x // 4, pa.int32()), "id": [f"r{int(v)}" for v in x]}
        write(
            tmp_path / f"{name}.parquet",
            {**columns, "id": pa.array(columns["id"], pa.string())},
            row_group_size=4,
        )
    return tmp_path


def test_plan(years: Path) -> None:
    """A plan lists row groups with their row ids, parts by file, and sizes."""
    plan = planned(years, columns=["x"], ids=["id"])
    assert [(g.file, g.index, g.first_row, g.n_rows) for g in plan.row_groups] == [
        (0, 0, 0, 4),
        (0, 1, 4, 4),
        (0, 2, 8, 2),
        (2, 0, 10, 4),
        (2, 1, 14, 4),
        (2, 2, 18, 1),
    ]
    assert [(p.file, p.first_row, p.n_rows, len(p.row_groups)) for p in plan.parts] == [
        (0, 0, 10, 3),
        (2, 10, 9, 3),
    ]
    assert [(f.n_rows, f.first_row) for f in plan.files] == [(10, 0), (0, 10), (9, 10)]
    assert plan.n_rows == plan.n_source_rows == 19
    assert 0 < plan.n_bytes < sum(file.size for file in plan.files)
    assert all(group.n_bytes > 0 for group in plan.row_groups)
    assert plan.head(9) == plan.row_groups[:3]
    assert "FileMetaData" not in repr(plan)


def test_plan_travels(years: Path) -> None:
    """A plan pickles; narrowed, it carries only the footers of the files to be read."""
    plan = planned(years, columns=["x"], filter="year >= 2011")
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    narrow = pickle.loads(pickle.dumps(plan.narrowed(plan.row_groups[-2:])))
    assert [file.metadata is None for file in narrow.files] == [True, True, False]
    assert read_rows(narrow, narrow.row_groups).columns[0].tolist() == [14.0, 15.0, 16.0, 17.0, 18.0]


def test_filter_prunes_row_groups_but_not_parts(years: Path) -> None:
    """Row groups without a passing row are not read; parts keep their rows, and vanish if all are pruned."""
    every = planned(years, columns=["x"])
    some = planned(years, columns=["x"], filter="year == 2012 or year == 2013")
    assert [g.first_row for g in some.row_groups] == [8, 10, 14]
    assert [(p.first_row, p.n_rows) for p in some.parts] == [(p.first_row, p.n_rows) for p in every.parts]
    rows = read(some)
    assert (rows.first_row, rows.n_source_rows) == (8, 10)
    assert rows.listed is not None
    assert rows.listed.dtype == np.uint32
    assert (rows.listed + 8).tolist() == rows.columns[0].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    late = planned(years, columns=["x"], filter="year >= 2013")
    assert [p.first_row for p in late.parts] == [10]
    assert late.head(8) == ()
    assert (late.n_rows, late.n_source_rows) == (9, 19)


def test_gaps_between_row_groups_are_not_listed(years: Path) -> None:
    """Rows of pruned row groups between two that are read are part of the range, but not listed."""
    rows = read(planned(years, columns=["x"], filter="year == 2010 or year == 2014"))
    assert rows.n_source_rows == 19
    assert rows.listed is not None
    assert rows.listed.tolist() == [0, 1, 2, 3, 16, 17, 18]
    assert rows.columns[0].tolist() == [0, 1, 2, 3, 16, 17, 18]


def test_without_statistics_the_same_rows_pass(tmp_path: Path) -> None:
    """Pruning is an optimisation: the rows that pass do not depend on statistics."""
    found = []
    for statistics in (True, False):
        columns = {"x": [float(i) for i in range(12)], "k": [i // 3 for i in range(12)]}
        path = write(tmp_path / "a.parquet", columns, row_group_size=3, write_statistics=statistics)
        plan = planned(path, columns=["x"], filter="k == 2")
        rows = read(plan)
        found.append((positions(rows), rows.columns[0].tolist()))
        assert len(plan.row_groups) == (1 if statistics else 4)
    assert found[0] == found[1]


def test_large_row_groups_are_parts_of_their_own(tmp_path: Path) -> None:
    """A part joins row groups up to 2**20 rows; a larger row group is one part."""
    sizes = [2**20 + 1, 2**19, 2**19, 1]
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("x", pa.float32())])) as writer:
        for size in sizes:
            writer.write_table(pa.table({"x": np.zeros(size, np.float32)}), row_group_size=2**21)
    assert [part.n_rows for part in planned(tmp_path).parts] == [2**20 + 1, 2**20, 1]


def test_empty_row_groups_hold_no_place(tmp_path: Path) -> None:
    """A row group without rows is neither planned nor read."""
    table = pa.table({"x": [1.0, 2.0]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for piece in (table, table.slice(0, 0), table):
            writer.write_table(piece)
    plan = planned(tmp_path)
    assert [group.first_row for group in plan.row_groups] == [0, 2]
    assert read(plan).columns[0].tolist() == [1, 2, 1, 2]


def test_partitions(tmp_path: Path) -> None:
    """Directories key=value are columns for ids and the filter, whole numbers if all are, never features."""
    for year, place in ((2012, "a%20b"), (2013, "c"), (2013, "__HIVE_DEFAULT_PARTITION__")):
        write(tmp_path / f"year={year}" / f"place={place}" / "x.parquet", {"x": [1.0, 2.0], "year": [0, 0]})
    plan = planned(tmp_path, ids=["year", "place"])
    assert plan.features == ("x",)
    ids = pa.concat_tables([read_ids(plan, part) for part in plan.parts])
    assert ids["year"].to_pylist() == [2012, 2012, 2013, 2013, 2013, 2013]
    assert ids["place"].to_pylist() == ["a b", "a b", None, None, "c", "c"]
    assert ids.schema.types == [pa.int64(), pa.string()]
    late = planned(tmp_path, filter="year == 2013 and place is not None")
    assert [group.file for group in late.row_groups] == [2]
    mixed = planned(tmp_path, filter="(year == 2012 and x > 1) or place is None")
    assert read(mixed).listed is not None
    assert read(mixed).columns[0].tolist() == [2.0, 1.0, 2.0]
    assert "partition" in refusal(lambda: planned(tmp_path, columns=["year"]), ConfigError)
    assert planned(f"{tmp_path}/year=*").partitions == (("year", pa.int64()), ("place", pa.string()))
    write(tmp_path / "flat.parquet", {"x": [1.0], "year": [0]})
    assert "partition directories disagree" in refusal(lambda: planned(tmp_path), DataError)


def test_partition_values_that_are_not_all_numbers(tmp_path: Path) -> None:
    """Values written like 007 stay text."""
    for value in ("007", "8"):
        write(tmp_path / f"agent={value}" / "x.parquet", {"x": [1.0]})
    assert planned(tmp_path).partitions == (("agent", pa.string()),)


# Ids ----------------------------------------------------------------------------------------------------


def test_ids_of_listed_rows(years: Path) -> None:
    """Ids are those of the listed rows, in order, whatever was pruned."""
    plan = planned(years, columns=["x"], ids=["id", "x"], filter="year == 2010 or year == 2012")
    first, second = plan.parts
    assert read_ids(plan, first, np.array([1, 3, 9], np.uint32)).to_pydict() == {
        "id": ["r1", "r3", "r9"],
        "x": [1.0, 3.0, 9.0],
    }
    assert read_ids(plan, first)["id"].to_pylist() == ["r0", "r1", "r2", "r3", "r8", "r9"]
    assert read_ids(plan, second, np.array([0, 1]))["id"].to_pylist() == ["r10", "r11"]
    nothing = read_ids(plan, second, np.array([], np.uint32))
    assert (nothing.num_rows, nothing.schema.types) == (0, [pa.string(), pa.float64()])
    assert read_ids(planned(years, columns=["x"]), first).num_columns == 0


def test_id_types_are_kept(tmp_path: Path) -> None:
    """Ids keep their type; a dictionary becomes its values."""
    columns = {
        "x": [1.0, 2.0],
        "s": pa.array(["a", None]).dictionary_encode(),
        "t": pa.array([dt.datetime(2013, 1, 1, tzinfo=dt.UTC)] * 2, pa.timestamp("us", tz="UTC")),
        "b": [True, None],
        "i": pa.array([2**60, 1]),
        "xs": [[1], []],
    }
    plan = planned(write(tmp_path / "a.parquet", columns), columns=["x"], ids=["s", "t", "b", "i", "xs"])
    expected = pa.table({name: columns[name] for name in plan.ids}).set_column(0, "s", pa.array(["a", None]))
    assert read_ids(plan, plan.parts[0]).equals(expected)


# Damage and change --------------------------------------------------------------------------------------


def flip(path: Path, column: int, group: int) -> None:
    """Flip a bit in the middle of a column chunk's last page, leaving size and time as they are."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset
    data[start + chunk.total_compressed_size - 5] ^= 0x10
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_flipped_bit(tmp_path: Path) -> None:
    """A page that fails its checksum is named with file, column and row group, for features and ids."""
    columns = {"x": np.arange(100.0), "y": np.arange(100.0), "s": np.arange(100)}
    path = write(tmp_path / "a.parquet", columns, row_group_size=50, use_dictionary=False, compression="none")
    plan = planned(path, columns=["x", "y"], ids=["s"])
    flip(path, 1, 1)
    message = refusal(lambda: read(plan), DataError)
    for part in (str(path), "'y'", "row group 1"):
        assert part in message
    assert read_rows(plan, plan.row_groups[:1]).columns[1].tolist() == list(range(50))
    flip(path, 2, 0)
    assert "'s'" in refusal(lambda: read_ids(plan, plan.parts[0]), DataError)


def test_undecodable_page(tmp_path: Path) -> None:
    """A page without checksum that cannot be decompressed is named as well."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(5000.0)}), path, compression="zstd", use_dictionary=False)
    plan = planned(path)
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(1900)
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    message = refusal(lambda: read(plan), DataError)
    assert "'x' in row group 0 is damaged" in message


def test_changed_file(tmp_path: Path) -> None:
    """A file that is replaced or removed after the plan is an error, never other rows."""
    path = write(tmp_path / "a.parquet", {"x": [1.0], "i": [1]})
    plan = planned(path, columns=["x"], ids=["i"])
    write(path, {"x": [2.0], "i": [2]})
    assert "changed" in refusal(lambda: read(plan), DataError)
    assert "changed" in refusal(lambda: read_ids(plan, plan.parts[0]), DataError)
    path.unlink()
    assert str(path) in refusal(lambda: read(plan), DataError)


# Properties ---------------------------------------------------------------------------------------------

CELLS = st.lists(st.none() | st.integers(-50, 50), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(cells=CELLS, data=st.data())
def test_any_grouping_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, cells: list[int | None], data: st.DataObject
) -> None:
    """Rows read by any grouping of row groups, over any files, are the table's in order; so are the ids."""
    folder = tmp_path_factory.mktemp("source")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(cells)), max_size=3)) | {0, len(cells)})
    size = data.draw(st.integers(1, 7))
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        values = cells[start:stop]
        columns = {
            "x": pa.array(values, pa.int32()),
            "f": pa.array(values, pa.float64()),
            "id": range(start, stop),
        }
        write(folder / f"{i}.parquet", {**columns, "id": pa.array(columns["id"])}, row_group_size=size)
    condition = data.draw(st.sampled_from([None, "x > 0", "x is None", "id > 10 and not (x < -20)"]))
    expected = [
        (i, NAN if x is None else x)
        for i, x in enumerate(cells)
        if condition is None
        or (condition == "x > 0" and x is not None and x > 0)
        or (condition == "x is None" and x is None)
        or (condition.startswith("id") and i > 10 and x is not None and x >= -20)
    ]
    keys = {"columns": ["x", "f"], "ids": ["id"], "nulls": "drop", "filter": condition}
    try:
        plan = planned(folder, **keys)
    except DataError:
        assert not expected
        return
    found: list[tuple[int, float]] = []
    at = 0
    while at < len(plan.row_groups):
        n = data.draw(st.integers(1, len(plan.row_groups) - at))
        rows = read_rows(plan, plan.row_groups[at : at + n])
        at += n
        np.testing.assert_array_equal(*rows.columns)
        found += zip(positions(rows), rows.columns[0].tolist(), strict=True)
    np.testing.assert_array_equal(np.array(found).reshape(-1, 2), np.array(expected).reshape(-1, 2))
    ids = np.array([i for i, _ in expected], np.int64)
    for part in plan.parts:
        inside = ids[(ids >= part.first_row) & (ids < part.first_row + part.n_rows)]
        assert read_ids(plan, part, inside - part.first_row)["id"].to_pylist() == inside.tolist()
