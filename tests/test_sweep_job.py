"""Jobs with several numbers of clusters: what they commit, print and show, with the same bytes on two workers."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import report
from kmeans_dask.errors import ConfigError, DataError
from pipeline import Run, load_job, open_run, run_job
from pipeline.predict import predict
from tests.engine_jobs import job, noise, result_files, write_files
from tests.jobs import command, write_job
from tests.prefect_server import PrefectServer

NUMBERS = (2, 3, 4, 6)


def groups(n_rows: int = 900) -> pa.Table:
    """Return rows around four points, their ids and the points' names; every tenth has no name."""
    rng = np.random.default_rng(2)
    group = rng.integers(4, size=n_rows)
    rows = np.column_stack((group % 2, group // 2)) + 0.05 * rng.normal(size=(n_rows, 2))
    names = [None if i % 10 == 0 else "abcd"[g] for i, g in enumerate(group)]
    return pa.table({"id": np.arange(n_rows), "name": names, "x0": rows[:, 0], "x1": rows[:, 1]})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A committed run over four numbers of clusters."""
    folder = tmp_path_factory.mktemp("sweep")
    return run_job(job(folder, source_in(folder), n_clusters=list(NUMBERS)))


def source_in(folder: Path) -> dict[str, Any]:
    return {"path": write_files(folder / "data", groups(), files=2, group_rows=200), "ids": ["id", "name"]}


def test_the_chosen_model_is_committed(swept: Run) -> None:
    """Labels, centroids and model are those of the chosen k; the manifest tells the scores and why."""
    result = swept.manifest["result"]
    assert result["n_clusters"] == swept.model.n_clusters == 4
    assert set(swept.labels["cluster"].to_pylist()) == {0, 1, 2, 3}
    assert result["sweep"]["elbow"] == 4
    assert result["sweep"]["why"].startswith("k = 4: a clear elbow; the silhouette, Davies-Bouldin")
    assert result["sweep"]["sample_rows"] == 900
    assert [score["n_clusters"] for score in result["sweep"]["scores"]] == list(NUMBERS)


def test_the_files_of_a_sweep(swept: Run) -> None:
    """sweep.parquet has a row for each k, the picture is an SVG, restarts tell their k, and all are in the manifest."""
    home = Path(swept.uri)
    for file in swept.manifest["files"]:
        assert hashlib.sha256((home / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    assert {"sweep.parquet", "elbow.svg"} <= {file["path"] for file in swept.manifest["files"]}
    assert (home / "elbow.svg").read_bytes().startswith(b"<?xml")
    table = pq.read_table(home / "sweep.parquet")
    assert swept.sweep == table
    assert table["n_clusters"].to_pylist() == list(NUMBERS)
    assert table["chosen"].to_pylist() == [False, False, True, False]
    assert table["chosen_by"].to_pylist()[2].startswith("elbow, silhouette")
    assert table["inertia"].to_pylist()[2] == swept.model.inertia
    restarts = pq.read_table(home / "restarts.parquet")
    found = set(zip(restarts["n_clusters"].to_pylist(), restarts["restart"].to_pylist(), strict=True))
    assert found == {(k, r) for k in NUMBERS for r in range(3)}


def test_two_workers_write_the_same_bytes(swept: Run, tmp_path: Path) -> None:
    """On two worker processes with small blocks every file is the same, sweep and picture included."""
    workers = {"workers": 2, "block_bytes": "2KiB"}
    other = run_job(job(tmp_path, source_in(tmp_path), n_clusters={"min": 2, "max": 4}, dask=workers))
    again = run_job(job(tmp_path, source_in_place(tmp_path), n_clusters=[4, 2, 3]))
    assert result_files(other) == result_files(again)
    for name in ("sweep.parquet", "elbow.svg"):
        assert (Path(other.uri) / name).read_bytes() == (Path(again.uri) / name).read_bytes()


def source_in_place(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "data/*.parquet"), "ids": ["id", "name"]}


@pytest.mark.parametrize(
    ("name", "k", "most"), [("sipu_s1", 15, 20), ("sipu_r15", 15, 20), ("ruspini", 4, 10), ("xclara", 3, 10)]
)
def test_a_job_finds_the_clusters_of_known_sets(
    shared_data: Path, tmp_path: Path, name: str, k: int, most: int
) -> None:
    """A job file with a range of k commits the number that the sets' authors give, and its reason says an elbow."""
    data = shared_data / f"{name}.parquet"
    features = [column for column in pq.read_schema(data).names if column != "label"]
    file = tmp_path / "job.toml"
    file.write_text(
        f"source = {{ path = '{data}', columns = {features} }}\noutput.path = 'out'\n"
        f"[kmeans]\nn_clusters = {{ min = 2, max = {most} }}\nn_init = 5\n"
    )
    run = run_job(load_job(file))
    result = run.manifest["result"]
    assert (run.model.n_clusters, result["n_clusters"], result["sweep"]["elbow"]) == (k, k, k)
    assert result["sweep"]["why"].startswith(
        f"k = {k}: a clear elbow; the silhouette, Davies-Bouldin and Calinski-Harabasz agree."
        if most == 20
        else f"k = {k}: a clear elbow; the silhouette, Davies-Bouldin, Calinski-Harabasz and the gap statistic agree."
    )


def test_a_job_on_noise_says_that_there_is_no_elbow(tmp_path: Path) -> None:
    """The manifest, what the command prints and the picture all say it of evenly spread rows."""
    run = run_job(job(tmp_path, write_files(tmp_path / "data", noise(1500, 2)), n_clusters=list(range(2, 9))))
    told = run.manifest["result"]["sweep"]
    assert told["elbow"] is None
    assert told["why"].startswith("No clear elbow: ")
    assert told["why"] in report.table_of(report.result_of(run))
    assert b"no clear elbow</text>" in (Path(run.uri) / "elbow.svg").read_bytes()


def test_a_column_of_known_groups(swept: Run) -> None:
    """The clusters are the groups: both indices are 1 over the rows that have a name; another column is refused."""
    found = swept.agreement("name")
    assert (found.rows, found.adjusted_rand) == (810, 1.0)
    assert found.normalised_mutual_information == pytest.approx(1.0)
    with pytest.raises(DataError, match="no column 'kind'; their ids are id, name"):
        swept.agreement("kind")


def test_a_chosen_model_predicts(swept: Run, tmp_path: Path) -> None:
    """A run of a sweep is a model like any other; its predictions hold no sweep."""
    source = swept.manifest["job"]["source"]["path"]
    found = predict(Path(swept.uri).parents[1], source[0], tmp_path / "scored")
    assert found.labels["cluster"].to_pylist() == swept.labels["cluster"].to_pylist()
    assert found.sweep is None


def test_the_command_prints_the_scores(tmp_path: Path) -> None:
    """A table with the chosen line marked and the choice in words, then the result; with --json, all as one object."""
    settings = write_job(tmp_path, n_clusters=[2, 3, 5], n_init=2)
    done = command("run", settings, "--no-prefect", "--set", "kmeans.n_clusters={min = 2, max = 5}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(
        r" +k +distortion +silhouette +Davies-Bouldin +Calinski-Harabasz +gap +± +chosen by$", lines[0]
    )
    assert [line.split()[0] for line in lines[1:5]] == ["2", "*", "4", "5"]
    assert lines[6].startswith("k = 3: a clear elbow")
    assert re.search(r"^picture +/.*/elbow.svg$", done.stdout, re.MULTILINE)
    assert "k=2 restart 0 iteration 1: distortion" in done.stderr
    shown = json.loads(command("run", settings, "--no-prefect", "--json", "--quiet").stdout)
    assert [score["n_clusters"] for score in shown["sweep"]["scores"]] == [2, 3, 5]
    assert open_run(tmp_path / "out").run_id == shown["run_id"]


@pytest.mark.slow
def test_prefect_shows_the_sweep(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """Each restart of each k is a task run, the steps of scoring too; the summary has the table and the words."""
    settings = write_job(tmp_path, n_clusters=[2, 3, 4], n_init=1)
    done = command("run", settings, "--json", env=prefect_server.environment)
    assert done.returncode == 0, done.stderr
    flow_run = prefect_server.flow_run(json.loads(done.stdout)["run_id"])
    names = {run["name"] for run in prefect_server.of_flow_run("task_runs", flow_run)}
    assert {f"k-{k}-restart-0" for k in (2, 3, 4)} | {
        "sample",
        "scores",
        "silhouettes",
        "gap",
        "reference-9",
    } <= names
    artifacts = {item["key"]: item["data"] for item in prefect_server.of_flow_run("artifacts", flow_run)}
    assert "k = 3: a clear elbow" in artifacts["kmeans-summary"]
    assert "| Davies-Bouldin |" in artifacts["kmeans-summary"]
    assert [row["n_clusters"] for row in json.loads(artifacts["kmeans-restarts"])] == [2, 3, 4]


@pytest.mark.parametrize(
    ("n_clusters", "said"),
    [
        ([5], ["must hold 2 to 200", "holds 1", "found [5]"]),
        ([3, 2, 3], ["twice", "found [3, 2, 3]"]),
        ([2, 0], ["greater than or equal to 1 in a list"]),
        ([2, 2.5], ["whole number in a list"]),
        ({"min": 2}, ["a table of min, max and step"]),
        ({"min": 2, "max": 9, "stop": 1}, ["a table of min, max and step"]),
        ({"min": 9, "max": 2}, ["max above min"]),
        ({"min": 2, "max": 9, "step": 8}, ["by at least one step"]),
        ({"min": 2, "max": 9, "step": 0}, ["greater than or equal to 1 in step"]),
        ({"min": 1, "max": 1000}, ["at most 200", "Raise step"]),
        ("many", ["whole number, a list of them, or a table", "found 'many'"]),
    ],
)
def test_bad_numbers_name_the_rule(tmp_path: Path, n_clusters: Any, said: list[str]) -> None:
    """Each is refused with the key, the rule, the value found and an example."""
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, "data.parquet", n_clusters=n_clusters)
    forms = {list: "[2, 3, 5, 8]", dict: "{ min = 2, max = 20 }"}
    for part in [
        "kmeans.n_clusters: ",
        *said,
        f"For example: kmeans.n_clusters = {forms.get(type(n_clusters), '8')}",
    ]:
        assert part in str(caught.value)


def test_a_range_is_its_numbers(tmp_path: Path) -> None:
    """min, max and step are the numbers from min on, as far as max."""
    found = job(tmp_path, "data.parquet", n_clusters={"min": 2, "max": 11, "step": 3})
    assert found.kmeans.n_clusters == (2, 5, 8, 11)
    assert job(tmp_path, "data.parquet", n_clusters=[9, 2]).kmeans.numbers == (2, 9)


def test_a_stored_model_starts_no_sweep(tmp_path: Path) -> None:
    """A model has one number of clusters; the largest of several counts the rows that are needed."""
    with pytest.raises(ConfigError, match="a stored model has one number of clusters"):
        job(tmp_path, "data.parquet", n_clusters=[2, 3], init="elsewhere/out")
    source = write_files(tmp_path / "data", groups(20))
    with pytest.raises(DataError, match="n_clusters=21 needs at least 21 rows"):
        run_job(job(tmp_path, {"path": source, "columns": ["x0", "x1"]}, n_clusters=[2, 21]))
