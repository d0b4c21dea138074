"""What a hundred workers cost the client in an iteration, k x d = 1000 x 100: `python -m benchmarks.fan_in`.

The workers are threads of this process, so what they do themselves is measured apart: the client's own share is the
question pickled once, the trip to those that it asks itself, and their answers unpickled, added up and divided.
"""

import statistics
import time
from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import dask
import numpy as np
from distributed import Client, LocalCluster
from distributed.protocol.pickle import dumps, loads

from benchmarks.blocks import empty_ms, one
from benchmarks.report import Section, Size, Table, Target, main
from benchmarks.rows_on_workers import plain
from kmeans_dask import passes
from kmeans_dask.blocks import Block
from kmeans_dask.dask_blocks import N_DIRECT, DaskBlocks, groups_of
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.dask_loads import Recipe
from kmeans_dask.dask_messages import answers
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.means import updated
from kmeans_dask.packing import RowRange, pack
from kmeans_dask.steps import lloyd_pass
from kmeans_dask.tracks import Track

_BOUND_MS = 20.0


def block_of(first_row: int, n_rows: int, n_features: int) -> list[Block]:
    """Return random rows as one block."""
    rows = np.random.default_rng(first_row).random((n_features, n_rows), np.float32)
    return [pack(list(rows), RowRange(first_row, n_rows), plain(n_features))]


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median milliseconds of some calls, the first one not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def measured(size: Size) -> Section:
    """What does the client spend on an iteration over many workers?"""
    n_workers, k, d = (
        max(2, int(100 * size.share)),
        max(10, int(1000 * size.share)),
        max(4, int(100 * size.share)),
    )
    repeats = 3 * size.repeats
    cuts = list(range(0, (n_workers + 1) * 128, 128))
    rows_of_all = np.concatenate([block_of(a, b - a, d)[0].all_rows() for a, b in pairwise(cuts)])
    centroids = rows_of_all[:: len(rows_of_all) // k][:k]  # rows, so that no cluster is empty
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=None
        ) as local,
        Client(local, direct_to_workers=True, set_as_default=False) as client,
    ):
        cluster = Cluster(client)
        recipes = [Recipe(block_of, (a, b - a, d), a, b - a, (b - a) * 4 * d) for a, b in pairwise(cuts)]
        with DaskBlocks(cluster, recipes) as blocks:
            step = Track("fan-in", centroids).step(blocks, exact=False)
            to_all = statistics.median(empty_ms(blocks) for _ in range(repeats))
            heads = [group[0] for group in groups_of(blocks._loads.current().addresses, N_DIRECT)]
            call = bytes(dumps((one, (), int.__add__)))
            asked = [blocks._question(head, "kmeans_map", calls=[call]) for head in heads]
            trip = median_ms(lambda: client.sync(answers, asked), repeats)
            ask = lambda: blocks.map_reduce(lloyd_pass, step, combine=passes.Partials.combined)  # noqa: E731
            whole = median_ms(ask, repeats)
            partials = ask()
    # Without a hundred workers' own threads in this process.
    question = median_ms(lambda: dumps((lloyd_pass, (step,), passes.Partials.combined)), repeats)
    answer = bytes(dumps((True, partials)))
    opened = len(heads) * median_ms(lambda: loads(answer), repeats)
    found = [loads(answer)[1] for _ in heads]
    added = median_ms(lambda: reduce(passes.Partials.combined, found), repeats)
    with LocalBlocks(block_of(0, 128, d)) as here:
        means = median_ms(lambda: updated(here, centroids, partials, step.scales), repeats)
    rows = (
        (f"an empty trip to {len(heads)} workers", trip),
        ("the question pickled", question),
        ("the answers unpickled", opened),
        ("the answers added up", added),
        ("new centroids", means),
        ("an empty trip to all, with the workers' own work in this process", to_all),
        ("the whole iteration, with the workers' own work in this process", whole),
    )
    total = trip + question + opened + added + means
    about = (
        f"{n_workers} workers in one process, {len(heads)} of them asked directly, k x d = {k} x {d}; an answer has "
        f"{len(answer) / 2**20:.1f} MiB."
    )
    target = Target("5. the client's cost of an iteration over 100 workers, ms", total, _BOUND_MS)
    return Section("A hundred workers", about, (Table("", ("", "ms"), rows),), (target,))


if __name__ == "__main__":
    main(measured)
