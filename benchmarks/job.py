"""Whole jobs of the command line against one script of pyarrow and scikit-learn: `python -m benchmarks.job`.

Each is a fresh interpreter: W2 as Parquet in 8 row groups, 10 restarts, the same tol and limit of iterations.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import FRESH
from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.workloads import WORKLOADS

_SCRIPT = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from sklearn.cluster import KMeans
source, target = sys.argv[1:]
X = np.column_stack([column.to_numpy() for column in pq.read_table(source).columns])
model = KMeans(16, n_init=10, max_iter=300, tol=1e-4, random_state=0).fit(X)
distance = np.sqrt(((X - model.cluster_centers_[model.labels_]) ** 2).sum(axis=1))
pq.write_table(pa.table({"cluster": model.labels_, "distance": distance}), target)
print(model.inertia_)
"""
_JOB = """
[source]
path = "rows.parquet"
[kmeans]
n_clusters = 16
n_init = 10
max_iter = 300
tol = 1e-4
[output]
path = "out"
"""
HERE = Path(__file__).parents[1]


def seconds_of(command: list[str]) -> float:
    """Return the seconds of one process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=HERE, env=FRESH, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def write_rows(folder: Path, share: float) -> None:
    """Write W2 in 8 row groups, and the job."""
    X = WORKLOADS["W2"].rows(share)
    table = pa.table({f"x{f}": X[:, f] for f in range(X.shape[1])})
    pq.write_table(table, folder / "rows.parquet", row_group_size=-(-len(X) // 8))
    (folder / "job.toml").write_text(_JOB, encoding="utf-8")


def measured(size: Size) -> Section:
    """How long is it from Parquet to committed results, from a fresh interpreter?"""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_rows(folder, size.share)
        run = [
            sys.executable,
            "-m",
            "kmeans_dask",
            "run",
            str(folder / "job.toml"),
            "--no-prefect",
            "--quiet",
        ]
        script = [sys.executable, "-c", _SCRIPT, str(folder / "rows.parquet"), str(folder / "labels.parquet")]
        commands = {
            "in process": run,
            "a local cluster of 2": [*run, "--set", "dask.workers=2"],
            "the script": script,
        }
        for command in commands.values():
            seconds_of(command)  # kernels, bytecode and the page cache
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(size.repeats):
            for name, command in commands.items():
                found[name].append(seconds_of(command))
    ratios = {
        name: statistics.median(a / b for a, b in zip(found["the script"], found[name], strict=True))
        for name in found
    }
    rows = tuple((name, statistics.median(times), ratios[name]) for name, times in found.items())
    targets = (
        Target("7. the script / our job in process", ratios["in process"], 5.0, at_least=True),
        Target(
            "7. the script / our job on a local cluster", ratios["a local cluster of 2"], 3.0, at_least=True
        ),
    )
    question = "W2 from Parquet to labels in Parquet, 10 restarts, one fresh process each; medians."
    head = ("", "seconds", "the script / it")
    return Section("Whole jobs", question, (Table("", head, rows),), targets)


if __name__ == "__main__":
    main(measured)
