"""Peak memory of a worker against the bound and the plan's estimate: `python -m benchmarks.memory`.

A local cluster of one worker loads Parquet of 4,000,000 x 16 float32, runs one restart, seeded and not, and two, and
writes labels, which the bound does not speak of and the plan does.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.workloads import blobs
from kmeans_dask import kmeans
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.packing import Wishes
from kmeans_dask.tiles import padded
from pipeline.cluster import connected
from pipeline.config import load_job
from pipeline.estimate import summary_of
from pipeline.labels import Naming, write_labels
from pipeline.load import load_on
from pipeline.source import scan
from pipeline.storage import open_store

_ROWS, _FEATURES, _RESTARTS = 4_000_000, 16, 2
_PROCESS_BYTES = 300 * 10**6
_JOB = """
[source]
path = "rows.parquet"
[kmeans]
n_clusters = 16
n_init = {n_init}
init = "{init}"
max_iter = 20
[dask]
workers = 1
memory_limit = "8GiB"
block_bytes = "16MiB"
[output]
path = "out"
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest resident memory of a worker up to a moment."""

    when: str
    n_bytes: int
    bound: int | None  # None: what the bound does not speak of
    plan: int | None = None


def peak_bytes() -> int:
    """Return this process's largest resident memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def worker_peak(cluster: Cluster) -> int:
    """Return the largest of the workers' peaks."""
    return max(cluster.client.run(peak_bytes).values())


def bound(n_rows: int, restarts: int) -> int:
    """Return what a worker may take."""
    return n_rows * (4 * padded(_FEATURES) + 4 + 8 * restarts) + _PROCESS_BYTES


def write_rows(folder: Path, n_rows: int) -> None:
    """Write rows in 32 row groups."""
    X = blobs(n_rows, _FEATURES, 16)(1.0)
    table = pa.table({f"x{f}": X[:, f] for f in range(_FEATURES)})
    pq.write_table(table, folder / "rows.parquet", row_group_size=-(-n_rows // 32))


def peaks(folder: Path, n_rows: int) -> list[Peak]:
    """Return a worker's peaks, each in a fresh cluster where it might hide the next."""
    found = []
    for n_init, init in ((1, "random"), (1, "k-means||"), (_RESTARTS, "random")):
        (folder / "job.toml").write_text(_JOB.format(n_init=n_init, init=init), encoding="utf-8")
        job = load_job(folder / "job.toml")
        assert job.dask is not None
        plan = scan(job.source, job.kmeans.dtype)
        estimate = summary_of(job, plan).memory_bytes
        with connected(job.dask) as cluster:
            if not found:
                found.append(Peak("an empty worker", worker_peak(cluster), _PROCESS_BYTES))
            wishes = Wishes(plan.features, plan.dtype, plan.nulls, job.prepare.scale)
            blocks, preparation = load_on(cluster, plan, job.dask.block_bytes, wishes)
            with blocks:
                if len(found) == 1:
                    found.append(Peak("after the load", worker_peak(cluster), bound(n_rows, 0)))
                model = kmeans(
                    blocks, 16, n_init=n_init, n_threads=n_init, max_iter=20, preparation=preparation, init=init
                )  # fmt: skip
                when = f"{n_init} restart{'s at a time' if n_init > 1 else ''}, {init}"
                found.append(Peak(when, worker_peak(cluster), bound(n_rows, n_init)))
                naming = Naming(open_store(folder / "out"), "one", model.centroids, model.cluster_ids)
                write_labels(blocks, plan, naming)
                found.append(Peak(f"{when}, and labels", worker_peak(cluster), None, estimate))
    return found


def measured(size: Size) -> Section:
    """How much memory does a worker take, and did the plan know?"""
    n_rows = max(10_000, int(_ROWS * size.share))
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name), 50_000)
        peaks(Path(name), 50_000)  # compiles, which takes some 250 MB more
        write_rows(Path(name), n_rows)
        found = peaks(Path(name), n_rows)
    rows = tuple(
        (p.when, p.n_bytes / 1e6, *("" if n is None else n / 1e6 for n in (p.bound, p.plan))) for p in found
    )
    targets = [
        Target(f"9. memory of a worker / its bound, {p.when}", p.n_bytes / p.bound, 1.0)
        for p in found
        if p.bound is not None
    ]
    errors = [abs(p.plan / p.n_bytes - 1) for p in found if p.plan is not None]
    targets.append(Target("9. the plan's estimate off the truth", float(np.max(errors)), 0.2))
    question = (
        f"{n_rows:,} x {_FEATURES} float32 from Parquet in 32 row groups on one worker of one thread; peaks."
    )
    head = ("", "MB", "bound, MB", "the plan, MB")
    return Section("Memory", question, (Table("", head, rows),), tuple(targets))


if __name__ == "__main__":
    main(measured)
