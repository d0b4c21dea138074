"""Whole jobs between stores: a source, a job file, the environment of its process, and results brought home."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs import command
from tests.outputs import Output
from tests.s3_servers import S3Server

KMEANS = {"n_clusters": 4, "n_init": 3, "seed": 3, "dtype": "float64"}


def write_source(folder: Path, *, n_files: int = 3, n_rows: int = 500) -> list[Path]:
    """Write files of two row groups each, with nulls; ids run through all of them in order."""
    folder.mkdir(parents=True)
    draw, paths = np.random.default_rng(11), []
    for number in range(n_files):
        ids = np.arange(number * n_rows, (number + 1) * n_rows)
        points = draw.normal(size=(n_rows, 3)) + 8.0 * draw.integers(0, 4, size=n_rows)[:, None]
        columns: dict[str, Any] = {"id": ids, "name": [f"row {i}" for i in ids]}
        for feature, name in enumerate("xyz"):
            columns[name] = pa.array(points[:, feature], mask=draw.random(n_rows) < 0.01)
        paths.append(folder / f"file-{number:03d}.parquet")
        pq.write_table(pa.table(columns), paths[-1], row_group_size=n_rows // 2, write_page_checksum=True)
    return paths


def write_job(path: Path, source: str, output: str, /, **sections: Mapping[str, Any]) -> Path:
    """Write a job file; keyword arguments add to its sections."""
    job: dict[str, dict[str, Any]] = {
        "source": {"path": source, "columns": ["x", "y", "z"], "ids": ["id", "name"], "nulls": "drop"},
        "prepare": {"scale": "standard"},
        "kmeans": KMEANS,
        "output": {"path": output},
    }
    lines = []
    for name in (*job, *(sections.keys() - job.keys())):
        keys = {**job.get(name, {}), **sections.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    path.write_text("\n".join(lines))
    return path


def environment(server: S3Server | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a job that a server lets in, with nothing of the user's own."""
    foreign = ("AWS_", "PREFECT_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**ours, **(server.environment if server else {}), **more}


def new_bucket(server: S3Server) -> str:
    """Make a bucket and return its URI."""
    return server.make_bucket(f"b{time.time_ns()}")


def committed(job: Path, env: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Run a job to its end and return its JSON result."""
    done = command("run", job, "--no-prefect", "--json", *arguments, env=env)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def upload(server: S3Server, bucket_uri: str, paths: Sequence[Path], prefix: str = "data/") -> str:
    """Put files into a bucket and return the URI of their directory."""
    client = server.client()
    for path in paths:
        client.put_object(
            Bucket=bucket_uri.removeprefix("s3://"), Key=prefix + path.name, Body=path.read_bytes()
        )
    client.close()
    return f"{bucket_uri}/{prefix}"


def brought_home(output: Output, folder: Path) -> Path:
    """Copy every file of an output into a local directory."""
    for name in output.names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(output.read(name))
    return folder


def latest(output: Output) -> str:
    """Return the run that the pointer names."""
    run_id: str = json.loads(output.read("_LATEST.json"))["run_id"]
    return run_id


def lasting_bytes(output: Output) -> dict[str, bytes]:
    """Return the files of the latest run that depend on data and configuration alone."""
    home = f"runs/{latest(output)}/"
    names = [name.removeprefix(home) for name in output.names() if name.startswith(home)]
    lasting = [name for name in names if name.startswith(("labels/", "centroids", "model"))]
    return {name: output.read(home + name) for name in lasting}
