"""Seeding at k = 1000, and restarts: `python -m benchmarks.seeding [scikit-learn]`."""

import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.passes import best_seconds, first_pass_seconds
from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.workloads import WORKLOADS, Rows
from kmeans_dask import blocks_of, kmeans
from kmeans_dask.lloyd import Progress
from kmeans_dask.seeding import seeds

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of a call and its value."""
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


def seconds_an_iteration(X: Rows, n_clusters: int, n_init: int) -> float:
    """Return the seconds of a fit, seeding and load included, for each iteration that its restarts made."""
    iterations: list[Progress] = []
    seconds, _ = timed(lambda: kmeans(X, n_clusters, n_init=n_init, hook=iterations.append))
    return seconds / len(iterations)


def measured(size: Size) -> Section:
    """What do seeding and restarts cost?"""
    workload = WORKLOADS["W6"]
    X = workload.rows(size.share)
    k = min(workload.n_clusters, len(X) // 4)
    blocks, _ = blocks_of(X)
    with blocks:
        start = seeds(blocks, k, 0, "k-means||")
        seeding = best_seconds(lambda: seeds(blocks, k, 0, "k-means||"), 2)
        _, one_pass = first_pass_seconds(blocks, start, 2)
    whole, model = timed(lambda: kmeans(X, k, n_init=1))
    rows: list[tuple[str | float, ...]] = [
        ("a full pass with sums", one_pass, ""),
        ("ours: k-means|| alone", seeding, ""),
        ("ours: seeding and fit", whole, f"{model.inertia:.6g}"),
    ]
    targets = [Target("6. k-means|| for k = 1000 on W6, in full passes", seeding / one_pass, 5.0)]
    if size.wants("scikit-learn"):
        from sklearn.cluster import KMeans

        theirs, fitted = timed(lambda: KMeans(k).fit(X))
        rows.append(("scikit-learn: seeding and fit", theirs, f"{fitted.inertia_:.6g}"))
        targets.append(Target("6. scikit-learn's default / ours, k = 1000 on W6", theirs / whole, 10.0, True))
    few = WORKLOADS["W2"].rows(size.share)
    one, ten = (seconds_an_iteration(few, 16, n_init) for n_init in (1, 10))
    rows += [
        ("W2, one restart: an iteration, everything included", one, ""),
        ("W2, ten restarts: an iteration, everything included", ten, ""),
    ]
    targets.append(Target("6. an iteration of ten restarts / of one, W2", ten / one, 1.0))
    question = (
        f"k-means|| and whole fits by default settings, W6 with k = {k}; n_init = 1 except where "
        "said. Of passes and of k-means|| alone the shorter of two counts, after one that warms."
    )
    return Section(
        "Seeding and restarts",
        question,
        (Table("", ("", "seconds", "inertia"), tuple(rows)),),
        tuple(targets),
    )


if __name__ == "__main__":
    main(measured)
