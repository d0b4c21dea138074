"""Reading: ids, damage, files that change, and the order of rows."""

import datetime as dt
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask.errors import DataError
from pipeline.source import read_ids, read_rows
from pipeline.storage import open_store
from tests.s3_servers import S3Server, admit
from tests.source_files import NAN, planned, positions, read, refusal, write, write_years


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """Three files, 19 rows, a year for each row group."""
    return write_years(tmp_path)


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


def test_object_store(tmp_path: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store gives the plan and rows of local files; each column chunk is fetched once."""
    admit(moto, monkeypatch)
    write_years(tmp_path)
    rng = np.random.default_rng(0)
    big = {name: rng.normal(size=30_000) for name in ("x", "y", "id")} | {"year": np.arange(30_000)}
    write(tmp_path / "big" / "k=1" / "z.parquet", big, row_group_size=10_000)
    bucket = moto.make_bucket(f"b{time.time_ns()}")
    for path in tmp_path.rglob("*.parquet"):
        open_store(bucket).put(str(path.relative_to(tmp_path)), path.read_bytes())
    for below, keys in (("*.parquet", {"filter": "year > 2010"}), ("big", {"filter": "k == 1 and year > 9"})):
        local = planned(tmp_path / below, columns=["x"], ids=["id"], **keys)
        before = len(moto.requests())
        remote = planned(f"{bucket}/{below}", columns=["x"], ids=["id"], **keys)
        assert sum(r.method == "GET" and r.range is not None for r in moto.requests()[before:]) <= 2 * len(
            remote.files
        )
        assert (remote.row_groups, remote.parts) == (local.row_groups, local.parts)
        assert read(remote).columns[0].tolist() == read(local).columns[0].tolist()
        assert [read_ids(remote, part) for part in remote.parts] == [
            read_ids(local, part) for part in local.parts
        ]
    before = len(moto.requests())
    read(remote)
    ranges = [tuple(map(int, r.range[6:].split("-"))) for r in moto.requests()[before:] if r.range]
    for index in range(3):
        group = remote.files[0].metadata.row_group(index)
        for column in (group.column(0), group.column(3)):
            start = column.dictionary_page_offset or column.data_page_offset
            stop = start + column.total_compressed_size
            assert sum(max(0, min(stop, b + 1) - max(start, a)) for a, b in ranges) == stop - start
    with pytest.raises(DataError, match="no such file"):
        planned(f"{bucket}/absent")


def test_real_data(shared_data: Path) -> None:
    """Every numeric column of the real data sets reads as pyarrow has it."""
    for path in sorted(shared_data.glob("*.parquet")):
        table = pq.read_table(path)
        numbers = [
            f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)
        ]
        columns = [name for name in numbers if name != "distance"]
        plan = planned(path, "float64", nulls="drop", columns=columns)
        for name, column in zip(plan.features, read(plan).columns, strict=True):
            np.testing.assert_array_equal(column, table[name].to_numpy(), err_msg=f"{path.name} {name}")
