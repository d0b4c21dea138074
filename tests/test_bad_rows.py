"""Bad rows that only their readers can find: the same refusal in this process and on workers."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bad_jobs import Bad, arguments, contents, exit_code, good_columns, write, write_job

NAN, INFINITY = float("nan"), float("inf")
ENGINES = {"in process": {}, "on workers": {"dask.workers": 1, "dask.block_bytes": "4KiB"}}


def spoiled(rows: Mapping[int, Any], **options: Any) -> Any:
    """Return what writes a column "y" with some values replaced, of whose range the footer says nothing."""

    def make(folder: Path) -> None:
        values: list[Any] = [1.0] * 600
        for row, value in rows.items():
            values[row] = value
        write(folder, {**good_columns(), "y": pa.array(values, **options)}, write_statistics=False)

    return make


def integers(folder: Path) -> None:
    write(folder, {**good_columns(), "y": [1] * 599 + [2**24 + 1]}, write_statistics=False)


def keep_times(path: Path, data: bytes) -> None:
    """Change a file's bytes as a failing disk does."""
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flipped(column: int) -> Any:
    """Return what flips a bit in a page of the second row group, which has a checksum."""

    def make(folder: Path) -> None:
        path = write(folder, good_columns(), compression="none", use_dictionary=False)
        chunk = pq.read_metadata(path).row_group(1).column(column)
        data = bytearray(path.read_bytes())
        data[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 0x10
        keep_times(path, bytes(data))

    return make


def undecodable(folder: Path) -> None:
    path = write(folder, good_columns(), compression="zstd", use_dictionary=False, write_page_checksum=False)
    chunk = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset + 60
    data[start : start + 600] = bytes(600)
    keep_times(path, bytes(data))


BAD = [
    Bad(
        "failed checksum", flipped(1), ("a.parquet", "'y' in row group 1", "damaged", "Write the file again")
    ),
    Bad("failed checksum of an id", flipped(2), ("a.parquet", "'id' in row group 1", "damaged")),
    Bad("undecodable page", undecodable, ("a.parquet", "'y' in row group 1", "damaged")),
    Bad("nulls", spoiled({5: None, 299: None}), ("a.parquet", "'y'", "2 nulls", "source.nulls", '"drop"')),
    Bad("NaN", spoiled({5: NAN}), ("a.parquet", "'y'", "1 null", "NaN counts as null", "source.nulls")),
    Bad(
        "infinity", spoiled({5: INFINITY, 9: -INFINITY}), ("a.parquet", "'y'", "2 infinite values", "replace")
    ),
    Bad(
        "infinity in the footer",
        lambda folder: write(folder, {**good_columns(), "y": [INFINITY] * 2 + [1.0] * 598}) and None,
        ("a.parquet", "'y'", "2 infinite values"),
    ),
    Bad(
        "infinity, nulls dropped",
        spoiled({599: INFINITY}),
        ("a.parquet", "'y'", "1 infinite value", "always refused"),
        {"source.nulls": "drop"},
    ),
    Bad(
        "all null under mean",
        spoiled(dict.fromkeys(range(600)), type=pa.float64()),
        ("'y'", "null", "mean", '"drop"'),
        {"source.nulls": "mean"},
    ),
    Bad("overflow", spoiled({400: 1e39}), ("a.parquet", "'y'", "1e+39", "too large for float32", "float64")),
    Bad("squares overflow", spoiled({400: 1e30}), ("'y'", "1e+30", "float32", "float64")),
    Bad("int64", integers, ("a.parquet", "'y'", "16777217", "2**24", "float64")),
    Bad(
        "two rows are left",
        spoiled({row: NAN for row in range(600) if row not in (7, 400)}),
        ("n_clusters=3", "hold 2", "nulls"),
        {"source.nulls": "drop"},
    ),
]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that holds a committed run."""
    folder = tmp_path_factory.mktemp("earlier")
    assert exit_code(arguments(write_job(folder), {})) == 0
    return folder / "out"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The keys of an engine."""
    return ENGINES[request.param]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_readers_refuse_and_leave_the_output(
    tmp_path: Path, earlier: Path, bad: Bad, engine: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one message, from whichever process read the rows; what was written is gone again."""
    job, out = write_job(tmp_path), tmp_path / "out"
    if engine:
        shutil.copytree(earlier, out)
    bad.make(tmp_path)
    before = contents(out)
    capfd.readouterr()
    assert exit_code(arguments(job, {**bad.sets, **engine})) == 2
    said = capfd.readouterr()
    assert [words for words in bad.says if words not in said.err] == [], said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert contents(out) == before


class Rewrite(logging.Handler):
    """Rewrites a file once the job has said what it plans to read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        if "rows of" in record.msg:
            self._path.write_bytes(self._path.read_bytes() + b"more")


@contextmanager
def rewritten_after_the_plan(path: Path) -> Iterator[None]:
    handler, job_log = Rewrite(path), logging.getLogger("pipeline.job")
    job_log.addHandler(handler)
    try:
        yield
    finally:
        job_log.removeHandler(handler)


def test_a_file_that_changes_after_the_plan_is_refused(
    tmp_path: Path, engine: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """A source file written after its footer was read is named with both states, and no output is made."""
    job = write_job(tmp_path)
    with rewritten_after_the_plan(tmp_path / "data" / "a.parquet"):
        assert exit_code(arguments(job, engine)) == 2
    said = capfd.readouterr().err
    for words in (
        "a.parquet",
        "changed while the job ran",
        "planned size",
        "found size",
        "Run the job again",
    ):
        assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_data_beyond_the_memory_are_refused_before_they_are_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The plan's memory is compared with the workers' before any row is read: these pages cannot be."""
    job = write_job(tmp_path)
    write(tmp_path, {"x": np.zeros(2_000_000), "y": np.zeros(2_000_000), "id": np.arange(2_000_000)})
    path = tmp_path / "data" / "a.parquet"
    data = path.read_bytes()
    keep_times(path, data[:4] + bytes(2000) + data[2004:])
    assert exit_code(arguments(job, {"dask.workers": 1, "dask.memory_limit": "330MiB"})) == 2
    said = capfd.readouterr().err
    for words in (
        "/data",
        "2,000,000 rows of 2 features",
        "each worker",
        "330 MiB",
        "Raise dask.memory_limit",
    ):
        assert words in said
    assert not (tmp_path / "out").exists()
