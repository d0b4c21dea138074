"""Bad input: exit code 2, a message with place, rule, value and fix, and an output that is as it was."""

import shutil
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bad_jobs import Bad, arguments, contents, exit_code, good_columns, write, write_job
from tests.jobs import command


def column(name: str, values: Any) -> Callable[[Path], None]:
    """Return what adds one column to the good data, or replaces it."""

    def make(folder: Path) -> None:
        write(folder, {**good_columns(len(values)), name: values})

    return make


def repeated(value: Any, n: int = 600) -> list[Any]:
    return [value] * n


def nothing(folder: Path) -> None:
    """The data are good: the job is bad."""


def replaced(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what changes the bytes of a second file."""

    def make(folder: Path) -> None:
        path = write(folder, good_columns(), "data/b.parquet")
        path.write_bytes(change(path.read_bytes()))

    return make


def empty_directory(folder: Path) -> None:
    (folder / "empty").mkdir()


def n_clusters(text: str) -> Callable[[Path], None]:
    """Return what writes another n_clusters into the job."""

    def make(folder: Path) -> None:
        job = folder / "job.toml"
        job.write_text(job.read_text().replace("n_clusters = 3", f"n_clusters = {text}"))

    return make


def with_second_file(columns: Mapping[str, Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, columns, "data/b.parquet")

    return make


DAYS = np.datetime64("2013-01-01T00", "us") + np.arange(600)
HOLED = [None if row % 200 == 0 else float(row) for row in range(600)]

SOURCES = [
    Bad("missing path", nothing, ("/absent", "no such file", "source.path"), {"source.path": "absent"}),
    Bad("empty directory", empty_directory, ("/empty", "*.parquet", "source.path"), {"source.path": "empty"}),
    Bad("no match", nothing, ("/data/z*.parquet", "source.path"), {"source.path": "data/z*.parquet"}),
    Bad("CSV", replaced(lambda _: b"x,y\n" + b"1.5,2.5\n" * 99), ("b.parquet", "not a Parquet file")),
    Bad("empty file", replaced(lambda _: b""), ("b.parquet", "empty file")),
    Bad("truncated", replaced(lambda data: data[: len(data) // 2]), ("b.parquet", "truncated")),
    Bad(
        "damaged footer",
        replaced(lambda data: data[:-60] + bytes(40) + data[-20:]),
        ("b.parquet", "footer"),
    ),
    Bad(
        "another type",
        with_second_file({**good_columns(), "x": pa.array(range(600), pa.int32())}),
        ("'x'", "a.parquet has double", "b.parquet has int32", "alike"),
    ),
    Bad(
        "a column less",
        with_second_file({name: values for name, values in good_columns().items() if name != "y"}),
        ("'y'", "a.parquet has double", "b.parquet has no such column"),
    ),
]

COLUMNS = [
    Bad(
        "missing column",
        nothing,
        ("source.columns", "'z'", "It has: x, y, id"),
        {"source.columns": ["x", "z"]},
    ),
    Bad("misspelt column", nothing, ("source.ids", "'idd'", "Did you mean 'id'?"), {"source.ids": ["idd"]}),
    *(
        Bad(
            kind,
            column("s", values),
            ("a.parquet", "'s'", words, "not a number"),
            {"source.columns": ["x", "s"]},
        )
        for kind, values, words in (
            ("string", repeated("a"), "string"),
            ("list", repeated([1.0]), "list"),
            ("timestamp", DAYS, "timestamp"),
            ("boolean", repeated(True), "bool"),
        )
    ),
    *(
        Bad(
            f"feature {name}",
            column(name, repeated(1.0)),
            (f"'{name}'", "a name of the results", "rename it"),
        )
        for name in ("cluster", "distance", "size")
    ),
    *(
        Bad(
            f"id {name}",
            column(name, repeated("a")),
            (f"'{name}'", "source.ids", "a name of the results"),
            {"source.ids": [name]},
        )
        for name in ("cluster", "distance", "size")
    ),
    Bad(
        "all null under mean",
        column("y", pa.nulls(600, pa.float64())),
        ("'y'", "null in every row", "mean", "source.columns"),
        {"source.nulls": "mean"},
    ),
]

VALUES = [
    Bad("nulls", column("y", HOLED), ("a.parquet", "'y'", "3 nulls", 'source.nulls is "error"', '"drop"')),
    Bad("int64 in float32", column("y", np.arange(600) + 2**24), ("'y'", "2**24", "float32", "float64")),
    Bad(
        "int64 in float64",
        column("y", np.arange(600) + 2**53),
        ("'y'", "2**53", "float64 keeps exactly"),
        {"kmeans.dtype": "float64"},
    ),
    Bad("decimals", column("y", repeated(Decimal("167772.17"))), ("'y'", "167772.17", "2**24", "float64")),
    Bad(
        "float32 overflow",
        column("y", repeated(1e39)),
        ("'y'", "1e+39", "float32", 'kmeans.dtype = "float64"'),
    ),
]

SWEEPS = [
    Bad(
        f"n_clusters = {text}",
        n_clusters(text),
        ("job.toml", "kmeans.n_clusters: ", rule, f"found {found}", "For example: kmeans.n_clusters = "),
    )
    for text, rule, found in (
        ("[]", "2 to 200 numbers of clusters and holds 0", "[]"),
        ("[4]", "a single one needs no list", "[4]"),
        ("[3, 2, 3]", "must not name a number of clusters twice", "[3, 2, 3]"),
        ("[2, 0]", "greater than or equal to 1 in a list", "[2, 0]"),
        ('[2, "3"]', "a whole number in a list", "[2, '3']"),
        ("[2, 2.5]", "a whole number in a list", "[2, 2.5]"),
        ("2.5", "a whole number, a list of them, or a table", "2.5"),
        ("true", "a whole number, a list of them, or a table", "True"),
        ("{ min = 9, max = 2 }", "a max above min", "{'min': 9, 'max': 2}"),
        ("{ min = 2, max = 9, step = 0 }", "greater than or equal to 1 in step", "{'min': 2, 'max': 9, 'step': 0}"),
        ("{ min = 2, max = '9' }", "a whole number in max", "{'min': 2, 'max': '9'}"),
        ("{ max = 9 }", "min, max and step, of which step may miss", "{'max': 9}"),
    )
]  # fmt: skip

ROWS = [
    Bad(
        "fewer rows than the largest",
        n_clusters("{ min = 2, max = 620, step = 103 }"),
        ("n_clusters=620", "600", "Lower kmeans.n_clusters"),
    ),
    Bad(
        "zero rows",
        lambda folder: write(folder, good_columns(0)) and None,
        ("/data", "no rows", "source.path"),
    ),
    Bad("fewer rows", nothing, ("n_clusters=601", "600", "Lower"), {"kmeans.n_clusters": 601}),
    Bad("none pass", nothing, ("no row passes", "id < 0"), {"source.filter": "id < 0"}),
    Bad("two pass", nothing, ("n_clusters=3", " 2", "filter"), {"source.filter": "id in [5, 400]"}),
    Bad(
        "two are whole",
        column("y", [1.0 if row in (7, 400) else None for row in range(600)]),
        ("n_clusters=3", "hold 2", "nulls"),
        {"source.nulls": "drop"},
    ),
    Bad(
        "none is whole",
        column("y", pa.nulls(600, pa.float64())),
        ("n_clusters=3", "hold 0", "nulls"),
        {"source.nulls": "drop"},
    ),
]

KEYS = [
    Bad("no clusters", nothing, ("job.toml", "kmeans.n_clusters", "1", "found 0"), {"kmeans.n_clusters": 0}),
    Bad(
        "misspelt key",
        nothing,
        ("kmeans.n_cluster", "Did you mean kmeans.n_clusters?"),
        {"kmeans.n_cluster": 3},
    ),
    Bad("misspelt section", nothing, ("kmean", "unknown", "kmeans"), {"kmean.n_clusters": 3}),
    Bad(
        "groups outside of the ids",
        nothing,
        ("job.toml: scores.groups is 'kind'", "source.ids: id", "Add it"),
        {"scores.groups": "kind"},
    ),
    Bad("a sample of one", nothing, ("scores.sample_rows", "2", "found 1"), {"scores.sample_rows": 1}),
    Bad("unknown key", nothing, ("source.zzz", "unknown key"), {"source.zzz": 3}),
]

ALL = [*SOURCES, *COLUMNS, *VALUES, *SWEEPS, *ROWS, *KEYS]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that holds a committed run."""
    folder = tmp_path_factory.mktemp("earlier")
    assert exit_code(arguments(write_job(folder), {})) == 0
    return folder / "out"


@pytest.mark.parametrize("held", [False, True], ids=["new output", "held output"])
@pytest.mark.parametrize("bad", ALL, ids=str)
def test_a_bad_job_is_refused_and_leaves_the_output(
    tmp_path: Path, earlier: Path, bad: Bad, held: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad job exits 2 with a message of what to change, no traceback, nothing on stdout, and no byte written."""
    job, out = write_job(tmp_path), tmp_path / "out"
    if held:
        shutil.copytree(earlier, out)
    made = bad.make(tmp_path) or {}
    before = contents(out)
    capsys.readouterr()
    assert exit_code(arguments(job, {**bad.sets, **made})) == 2
    said = capsys.readouterr()
    assert [words for words in bad.says if words not in said.err] == [], said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert contents(out) == before


@pytest.mark.parametrize(
    "bad", [case for case in ALL if case.name in ("truncated", "nulls", "unknown key")], ids=str
)
def test_the_installed_command_says_the_same(tmp_path: Path, bad: Bad) -> None:
    """The command as a process of its own: exit code 2, the message as its last lines, no traceback."""
    job = write_job(tmp_path)
    bad.make(tmp_path)
    done = command(*arguments(job, bad.sets))
    assert done.returncode == 2
    assert [words for words in bad.says if words not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_the_good_job_is_good(earlier: Path) -> None:
    """The job that the cases spoil commits: they are refused for what they change."""
    assert pq.read_table(next(earlier.glob("runs/*/centroids.parquet"))).num_rows == 3
