"""Paths: which files they give, in which order, and what is no Parquet file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kmeans_dask.errors import DataError
from tests.source_files import names, planned, refusal, write


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
