"""Jobs with a section [scores]: scikit-learn's scores of what they committed, with the same bytes on two workers."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn
from sklearn.datasets import load_iris

from flows import report
from kmeans_dask.errors import ConfigError
from pipeline import Job, Run, load_job, run_job
from pipeline.predict import predict
from tests.engine_jobs import write_files

JOB = """
kmeans = { n_clusters = 3, n_init = 2, dtype = "float64" }
output = { path = "out" }
[source]
path = "data/*.parquet"
columns = ["a", "b", "c", "d"]
ids = ["id", "kind"]
[scores]
groups = "kind"
"""


def iris() -> pa.Table:
    """Return measures of 150 flowers and their kinds; every tenth has no kind."""
    data = load_iris()
    kinds = [None if i % 10 == 0 else data.target_names[kind] for i, kind in enumerate(data.target)]
    features = dict(zip("abcd", data.data.T, strict=True))
    return pa.table({"id": np.arange(150), "kind": kinds, **features})


def iris_job(folder: Path, *sets: str) -> Job:
    """Return the job on four files of flowers, two row groups each."""
    if not (folder / "data").exists():
        write_files(folder / "data", iris(), files=4, group_rows=20)
        (folder / "job.toml").write_text(JOB)
    return load_job(folder / "job.toml", sets)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A committed run with scores."""
    return run_job(iris_job(tmp_path_factory.mktemp("scored")))


def told(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.manifest["result"]["scores"]
    return found


def test_scores_are_scikit_learns(scored: Run) -> None:
    """Of the committed labels: silhouette, Davies-Bouldin, Calinski-Harabasz; both indices where there is a kind."""
    X, table = load_iris().data, scored.labels
    labels, found = table["cluster"].to_numpy(), told(scored)
    assert found["silhouette"] == pytest.approx(sklearn.silhouette_score(X, labels), rel=1e-9)
    assert found["sample_rows"] == 150
    assert found["davies_bouldin"] == pytest.approx(sklearn.davies_bouldin_score(X, labels), rel=1e-9)
    assert found["calinski_harabasz"] == pytest.approx(sklearn.calinski_harabasz_score(X, labels), rel=1e-9)
    kinds = np.array(table["kind"].to_pylist())
    known = kinds != np.array(None)
    pair = kinds[known].astype(str), labels[known]
    groups = found["groups"]
    assert (groups["column"], groups["rows"]) == ("kind", 135)
    assert groups["adjusted_rand"] == pytest.approx(sklearn.adjusted_rand_score(*pair), rel=1e-12)
    information = sklearn.normalized_mutual_info_score(*pair)
    assert groups["normalised_mutual_information"] == pytest.approx(information, rel=1e-12)
    assert scored.agreement("kind").adjusted_rand == groups["adjusted_rand"]


def test_each_cluster_has_its_scores(scored: Run) -> None:
    """scores.parquet has sizes, root mean square distances, and ranked distances of the committed labels."""
    table, labels = scored.scores, scored.labels
    assert table is not None
    for row in table.to_pylist():
        distances = np.sort(labels["distance"].to_numpy()[labels["cluster"].to_numpy() == row["cluster"]])
        assert row["size"] == row["weight"] == len(distances)
        assert row["spread"] == pytest.approx(np.sqrt(np.mean(distances.astype(float) ** 2)), rel=1e-6)
        ranks = [int(np.ceil(q * len(distances))) - 1 for q in (0.5, 0.9, 0.99, 1)]
        shown = [row[name] for name in ("distance_p50", "distance_p90", "distance_p99", "distance_max")]
        assert shown == pytest.approx(distances[ranks].tolist(), rel=1e-6)
    mean = np.average(table["simplified_silhouette"].to_numpy(), weights=table["weight"].to_numpy())
    assert told(scored)["simplified_silhouette"] == pytest.approx(mean, rel=1e-12)


def test_two_workers_score_the_same_bytes(scored: Run, tmp_path: Path) -> None:
    """The scores and their file are the same on two worker processes with small blocks."""
    other = run_job(iris_job(tmp_path, "dask.workers=2", "dask.block_bytes=1KiB"))
    assert told(other) == told(scored)
    first, second = (Path(run.uri) / "scores.parquet" for run in (scored, other))
    assert first.read_bytes() == second.read_bytes()


def test_the_report_tells_them(scored: Run) -> None:
    """One line for each, with the rows of the sample and those that have a group."""
    lines = report.table_of(report.result_of(scored)).splitlines()
    assert [line.split("  ")[0] for line in lines[-6:]] == [
        "silhouette", "simplified silhouette", "Davies-Bouldin", "Calinski-Harabasz", "adjusted Rand",
        "mutual information",
    ]  # fmt: skip
    assert lines[-6].endswith(" (150 rows)")
    assert lines[-1].endswith(" (kind, 135 rows)")


def test_the_chosen_of_several_is_scored_once(tmp_path: Path) -> None:
    """A sweep's scores of the chosen k are those of the section, from a sample of the size it names."""
    job = iris_job(tmp_path, "kmeans.n_clusters=[2, 3]", "scores.sample_rows=100")
    run = run_job(job)
    sweep = run.manifest["result"]["sweep"]
    row = next(score for score in sweep["scores"] if score["n_clusters"] == run.model.n_clusters)
    names = ("silhouette", "simplified_silhouette", "davies_bouldin", "calinski_harabasz")
    assert {name: told(run)[name] for name in names} == {name: row[name] for name in names}
    assert told(run)["sample_rows"] == sweep["sample_rows"] == 100
    assert run.scores is not None
    assert run.scores.num_rows == run.model.n_clusters


def test_other_rows_are_scored_too(scored: Run, tmp_path: Path) -> None:
    """A prediction scores its own rows: those of the first two kinds."""
    pq.write_table(iris().slice(0, 100), tmp_path / "new.parquet")
    found = predict(Path(scored.uri).parents[1], tmp_path / "new.parquet", tmp_path / "out")
    X, labels = load_iris().data[:100], found.labels["cluster"].to_numpy()
    assert told(found)["davies_bouldin"] == pytest.approx(sklearn.davies_bouldin_score(X, labels), rel=1e-9)
    assert told(found)["groups"]["rows"] == 90


def test_one_cluster_has_no_scores(tmp_path: Path) -> None:
    """What compares clusters is null, and told as not defined."""
    run = run_job(iris_job(tmp_path, "kmeans.n_clusters=1"))
    assert told(run)["silhouette"] is None
    assert told(run)["groups"]["adjusted_rand"] == 0.0
    assert "silhouette             not defined (150 rows)" in report.table_of(report.result_of(run))


def test_what_no_group_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A column outside of the ids and one of lists are refused; one of too many values, and one of none, only warn."""
    with pytest.raises(
        ConfigError, match=r"scores.groups is 'sort', .* source.ids: id, kind. Add it to these"
    ):
        iris_job(tmp_path, "scores.groups=sort")
    monkeypatch.setattr("pipeline.labels.MOST_PAIRS", 100)
    with caplog.at_level(logging.WARNING):
        assert told(run_job(iris_job(tmp_path, "scores.groups=id")))["groups"] is None
    assert "scores.groups: 'id' holds too many values" in caplog.text
    lists = iris().set_column(1, "kind", pa.array([[i] for i in range(150)]))
    for path in (tmp_path / "data").glob("*.parquet"):
        pq.write_table(lists, path)
    with pytest.raises(ConfigError, match=r"'kind' as list.*not names of groups. Name a column of strings"):
        run_job(iris_job(tmp_path))
    nothing = iris().set_column(1, "kind", pa.nulls(150, pa.string()))
    for path in (tmp_path / "data").glob("*.parquet"):
        pq.write_table(nothing, path)
    with caplog.at_level(logging.WARNING):
        assert told(run_job(iris_job(tmp_path)))["groups"] is None
    assert "'kind' holds no value beside a cluster" in caplog.text
