"""Models that cannot be used, as a start or to predict with: exit code 2, and an output that is as it was."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bad_jobs import arguments, contents, exit_code, good_columns, write, write_job


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job with three clusters of x and y."""
    folder = tmp_path_factory.mktemp("fitted")
    assert exit_code(arguments(write_job(folder), {})) == 0
    return folder / "out"


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what rewrites a file of a run as another release would: with its sum in the manifest."""

    def make(run: Path) -> None:
        path = run / name
        data = change(path.read_bytes())
        path.write_bytes(data)
        manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text())
        for file in manifest["files"]:
            if file["path"] == name:
                file |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (run / "manifest.json").write_text(json.dumps(manifest))

    return make


def with_keys(**keys: Any) -> Callable[[bytes], bytes]:
    """Return what sets keys of a JSON object."""
    return lambda data: json.dumps(json.loads(data) | keys).encode()


def without(key: str) -> Callable[[Path], None]:
    """Return what takes a key out of a manifest."""

    def make(run: Path) -> None:
        manifest = json.loads((run / "manifest.json").read_text())
        del manifest[key]
        (run / "manifest.json").write_text(json.dumps(manifest))

    return make


def flipped(run: Path) -> None:
    data = bytearray((run / "model.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (run / "model.parquet").write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "another version": (rewritten("model.json", with_keys(version=2)), ("version 2", "reads version 1", "release")),
    "another format": (rewritten("model.json", with_keys(format="pickle")), ("'pickle'", "kmeans-dask-model")),
    "no JSON": (rewritten("model.json", lambda data: data[:50]), ("model.json", "not JSON", "Fit the model again")),
    "a missing key": (rewritten("model.json", lambda _: with_keys()(b'{"format": "kmeans-dask-model", "version": 1}')),
                      ("damaged", "Fit the model again")),
    "no Parquet": (rewritten("model.parquet", lambda data: data[:60]), ("damaged", "Fit the model again")),
    "a flipped bit": (flipped, ("model.parquet", "not those that were committed", "Restore it")),
    "a missing file": (lambda run: (run / "model.parquet").unlink(), ("model.parquet", "is missing", "damaged")),
    "another layout": (rewritten("manifest.json", with_keys(layout_version=99)), ("manifest.json", "99", "version")),
    "no files": (without("files"), ("manifest.json", "files: Field required", "Restore it")),
    "no parts": (without("parts"), ("manifest.json", "parts: Field required")),
    "no job": (without("job"), ("manifest.json", "job: Field required")),
    "no result": (without("result"), ("manifest.json", "result: Field required")),
    "no file of the model": (rewritten("manifest.json", with_keys(files=[])), ("files: model.json is not among them",)),
    "a part that is none": (rewritten("manifest.json", with_keys(parts=[{"path": 7, "bytes": -1}])),
                            ("parts[0].path: Input should be a valid string", "and ")),
    "no manifest": (lambda run: (run / "manifest.json").unlink(), ("no committed run here", "path of an output")),
}  # fmt: skip


@pytest.mark.parametrize("command", ["init", "predict"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused(
    tmp_path: Path, fitted: Path, case: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of another version, or damaged, is named with what is wrong; nothing is written."""
    make, says = BAD[case]
    job = write_job(tmp_path)
    shutil.copytree(fitted, tmp_path / "models")
    make(next((tmp_path / "models" / "runs").iterdir()))
    predicting = ["predict", str(tmp_path / "models"), str(tmp_path / "data"), str(tmp_path / "out")]
    argv = arguments(job, {"kmeans.init": "./models"}) if command == "init" else predicting
    capsys.readouterr()
    assert exit_code(argv) == 2
    said = capsys.readouterr()
    assert [words for words in (*says, "models") if words not in said.err] == [], said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ({"kmeans.init": "./absent"}, ("/absent", "no committed run here")),
        ({"kmeans.n_clusters": 4}, ("the model has 3 clusters", "n_clusters is 4", "another model")),
        ({"source.columns": ["x"]}, ("features x, y", "the data have x", "another model")),
        ({"source.columns": ["x", "z"]}, ("features x, y", "the data have x, z")),
    ],
)
def test_a_model_that_does_not_fit_the_job_is_no_start(
    tmp_path: Path,
    fitted: Path,
    sets: dict[str, Any],
    says: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A start with other features or another number of clusters is refused, and the held output is as it was."""
    job = write_job(tmp_path)
    write(tmp_path, {**good_columns(), "z": good_columns()["y"]})
    shutil.copytree(fitted, tmp_path / "out")
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert exit_code(arguments(job, {"source.columns": ["x", "y"], "kmeans.init": str(fitted), **sets})) == 2
    said = capsys.readouterr().err
    assert [words for words in says if words not in said] == [], said
    assert "Traceback" not in said
    assert contents(tmp_path / "out") == before


def test_rows_without_the_models_columns_are_not_labelled(
    tmp_path: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`predict` on data that lack a feature names the file and the column."""
    write(tmp_path, {"x": [1.0, 2.0], "id": [1, 2]}, "new.parquet")
    capsys.readouterr()
    assert exit_code(["predict", str(fitted), str(tmp_path / "new.parquet"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "new.parquet has no column 'y'" in said
    assert not (tmp_path / "out").exists()
