"""W2 on a Dask cluster of two workers, against this process, dask-ml and Spark: `python -m benchmarks.cluster`.

Rows are loaded before the clock starts, everywhere. Spark runs where Java is on the path.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.peers import Result
from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.rows_on_workers import on_workers
from benchmarks.workloads import WORKLOADS, Rows
from kmeans_dask import kmeans
from kmeans_dask.api import blocks_of
from kmeans_dask.blocks import Blocks
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.packing import Preparation
from pipeline.cluster import connected
from pipeline.config import DaskConfig

_BLOCKS = 8
_MAX_ITER = 100
_SLOW = ("dask-ml", "Spark")  # each runs once
Run = Callable[[int], tuple[float, Result]]  # most iterations -> seconds, and what was reached


def ours(blocks: Blocks, start: Rows, ready: Preparation) -> Run:
    """Return our run on loaded blocks."""

    def run(max_iter: int) -> tuple[float, Result]:
        began = time.perf_counter()
        model = kmeans(
            blocks, len(start), init=start.astype(float), max_iter=max_iter, tol=0, preparation=ready
        )
        return time.perf_counter() - began, Result(model.n_iter, model.inertia)

    return run


def dask_ml(cluster: Cluster, X: Rows, start: Rows) -> Run:
    """Return dask-ml's run on an array that the same workers hold; it runs to its number of iterations."""
    import dask.array as da
    from dask_ml.cluster import KMeans
    from distributed import wait

    with cluster.client.as_current():
        held = da.from_array(X, chunks=(-(-len(X) // _BLOCKS), X.shape[1])).persist()
        wait(held)

    def run(max_iter: int) -> tuple[float, Result]:
        with cluster.client.as_current():
            began = time.perf_counter()
            model = KMeans(len(start), init=start, max_iter=max_iter, tol=0).fit(held)
            seconds = time.perf_counter() - began
            labels = model.labels_.compute()
        inertia = ((X - model.cluster_centers_[labels]) ** 2).sum(
            dtype=float
        )  # its own is not a sum of squares
        return seconds, Result(int(model.n_iter_), float(inertia))

    return run


@contextmanager
def spark(X: Rows, start: Rows) -> Iterator[Run]:
    """Give Spark MLlib's run on two local cores, on rows that it holds as its own vectors."""
    if shutil.which("java") is None:
        raise ImportError("there is no java on the path")
    from pyspark.mllib.common import _py2java, _to_java_object_rdd
    from pyspark.mllib.linalg import Vectors
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "6g", "spark.kryoserializer.buffer.max": "512m", "spark.rpc.message.maxSize": "512",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[2]").appName("benchmark")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    try:
        context = session.sparkContext
        context.setLogLevel("ERROR")
        rows = context.parallelize(X, 2).map(Vectors.dense)
        held = _to_java_object_rdd(rows).rdd().cache()
        held.count()
        clustering = context._jvm.org.apache.spark.mllib.clustering
        centers = _py2java(context, [Vectors.dense(c) for c in start.astype(float)])
        vectors = context._gateway.new_array(context._jvm.org.apache.spark.mllib.linalg.Vector, len(start))
        for j in range(len(start)):
            vectors[j] = centers[j]

        def run(max_iter: int) -> tuple[float, Result]:
            began = time.perf_counter()
            job = clustering.KMeans().setK(len(start)).setMaxIterations(max_iter).setEpsilon(0.0)
            model = job.setInitialModel(clustering.KMeansModel(vectors)).run(held)
            seconds = time.perf_counter() - began
            return seconds, Result(int(model.numIter()), float(model.trainingCost()))

        yield run
    finally:
        session.stop()


def in_turn(systems: dict[str, Run], repeats: int) -> dict[str, list[tuple[float, Result]]]:
    """Return the seconds and results of each system; all but ours make as many iterations as ours did."""
    for run in systems.values():
        run(2)
    found: dict[str, list[tuple[float, Result]]] = {name: [] for name in systems}
    for _ in range(repeats):
        max_iter = _MAX_ITER
        for name, run in systems.items():
            if name in _SLOW and found[name]:
                found[name].append(found[name][0])
                continue
            found[name].append(run(max_iter))
            if name == "in process":
                max_iter = found[name][-1][1].iterations
    return found


def measured(size: Size) -> Section:
    """What does a cluster of worker processes cost, and what do others need on it?"""
    X = WORKLOADS["W2"].rows(size.share)
    start = WORKLOADS["W2"].start(X)
    notes = []
    with ExitStack() as stack:
        here, preparation = blocks_of(X)
        stack.callback(here.close)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cluster = stack.enter_context(connected(DaskConfig(workers=2, memory_limit=4 * 2**30)))
        there = stack.enter_context(on_workers(cluster, X, folder, _BLOCKS, preparation))
        systems = {
            "in process": ours(here, start, preparation),
            "Dask, 2 workers": ours(there, start, preparation),
        }
        for name, make in (
            ("dask-ml", lambda: dask_ml(cluster, X, start)),
            ("Spark", lambda: stack.enter_context(spark(X, start))),
        ):
            if size.wants(name):
                try:
                    systems[name] = make()
                except ImportError as error:
                    notes.append(f"{name} is left out: {error}.")
        found = in_turn(systems, size.repeats)
    slow = " and ".join(name for name in _SLOW if name in found)
    if slow:
        notes.append(f"{slow} ran once, since that takes minutes; the others' figures are medians.")
    return _section(found, notes)


def _section(found: dict[str, list[tuple[float, Result]]], notes: list[str]) -> Section:
    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for (x, _), (y, _) in zip(found[a], found[b], strict=True))

    local, remote = "in process", "Dask, 2 workers"
    rows = tuple(
        (
            name,
            statistics.median(s for s, _ in runs),
            ratio(name, remote),
            runs[0][1].iterations,
            f"{runs[0][1].inertia:.8g}",
        )
        for name, runs in found.items()
    )
    allowed = [1.1 * here + 0.003 * result.iterations for here, result in found[local]]
    over = statistics.median(there / a for (there, _), a in zip(found[remote], allowed, strict=True))
    targets = [Target("2. Dask / (1.1 x in process + 3 ms an iteration)", over, 1.0)]
    targets += [
        Target(f"2. {peer} / ours on Dask, W2", ratio(peer, remote), bound, at_least=True)
        for peer, bound in (("dask-ml", 40.0), ("Spark", 200.0))
        if peer in found
    ]
    head = ("", "seconds", "x ours on Dask", "iterations", "inertia")
    question = "W2 from the same start, rows loaded before, on two workers of one thread."
    return Section("On a cluster", question, (Table("", head, rows),), tuple(targets), tuple(notes))


if __name__ == "__main__":
    main(measured)
