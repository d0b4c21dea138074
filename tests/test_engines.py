"""The same contract on both engines: what the algorithm gets never depends on who runs it, or on the blocks."""

import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import blocks_of, disk_blocks, kmeans, packing, seeding
from kmeans_dask.blocks import Block, Blocks
from kmeans_dask.dask_blocks import DaskBlocks
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.dask_shards import PLUGIN
from kmeans_dask.disk_blocks import DiskBlocks
from kmeans_dask.errors import DataError
from kmeans_dask.lloyd import Fit, Identity, Limits, evaluated, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.metrics import metrics
from kmeans_dask.restarts import Settings, concurrently, fit_of, restarts_of
from kmeans_dask.samples import sampled
from kmeans_dask.spool import spooled
from pipeline.cluster import connected
from pipeline.config import DaskConfig
from tests import engine_data
from tests.engine_data import Range, Table, cut, packed, recipes
from tests.test_metrics import bits

ENGINES = ("local", "dask", "disk", "dask disk")
TABLE = Table(seed=1, n_rows=3000)
Maker = Callable[..., Blocks]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two worker processes of one thread."""
    with connected(DaskConfig(workers=2)) as cluster:
        yield cluster


@pytest.fixture(params=ENGINES)
def engine(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Maker:
    """Return a function that makes blocks on one engine; on this process's disk in groups of a few."""
    monkeypatch.setattr(disk_blocks, "GROUP_BYTES", 2**14)
    return partial(made, request.param, cluster, tmp_path)


def made(engine: str, cluster: Cluster, folder: Path, table: Table = TABLE, block_rows: int = 300) -> Blocks:
    cuts = cut(table.n_rows, block_rows)
    if engine == "local":
        return LocalBlocks(packed(table, cuts), n_threads=2)
    if engine == "disk":
        loads = [spooled(packed(table, cuts[i : i + 3]), str(folder)) for i in range(0, len(cuts) - 1, 2)]
        return DiskBlocks([block for load in loads for block in load], n_threads=2)
    on_disk = engine == "dask disk"
    return DaskBlocks(cluster, [replace(r, on_disk=on_disk) for r in recipes(table, cuts, blocks_per_load=2)])


def whole(table: Table) -> LocalBlocks:
    """Return the table as one block on one thread: what every other grouping must equal."""
    return LocalBlocks(packed(table, [0, table.n_rows]), n_threads=1)


def same_fit(a: Fit, b: Fit) -> bool:
    """Whether two fits agree in every bit, times excepted."""
    history = [[(p.iteration, p.inertia, p.distortion, p.changed) for p in fit.history] for fit in (a, b)]
    values = [(fit.centroids.tobytes(), fit.sizes, fit.inertia, fit.n_iter, fit.stop) for fit in (a, b)]
    return history[0] == history[1] and values[0] == values[1]


def test_scores_and_samples_are_the_same_on_every_engine(engine: Maker) -> None:
    """Metrics of given centroids and a sample of the rows, bit for bit those of one block on one thread."""
    with whole(TABLE) as one:
        centroids = one.blocks[0].rows(np.arange(0, 3000, 600))
        expected, rows = bits(metrics(one, centroids)), sampled(one, 100, seed=0)
    with closing(engine(block_rows=170)) as blocks:
        assert bits(metrics(blocks, centroids)) == expected
        assert sampled(blocks, 100, seed=0).values.tobytes() == rows.values.tobytes()


def test_map_reduce_covers_every_row_once(engine: Maker) -> None:
    """map_reduce combines fn over all blocks, each row exactly once, whatever the size of the blocks."""
    for block_rows in (37, 128, 1000, 5000):
        with closing(engine(block_rows=block_rows)) as blocks:
            assert blocks.map_reduce(engine_data.count_of, combine=int.__add__) == TABLE.n_rows
            row_ids = blocks.map_reduce(engine_data.ids_of, combine=list.__add__)
            assert sorted(row_ids) == list(range(TABLE.n_rows))
            assert blocks.n_blocks == len(cut(TABLE.n_rows, block_rows)) - 1


def test_errors_of_fn_reach_the_caller(engine: Maker) -> None:
    """An error of fn is raised where map_reduce was called, with its own type and text; the blocks stay usable."""
    with closing(engine()) as blocks:
        with pytest.raises(LookupError, match="row 1234 is refused"):
            blocks.map_reduce(engine_data.refusing, 1234, combine=int.__add__)
        assert blocks.map_reduce(engine_data.refusing, -1, combine=int.__add__) == 0


def test_os_errors_of_fn_are_no_lost_worker(engine: Maker) -> None:
    """A full disk under fn is that error, not a worker that is gone."""
    with closing(engine()) as blocks:
        with pytest.raises(OSError, match="No space left"):
            blocks.map_reduce(engine_data.without_space, combine=int.__add__)
        assert getattr(blocks, "losses", None) is None or blocks.losses.since_pass == 0  # type: ignore[attr-defined]


def test_an_error_of_one_group_leaves_the_others_and_the_next_call() -> None:
    """Whoever works on the group; callers at the same time get their own answers."""
    X = np.random.default_rng(0).normal(size=(60_000, 8)).astype(np.float32)
    blocks, _ = blocks_of(X, n_threads=3)
    with blocks:
        assert len(blocks._groups) == 3

        def rows(some: list[Block], bad: int) -> int:
            if some is blocks._groups[bad]:
                raise DataError(f"group {bad}")
            return sum(block.n_rows for block in some)

        for bad in range(3):
            with pytest.raises(DataError, match=f"group {bad}"):
                blocks.map_reduce(rows, bad, combine=int.__add__)

        def total(some: list[Block]) -> int:
            time.sleep(0.001)
            return sum(block.n_rows for block in some)

        assert blocks.map_reduce(total, combine=int.__add__) == 60_000
        with ThreadPoolExecutor(4) as callers:
            jobs = [callers.submit(blocks.map_reduce, total, combine=int.__add__) for _ in range(40)]
        assert [job.result() for job in jobs] == [60_000] * 40


def test_a_caller_needs_no_thread_of_the_pool() -> None:
    """With all threads busy, also when the blocks are closed meanwhile, the calling thread does the work alone."""
    X = np.random.default_rng(0).normal(size=(60_000, 8)).astype(np.float32)
    blocks, _ = blocks_of(X, n_threads=2)
    begun, free, started = Event(), Event(), Semaphore(0)

    def keep_busy() -> None:
        started.release()
        free.wait(60)

    def rows(some: list[Block]) -> int:
        begun.set()
        assert closes.wait(60)
        return sum(block.n_rows for block in some)

    busy = [blocks._pool.submit(keep_busy) for _ in range(2)]
    try:
        assert all(started.acquire(timeout=60) for _ in busy)
        closes = Event()
        closes.set()
        assert blocks.map_reduce(rows, combine=int.__add__) == 60_000
        begun.clear()
        closes.clear()
        with ThreadPoolExecutor(1) as caller:
            job = caller.submit(blocks.map_reduce, rows, combine=int.__add__)
            assert begun.wait(60)
            blocks.close(wait=False)
            closes.set()
            assert job.result(timeout=60) == 60_000
        assert not any(one.done() for one in busy)
    finally:
        free.set()


def test_the_first_groups_error_is_raised_of_several() -> None:
    """Whichever comes first, it is that of the lowest group, as in a loop."""
    X = np.random.default_rng(0).normal(size=(60_000, 8)).astype(np.float32)
    blocks, _ = blocks_of(X, n_threads=3)
    with blocks:

        def refused(some: list[Block]) -> int:
            i = next(i for i, group in enumerate(blocks._groups) if group is some)
            time.sleep(0.02 * (3 - i))
            raise DataError(f"group {i}")

        for _ in range(3):
            with pytest.raises(DataError, match="group 0"):
                blocks.map_reduce(refused, combine=int.__add__)


def test_summary_is_that_of_the_rows(engine: Maker) -> None:
    """Counts, extremes and the heaviest weight are those of the rows, under nulls="drop" of the kept ones."""
    table = Table(seed=4, n_rows=1000, dtype="float64", nulls="drop")
    rows, weights = np.stack(table.columns(), axis=1), table.weights()
    kept = ~np.isnan(rows).any(axis=1)
    stored = rows[kept] - table.preparation().shift
    with closing(engine(table, 90)) as blocks:
        assert (blocks.n_features, blocks.dtype) == (3, np.float64)
        assert blocks.summary.n_samples == kept.sum()
        assert blocks.summary.n_weighted == np.count_nonzero(weights[kept])
        assert blocks.summary.highest_weight == weights[kept].max()
        np.testing.assert_array_equal(blocks.summary.lowest, stored.min(axis=0))
        np.testing.assert_array_equal(blocks.summary.highest, stored.max(axis=0))


def test_map_blocks_changes_every_block(engine: Maker) -> None:
    """map_blocks replaces each block by fn of it, twice in a row too."""
    with closing(engine()) as blocks:
        before = blocks.summary
        with closing(
            blocks.map_blocks(engine_data.scaled, 2.0).map_blocks(engine_data.scaled, 4.0)
        ) as changed:
            np.testing.assert_array_equal(changed.summary.highest, before.highest * 8)
            assert sorted(changed.map_reduce(engine_data.ids_of, combine=list.__add__)) == list(range(3000))


def test_changed_blocks_replace_the_old() -> None:
    """In process too, map_blocks never holds the data twice: each old block is freed as its new one is made."""
    with LocalBlocks(packed(TABLE, cut(3000, 300)), n_threads=2) as blocks:
        old = [weakref.ref(block.tiles) for block in blocks.blocks]
        left: list[int] = []

        def look(block: Block) -> Block:
            left.append(sum(tiles() is not None for tiles in old))
            return engine_data.scaled(block, 2.0)

        with closing(blocks.map_blocks(look)):
            # Two at work on two threads, and one whose thread has not let go of it yet.
            assert left[-1] <= 3
            assert not any(tiles() is not None for tiles in old)


def test_map_runs_gives_each_run_its_rows_in_order(engine: Maker) -> None:
    """A run gets the pieces of its rows in their order, within one block, across blocks and across workers."""
    runs = [Range(0, 1), Range(100, 50), Range(250, 1000), Range(0, 3000), Range(2999, 1), Range(1400, 300)]
    with closing(engine(block_rows=130)) as blocks:
        found = blocks.map_runs(engine_data.rows_between, engine_data.gathered, runs, "name")
        assert found == [
            ("name", run.first_row, list(range(run.first_row, run.first_row + run.n_rows))) for run in runs
        ]
        assert blocks.map_runs(engine_data.rows_between, engine_data.gathered, [], "name") == []


@pytest.mark.parametrize("method", seeding.METHODS)
def test_seeds_do_not_depend_on_blocks(engine: Maker, method: str) -> None:
    """Every way of seeding finds the same rows on either engine, with weights and dropped rows."""
    table = Table(seed=2, n_rows=2000, nulls="drop")
    with whole(table) as one, closing(engine(table, 111)) as blocks:
        expected = seeding.seeds(one, 7, 42, method)
        assert seeding.seeds(blocks, 7, 42, method).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [True, False])
def test_lloyd_does_not_depend_on_blocks(engine: Maker, dtype: str, weighted: bool) -> None:
    """Centroids, inertia, sizes and the whole history have the same bits on either engine."""
    table = Table(seed=3, n_rows=1500, dtype=dtype, weighted=weighted)
    with whole(table) as one, closing(engine(table, 200)) as blocks:
        start = seeding.random_rows(one, 9, 5)
        expected = lloyd(one, start, Limits(), Identity())
        assert same_fit(lloyd(blocks, start, Limits(), Identity()), expected)
        assert evaluated(blocks, expected.centroids) == evaluated(one, expected.centroids)


def test_empty_clusters_are_refilled_alike(engine: Maker) -> None:
    """Starts far from every row leave clusters empty, which take the same farthest rows on either engine."""
    start = np.concatenate((np.zeros((1, 3)), 1000.0 + np.arange(12.0).reshape(4, 3)))
    with whole(TABLE) as one, closing(engine(block_rows=170)) as blocks:
        expected = lloyd(one, start, Limits(), Identity())
        assert min(expected.sizes) > 0
        assert same_fit(lloyd(blocks, start, Limits(), Identity()), expected)


def test_moments_do_not_depend_on_blocks(engine: Maker) -> None:
    """Means and variances over values that are not null have the same bits on either engine."""
    table = Table(seed=6, n_rows=1200, nulls="mean", dtype="float64")
    with whole(table) as one, closing(engine(table, 77)) as blocks:
        for found, expected in zip(packing.moments(blocks), packing.moments(one), strict=True):
            assert found.tobytes() == expected.tobytes()


def test_restarts_share_the_blocks(engine: Maker) -> None:
    """Restarts that run at once over the same blocks give what each gives alone."""
    choices = Settings(6, n_init=5, seed=3, tol=0.0)
    with whole(TABLE) as one, closing(engine()) as blocks:
        alone = concurrently(lambda progress: None, 1)(fit_of(one, choices), restarts_of(choices))
        together = concurrently(lambda progress: None, 5)(fit_of(blocks, choices), restarts_of(choices))
    assert len(together) == 5
    assert all(same_fit(a, b) for a, b in zip(alone, together, strict=True))


def test_the_python_api_takes_blocks(engine: Maker) -> None:
    """kmeans() on blocks of either engine gives the model of the same rows."""
    with whole(TABLE) as one, closing(engine()) as blocks:
        expected = kmeans(one, 4, n_init=2, seed=9, preparation=TABLE.preparation())
        found = kmeans(blocks, 4, n_init=2, seed=9, preparation=TABLE.preparation())
    assert found.centroids.tobytes() == expected.centroids.tobytes()
    assert found.inertia == expected.inertia


def test_a_load_that_fails_names_its_cause(cluster: Cluster) -> None:
    """Bad data found by a worker while it loads is raised here as what it is, not as a lost worker."""
    bad = Table(seed=1, n_rows=100, nulls="infinite")
    with pytest.raises(DataError, match="infinite"):
        DaskBlocks(cluster, recipes(bad, [0, 50, 100], blocks_per_load=1))


@given(seed=st.integers(0, 2**20), n_rows=st.integers(8, 700), cuts=st.lists(st.integers(1, 699), max_size=6))
@settings(max_examples=12)
def test_any_rows_in_any_blocks(cluster: Cluster, seed: int, n_rows: int, cuts: list[int]) -> None:
    """A fit of any rows cut anywhere equals that of one block, in process and on the workers."""
    table = Table(seed, n_rows, n_features=2, nulls="drop")
    inner = sorted({c for c in cuts if c < n_rows})
    edges = [0, *inner, n_rows]
    choices = Settings(3, n_init=1, seed=seed, tol=0.0)

    def fitted(blocks: Blocks) -> Fit:
        with closing(blocks):
            return concurrently(lambda progress: None, 1)(fit_of(blocks, choices), restarts_of(choices))[0]

    expected = fitted(whole(table))
    assert same_fit(fitted(LocalBlocks(packed(table, edges), n_threads=3)), expected)
    assert same_fit(fitted(DaskBlocks(cluster, recipes(table, edges, blocks_per_load=1))), expected)


def test_one_message_per_worker_and_pass(cluster: Cluster) -> None:
    """A pass sends one message to each worker, be it over 2 blocks or over 60."""
    client = cluster.client
    for block_rows in (1500, 50):
        with closing(DaskBlocks(cluster, recipes(TABLE, cut(3000, block_rows), 1))) as blocks:
            client.run(count_messages)
            for _ in range(5):
                blocks.map_reduce(engine_data.count_of, combine=int.__add__)
            assert list(client.run(counted_messages).values()) == [5, 5]


def test_quick_questions_take_no_thread_of_their_own(cluster: Cluster) -> None:
    """After some quick ones of a function the event loop answers more of it, errors too; else threads do."""
    with closing(DaskBlocks(cluster, recipes(TABLE, cut(3000, 300), 1))) as blocks:

        def by_threads(seconds: float, fn: Callable[..., set[str]] = engine_data.threads_after) -> list[bool]:
            names = blocks.map_reduce(fn, seconds, combine=set.union)
            return [name.startswith("shard-call") for name in names]

        assert all(by_threads(0.02) + by_threads(0.0))
        wait_until(lambda: not any(by_threads(0.0)))
        assert all(by_threads(0.02, engine_data.other_threads_after))  # another function
        for _ in range(6):
            with pytest.raises(LookupError, match="row 7 is refused"):
                blocks.map_reduce(engine_data.refusing, 7, combine=int.__add__)
        by_threads(0.02)
        assert all(by_threads(0.0))
        large = "x" * 2**17
        assert all(all(by_threads_of(blocks, large)) for _ in range(6))


def by_threads_of(blocks: DaskBlocks, large: str) -> list[bool]:
    """Tell whether threads answer a large question."""
    names = blocks.map_reduce(engine_data.threads_of, large, combine=set.union)
    return [name.startswith("shard-call") for name in names]


def test_calls_that_wait_go_in_one_message(cluster: Cluster, tmp_path: Path) -> None:
    """While two messages are on their way, what others ask waits and goes in one; each gets its own answer or error."""
    gate = tmp_path / "open"
    with (
        closing(DaskBlocks(cluster, recipes(TABLE, cut(3000, 300), 1))) as blocks,
        ThreadPoolExecutor(12) as pool,
    ):
        cluster.client.run(count_messages)
        ask = partial(pool.submit, blocks.map_reduce)
        gated = [ask(engine_data.count_once_there, str(gate), combine=int.__add__) for _ in range(2)]
        wait_until(lambda: blocks._rounds._n_sent == 2)
        good = [ask(engine_data.count_of, combine=int.__add__) for _ in range(8)]
        bad = [ask(engine_data.refusing, row_id, combine=int.__add__) for row_id in (5, 2995)]
        wait_until(lambda: len(blocks._rounds._waiting) == 10)
        gate.touch()
        assert [call.result() for call in (*gated, *good)] == [3000] * 10
        for call, row_id in zip(bad, (5, 2995), strict=True):
            with pytest.raises(LookupError, match=f"row {row_id} is refused"):
                call.result()
        assert list(cluster.client.run(counted_messages).values()) == [3, 3]


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_closed_blocks_leave_the_workers(cluster: Cluster) -> None:
    """Closing frees the rows on every worker, and the shards that served them."""
    with closing(DaskBlocks(cluster, recipes(TABLE, cut(3000, 100), 1))):
        assert sum(n for n, _ in cluster.client.run(held).values()) >= 30
    deadline = time.monotonic() + 30
    while (left := set(cluster.client.run(held).values())) != {(0, 0)} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == {(0, 0)}


def held(dask_worker: Any) -> tuple[int, int]:
    """Return how many results and shards a worker holds."""
    return len(dask_worker.data), len(dask_worker.plugins[PLUGIN].shards)


def count_messages(dask_worker: Any) -> None:
    """Count what a worker is asked from now on."""
    dask_worker.kmeans_messages = 0
    answer = dask_worker.plugins[PLUGIN].map

    async def counting(**message: Any) -> bytes:
        dask_worker.kmeans_messages += 1
        return bytes(await answer(**message))

    dask_worker.handlers["kmeans_map"] = counting


def counted_messages(dask_worker: Any) -> int:
    """Return the count, and stop counting."""
    dask_worker.handlers["kmeans_map"] = dask_worker.plugins[PLUGIN].map
    return int(dask_worker.kmeans_messages)
