"""A stored model labels rows: those of its fit as the fit did, and any others."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kmeans_dask import predict as predict_array
from kmeans_dask.errors import DataError, KMeansError, ModelError, TooFewSamplesError
from pipeline import Run, open_run, run_job
from pipeline.predict import predict
from tests.engine_jobs import job, listing, result_files, write_files

N_ROWS = 4000


def table() -> pa.Table:
    """Return ids, years, weights and three features, some of them null."""
    rng = np.random.default_rng(8)
    group = rng.integers(0, 4, N_ROWS)
    hidden = rng.random(N_ROWS) < 0.03
    return pa.table(
        {
            "id": [f"r{i}" for i in range(N_ROWS)],
            "year": pa.array(2010 + np.arange(N_ROWS) % 5, pa.int32()),
            "w": rng.integers(0, 3, N_ROWS) / 2.0,
            "a": pa.array(rng.normal(size=N_ROWS) + 7 * group, mask=hidden),
            "b": pa.array(1e4 + 100 * rng.normal(size=N_ROWS) * (group + 1)),
            "c": pa.array(rng.integers(0, 9, N_ROWS), pa.int8()),
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fit's files in `data`."""
    folder = tmp_path_factory.mktemp("predict")
    write_files(folder / "data", table(), files=3, group_rows=500)
    return folder


def fit(home: Path, folder: Path, *, nulls: str = "drop", dask: Any = None, **keys: Any) -> Run:
    """Fit the files with ids, weights, a filter and a scale."""
    folder.mkdir(exist_ok=True)
    source = {"path": str(home / "data/*.parquet"), "ids": ["id", "year"], "columns": ["a", "b", "c"]}
    source |= {"weight": "w", "filter": "year != 2012", "nulls": nulls}
    return run_job(job(folder, source, scale="standard", dask=dask, n_clusters=4, **keys))


@pytest.fixture(scope="module")
def fitted(home: Path) -> Run:
    """One fit."""
    return fit(home, home / "fit")


def labels_of(run: Run) -> dict[str, str]:
    return {path: digest for path, digest in result_files(run).items() if path.startswith("labels/")}


@pytest.mark.parametrize("nulls", ["drop", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rows_of_the_fit_get_its_label_files(home: Path, tmp_path: Path, nulls: str, dtype: str) -> None:
    """Predicting the fit's own files writes its label files again, byte for byte, and its model unchanged."""
    fitted = fit(home, tmp_path, nulls=nulls, dtype=dtype)
    run = predict(fitted.uri, home / "data", tmp_path / "predicted")
    assert labels_of(run) == labels_of(fitted)
    for file in ("model.json", "model.parquet", "centroids.parquet"):
        assert result_files(run)[file] == result_files(fitted)[file]


def test_a_model_fitted_on_workers_predicts_on_workers(home: Path, fitted: Run, tmp_path: Path) -> None:
    """A model keeps the engine of its job; its labels are those of any other."""
    on_workers = fit(home, tmp_path, dask={"workers": 2, "block_bytes": "4KiB"})
    run = predict(on_workers.uri, home / "data", tmp_path / "predicted")
    assert labels_of(run) == labels_of(on_workers) == labels_of(fitted)


def test_an_output_stands_for_its_latest_run(home: Path, fitted: Run, tmp_path: Path) -> None:
    """MODEL may be the output of a job or a run in it; the manifest names the run that the model came from."""
    by_output = predict(home / "fit/out", home / "data", tmp_path / "by-output")
    by_run = predict(fitted.uri, home / "data", tmp_path / "by-run")
    assert labels_of(by_output) == labels_of(by_run)
    assert by_run.manifest["result"]["model_run"] == fitted.run_id
    assert open_run(tmp_path / "by-run").run_id == by_run.run_id


def test_the_manifest_counts_the_rows_that_were_scored(home: Path, fitted: Run, tmp_path: Path) -> None:
    """Sizes and inertia in the manifest are of the rows predicted; of the fit's rows they are the fit's."""
    run = predict(fitted.uri, home / "data", tmp_path / "all")
    for key in ("sizes", "inertia", "distortion", "rows", "rows_clustered"):
        assert run.manifest["result"][key] == fitted.manifest["result"][key]
    one = predict(fitted.uri, home / "data/000.parquet", tmp_path / "one")
    assert one.manifest["result"]["rows"] == one.labels.num_rows < fitted.labels.num_rows
    assert one.manifest["result"]["sizes"] == [
        pc.sum(pc.equal(one.labels["cluster"], cluster)).as_py() for cluster in range(4)
    ]


def test_files_cut_otherwise_get_the_same_labels(home: Path, fitted: Run, tmp_path: Path) -> None:
    """The same rows in more and smaller files get the same labels and distances, in the same order."""
    write_files(tmp_path / "data", table(), files=9, group_rows=100)
    run = predict(fitted.uri, tmp_path / "data", tmp_path / "predicted")
    assert run.labels.equals(fitted.labels)


def test_a_part_of_the_rows_gets_its_labels(home: Path, fitted: Run, tmp_path: Path) -> None:
    """A row's label depends on the row and the model alone, not on the rows beside it."""
    write_files(tmp_path / "data", table().slice(1000, 500))
    run = predict(fitted.uri, tmp_path / "data", tmp_path / "predicted")
    ids = set(run.labels["id"].to_pylist())
    kept = [row for row in fitted.labels.to_pylist() if row["id"] in ids]
    assert run.labels.to_pylist() == kept


def test_the_python_api_agrees(home: Path, fitted: Run) -> None:
    """kmeans_dask.predict with the stored model gives the labels in the files."""
    rows = table().filter(pc.field("year") != 2012)
    whole = pc.is_valid(rows["a"]).to_numpy()
    X = np.column_stack([rows[name].to_numpy().astype(np.float64) for name in "abc"])
    expected = fitted.labels["cluster"].drop_null().to_numpy()
    np.testing.assert_array_equal(predict_array(fitted.model, X[whole]), expected)


def test_a_missing_feature_is_refused(home: Path, fitted: Run, tmp_path: Path) -> None:
    """New files must have the model's features; nothing is written otherwise."""
    write_files(tmp_path / "data", table().drop_columns(["b"]))
    with pytest.raises(KMeansError, match="has no column 'b'") as caught:
        predict(fitted.uri, tmp_path / "data", tmp_path / "predicted")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "predicted").exists()


def test_one_row_is_enough(fitted: Run, tmp_path: Path) -> None:
    """Fewer rows than clusters can be labelled; no row at all is refused."""
    write_files(tmp_path / "data", table().slice(0, 1))
    assert predict(fitted.uri, tmp_path / "data", tmp_path / "predicted").labels.num_rows == 1
    write_files(tmp_path / "none", table().slice(0, 0))
    with pytest.raises((DataError, TooFewSamplesError)) as caught:
        predict(fitted.uri, tmp_path / "none", tmp_path / "nothing")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "nothing").exists()


def test_a_filter_that_leaves_no_row_is_refused(fitted: Run, tmp_path: Path) -> None:
    """Rows that the model's filter takes out, which no footer tells, leave nothing to label."""
    rows = table().filter(pc.field("year") == 2012)
    write_files(tmp_path / "data", rows, write_statistics=False)
    with pytest.raises(DataError, match="no row is left to label") as caught:
        predict(fitted.uri, tmp_path / "data", tmp_path / "predicted")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "predicted").exists()


def damaged(fitted: Run, tmp_path: Path, damage: str) -> Path:
    """Return a copy of a run whose model is damaged in one way, its manifest left or made to agree."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in Path(fitted.uri).rglob("*"):
        target = copy / path.relative_to(fitted.uri)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    model = copy / "model.json"
    if damage == "missing":
        model.unlink()
    elif damage == "truncated":
        model.write_bytes(model.read_bytes()[:-20])
    elif damage == "flipped":
        path = copy / "model.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        model.write_text(model.read_text().replace('"version": 1', '"version": 2', 1))
        rewrite_checksum(copy, model)
    return copy


def rewrite_checksum(copy: Path, model: Path) -> None:
    """Make the manifest agree with a changed file of the same length, as another version would have written it."""
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = next(file for file in manifest["files"] if file["path"] == model.name)
    entry["sha256"] = hashlib.sha256(model.read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "is missing"),
        ("truncated", "bytes"),
        ("flipped", "not those that were committed"),
        ("version", "model version 2; this kmeans-dask reads version 1"),
    ],
)
def test_a_damaged_model_is_refused(home: Path, fitted: Run, tmp_path: Path, damage: str, words: str) -> None:
    """A model that is damaged or of another version is refused before anything is read or written."""
    with pytest.raises(ModelError, match=words) as caught:
        predict(damaged(fitted, tmp_path, damage), home / "data", tmp_path / "predicted")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "predicted").exists()


def test_no_model_is_refused(home: Path, tmp_path: Path) -> None:
    """A path without a run is a ModelError."""
    with pytest.raises(ModelError, match="no committed run"):
        predict(tmp_path / "nowhere", home / "data", tmp_path / "predicted")
    assert listing(tmp_path) == []


def test_labels_are_the_nearest_centroids(fitted: Run) -> None:
    """Recomputed from centroids.parquet and the source in plain numpy, scaled as the model says."""
    rows = table().filter(pc.field("year") != 2012)
    X = np.column_stack([rows[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in "abc"])
    known = ~np.isnan(X).any(axis=1)
    centroids = pq.read_table(Path(fitted.uri) / "centroids.parquet")
    C = np.column_stack([centroids[name].to_numpy() for name in "abc"])
    scale = X[known].std(axis=0)
    distances = np.sqrt((((X[known][:, None] - C[None]) / scale) ** 2).sum(axis=2))
    found = fitted.labels.filter(pc.is_valid(fitted.labels["cluster"]))
    assert found.num_rows == known.sum()
    # float32 rows of spread 10 hold six digits.
    np.testing.assert_allclose(found["distance"].to_numpy(), distances.min(axis=1), atol=2e-5)
    gap = np.partition(distances, 1, axis=1)
    clear = gap[:, 1] - gap[:, 0] > 1e-4
    np.testing.assert_array_equal(found["cluster"].to_numpy()[clear], distances.argmin(axis=1)[clear])
