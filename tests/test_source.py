"""The plan: row groups, parts, the filter and partitions."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask.errors import ConfigError, DataError
from pipeline.source import read_ids, read_rows
from pipeline.source.listing import Listed
from pipeline.source.partitions import partition_columns
from pipeline.storage import Entry, open_store
from tests.source_files import planned, positions, read, refusal, write, write_years


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """Three files, 19 rows, a year for each row group."""
    return write_years(tmp_path)


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
    """A plan pickles; narrowed, it carries only the files to be read."""
    plan = planned(years, columns=["x"], filter="year >= 2011")
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    narrow = pickle.loads(pickle.dumps(plan.narrowed(plan.row_groups[-2:])))
    assert [file.index for file in narrow.files] == [2]
    assert read_rows(narrow, narrow.row_groups).columns[0].tolist() == [14.0, 15.0, 16.0, 17.0, 18.0]


def test_a_narrowed_plan_of_many_row_groups_stays_small(tmp_path: Path) -> None:
    """What travels with one load, and stays with its worker, is a fraction of the footer of a file of many chunks."""
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({f"x{f}": np.arange(400.0) for f in range(20)}), path, row_group_size=1)
    plan = planned(str(path))
    assert len(pickle.dumps(plan.narrowed(plan.row_groups[:1]))) < plan.files[0].metadata.serialized_size / 4


def test_a_narrowed_plan_of_many_files_stays_small(years: Path) -> None:
    """What travels with one load does not grow with the number of files, nor with a long list of paths."""
    plan = planned([f"{years}/a.parquet", *(str(write(years / f"{i}.parquet", {"x": [1.0]})) for i in range(50))],
                   columns=["x"])  # fmt: skip
    first, group = plan.files[0], plan.row_groups[0]
    many = replace(
        plan,
        files=tuple(replace(first, index=i, first_row=i * 10) for i in range(5000)),
        row_groups=tuple(replace(group, file=i, first_row=i * 10) for i in range(5000)),
    )
    narrow = many.narrowed(many.row_groups[4321:4322])
    assert narrow.file(4321) == many.files[4321]
    assert len(pickle.dumps(narrow)) < 4000 + len(pickle.dumps(first.metadata))


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


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        ("0", pa.int64()),
        ("-5", pa.int64()),
        (str(-(2**63)), pa.int64()),
        (str(2**63), pa.string()),
        ("--5", pa.string()),
        ("-0", pa.string()),
        ("5-", pa.string()),
        ("-", pa.string()),
        ("٣", pa.string()),
        ("9" * 5000, pa.string()),
    ],
)
def test_partition_values_that_look_like_numbers(value: str, type_: pa.DataType) -> None:
    """Only whole numbers of 64 bits, as they would be written again, are numbers; whatever else is text."""
    listed = [Listed(open_store("/"), Entry("x", 0, ""), f"k={value}/x.parquet")]
    assert partition_columns(listed)[0] == {"k": type_}


def test_partition_values_that_are_not_all_numbers(tmp_path: Path) -> None:
    """Values written like 007 stay text."""
    for value in ("007", "8"):
        write(tmp_path / f"agent={value}" / "x.parquet", {"x": [1.0]})
    assert planned(tmp_path).partitions == (("agent", pa.string()),)
