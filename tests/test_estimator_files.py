"""A fitted estimator stored, loaded and converted."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
import skl2onnx
from sklearn import cluster

from kmeans_dask import KMeans
from kmeans_dask.errors import ModelError
from kmeans_dask.model import to_bytes
from pipeline import load_job, run_job
from tests.estimator_data import blobs
from tests.jobs import write_job

X = blobs()
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded(metric: str, dtype: str, tmp_path: Path) -> None:
    """All but the labels come back, bit for bit; so do predictions, distances and scores; pickling keeps all."""
    km = KMeans(4, metric=metric, random_state=0).fit(FRAME.astype(dtype))
    km.save(tmp_path / "a" / "model")
    assert sorted(path.name for path in (tmp_path / "a" / "model").iterdir()) == [
        "model.json",
        "model.parquet",
    ]
    loaded = KMeans.load(tmp_path / "a" / "model")
    assert to_bytes(loaded.model_) == to_bytes(km.model_)
    assert loaded.cluster_centers_.tobytes() == km.cluster_centers_.tobytes()
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
    assert (loaded.inertia_, loaded.n_iter_, loaded.distortion_) == (km.inertia_, km.n_iter_, km.distortion_)
    assert (loaded.n_clusters, loaded.metric, loaded.history_) == (4, metric, km.history_)
    assert not hasattr(loaded, "labels_")
    for other in (loaded, pickle.loads(pickle.dumps(km))):
        assert other.predict(FRAME.astype(dtype)).tolist() == km.labels_.tolist()
        assert np.array_equal(other.transform(FRAME.astype(dtype)), km.transform(FRAME.astype(dtype)))
        assert other.score(FRAME.astype(dtype)) == km.score(FRAME.astype(dtype))


def test_a_run_of_the_pipeline_is_loaded(tmp_path: Path) -> None:
    """The folder of a run holds such a model, scaled as the job asked; it labels and measures raw rows."""
    run = run_job(load_job(write_job(tmp_path), ["prepare.scale=standard", "kmeans.dtype=float64"]))
    km = KMeans.load(tmp_path / "out" / "runs" / run.run_id)
    rows = pd.read_parquet(tmp_path / "data.parquet")[["x0", "x1"]].to_numpy()
    assert km.predict(rows).tolist() == run.labels["cluster"].to_pylist()
    np.testing.assert_allclose(km.transform(rows).min(axis=1), run.labels["distance"], rtol=1e-5)
    assert km.score(rows) == -km.inertia_
    with pytest.raises(ModelError, match="to_sklearn: the model scales its features"):
        km.to_sklearn()


def test_what_cannot_be_saved_or_loaded(tmp_path: Path) -> None:
    """A missing folder, a file in its place, a feature with a column's name."""
    km = KMeans(2, random_state=0).fit(X)
    with pytest.raises(ModelError, match=r"nowhere: cannot be read \(No such file or directory"):
        KMeans.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"file: cannot be written"):
        km.save(tmp_path / "file")
    with pytest.raises(ModelError, match=r"a feature is named 'size', as a column of model.parquet is"):
        KMeans(2, random_state=0).fit(FRAME.rename(columns={"b": "size"})).save(tmp_path / "model")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scikit_learn_estimator_with_the_same_clusters(dtype: str) -> None:
    """It predicts, transforms and scores alike, and knows the names of the features."""
    km = KMeans(4, n_init=3, random_state=0, max_iter=77).fit(FRAME.astype(dtype))
    twin = km.to_sklearn()
    assert type(twin) is cluster.KMeans
    assert (twin.n_clusters, twin.max_iter, twin.random_state) == (4, 77, 0)
    assert twin.labels_.tolist() == twin.predict(FRAME.astype(dtype)).tolist() == km.labels_.tolist()
    np.testing.assert_allclose(
        twin.transform(FRAME.astype(dtype)), km.transform(FRAME.astype(dtype)), rtol=1e-4
    )
    assert twin.score(FRAME.astype(dtype)) == pytest.approx(-km.inertia_, rel=1e-5)
    assert (twin.inertia_, twin.n_iter_) == (km.inertia_, km.n_iter_)
    assert twin.get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2", "kmeans3"]
    twin.cluster_centers_[:] = 0
    assert km.cluster_centers_.any()
    assert twin.fit(FRAME).n_iter_ > 0  # it can be fitted again


def test_cosine_labels_survive_the_conversion() -> None:
    """All centroids have unit length, so the nearest is the one of largest cosine, whatever the row's length."""
    km = KMeans(4, metric="cosine", random_state=0).fit(X)
    assert km.to_sklearn().predict(X).tolist() == km.labels_.tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_onnx_model_gives_the_same_labels(metric: str) -> None:
    """Converted by skl2onnx and run by onnxruntime."""
    rows = X.astype(np.float32)
    km = KMeans(5, metric=metric, random_state=0).fit(rows)
    onnx = skl2onnx.to_onnx(km.to_sklearn(), rows[:1])
    session = onnxruntime.InferenceSession(onnx.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, scores = session.run(None, {session.get_inputs()[0].name: rows})
    assert labels.tolist() == km.labels_.tolist()
    if metric == "euclidean":
        np.testing.assert_allclose(scores, km.transform(rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [pa.Table, pa.RecordBatch])
def test_tables_and_frames_are_arrays_with_names(kind: Any) -> None:
    """Pandas and Arrow give the clusters of the array, and their names are noted and compared."""
    expected = KMeans(4, random_state=0).fit(X)
    km = KMeans(4, random_state=0).fit(kind.from_pandas(FRAME))
    frame = KMeans(4, random_state=0).fit(FRAME)
    for found in (km, frame):
        assert found.feature_names_in_.tolist() == ["a", "b", "c"]
        assert found.cluster_centers_.tobytes() == expected.cluster_centers_.tobytes()
        assert isinstance(found.predict(kind.from_pandas(FRAME)), np.ndarray)
        with pytest.raises(ValueError, match="feature names should match"):
            found.predict(FRAME.rename(columns={"a": "z"}))


def test_tables_of_float32_stay_so() -> None:
    """Only where every column is float32; other numbers become float64."""
    table = pa.table({name: pa.array(column, pa.float32()) for name, column in zip("abc", X.T, strict=True)})
    assert KMeans(2, random_state=0).fit(table).cluster_centers_.dtype == np.float32
    mixed = table.append_column("d", pa.array(range(len(X)), pa.int32()))
    assert KMeans(2, random_state=0).fit(mixed).cluster_centers_.dtype == np.float64


def test_nulls_in_tables_are_refused() -> None:
    """A null is no number: a ValueError that names NaN."""
    table = pa.table({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="NaN"):
        KMeans(2).fit(table)
    with pytest.raises(ValueError, match="could not convert"):
        KMeans(2).fit(pa.table({"a": ["x", "y", "z"]}))
