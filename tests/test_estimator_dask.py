"""KMeans on Dask input: on the current client's workers the bytes of a NumPy fit, and lazy results in its chunks."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from kmeans_dask import BisectingKMeans, KMeans, MiniBatchKMeans, dask_inputs
from kmeans_dask.errors import DataError, TooFewSamplesError
from kmeans_dask.lloyd import Progress
from kmeans_dask.packing import Wishes
from tests.estimator_data import blobs, same

X = blobs(4000, 4).astype(np.float32)
WEIGHTS = np.random.default_rng(2).integers(0, 4, len(X)) / 2
NUMPY = KMeans(5, n_init=2, random_state=0).fit(X, sample_weight=WEIGHTS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes."""
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield cluster


@pytest.fixture(params=["here", "workers"])
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """In process without a client, or with one."""
    if request.param == "here":
        yield "here"
    else:
        with Client(request.getfixturevalue("cluster")):
            yield "workers"


def without_sizes(rows: Any) -> Any:
    """Return a Dask array whose chunk sizes are unknown."""
    chunks = ((np.nan,) * rows.numblocks[0], *rows.chunks[1:])
    return da.map_blocks(np.copy, rows, chunks=chunks, dtype=rows.dtype, meta=rows._meta)


@pytest.mark.parametrize(
    "chunks",
    [(4000, 4), (700, 3), ((0, 1, 0, 3999, 0), (1, 3)), (512, 1)],
    ids=["one", "split", "empty", "many"],
)
@pytest.mark.parametrize("known", [True, False])
def test_the_bytes_of_a_numpy_fit(where: str, chunks: Any, known: bool) -> None:
    """Any chunks, empty ones and unknown sizes included; labels and distances keep the chunks and are lazy."""
    rows, weights = da.from_array(X, chunks=chunks), da.from_array(WEIGHTS, chunks=chunks[0])
    if not known:
        rows, weights = without_sizes(rows), without_sizes(weights)
    km = KMeans(5, n_init=2, random_state=0).fit(rows, sample_weight=weights)
    assert isinstance(km.labels_, da.Array)
    assert same(km, NUMPY)
    lazy = km.transform(rows)
    for found in (km.labels_, km.predict(rows), lazy):
        assert [n if known else 0 for n in found.chunks[0]] == [n if known else 0 for n in rows.chunks[0]]
    assert lazy.chunks[1] == (5,)
    assert np.array_equal(lazy.compute(), NUMPY.transform(X))
    assert km.score(rows, sample_weight=weights) == -NUMPY.inertia_
    assert isinstance(NUMPY.predict(X), np.ndarray)


def test_splits_on_workers(where: str) -> None:
    """Bisecting k-means: the same bytes; its rows are chosen where they are."""
    expected = BisectingKMeans(5, n_init=2, random_state=0).fit(X, sample_weight=WEIGHTS)
    rows, weights = da.from_array(X, chunks=(700, 3)), da.from_array(WEIGHTS, chunks=700)
    km = BisectingKMeans(5, n_init=2, random_state=0).fit(without_sizes(rows), sample_weight=weights)
    assert same(km, expected)
    assert np.array_equal(km.predict(rows[:1000]).compute(), expected.labels_[:1000])
    assert km.score(rows, sample_weight=weights) == -expected.inertia_


def test_batches_from_workers(where: str) -> None:
    """Small batches: the same bytes; each is drawn from the chunks, wherever they are."""
    expected = MiniBatchKMeans(5, batch_size=500, n_init=2, random_state=0).fit(X, sample_weight=WEIGHTS)
    rows, weights = da.from_array(X, chunks=(700, 3)), da.from_array(WEIGHTS, chunks=700)
    km = MiniBatchKMeans(5, batch_size=500, n_init=2, random_state=0).fit(rows, sample_weight=weights)
    assert same(km, expected)
    assert same(km.partial_fit(without_sizes(rows[:1500])), expected.partial_fit(X[:1500]))


def test_data_frames(where: str) -> None:
    """Dask DataFrames and series are arrays with names; also with the weights in memory."""
    frame = pd.DataFrame(X, columns=list("abcd"))
    rows = dd.from_pandas(frame, npartitions=3)
    weights = dd.from_pandas(pd.Series(WEIGHTS), npartitions=3)
    expected = KMeans(5, n_init=2, random_state=0).fit(frame, sample_weight=WEIGHTS)
    km = KMeans(5, n_init=2, random_state=0).fit(rows, sample_weight=weights)
    assert same(km, expected)
    assert km.feature_names_in_.tolist() == list("abcd")
    assert km.predict(frame).tolist() == km.predict(rows).compute().tolist()
    with pytest.raises(ValueError, match="feature names should match"):
        km.predict(rows.rename(columns={"a": "z"}))
    with pytest.raises(DataError, match=r"Expected 2D input, got a Dask .* of 1 dimensions"):
        KMeans(2).fit(rows["a"])
    with pytest.raises(DataError, match="Dask array or series with the same chunks; found an array"):
        KMeans(2).fit(rows, sample_weight=WEIGHTS)
    text = dd.from_pandas(pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}), npartitions=1)
    with pytest.raises(DataError, match="X must be numbers; found dtype"):
        KMeans(2).fit(text)


def noted(rows: np.ndarray, folder: str) -> np.ndarray:
    """Leave a file for each chunk that is made."""
    if len(rows):
        (Path(folder) / f"{rows[0, 0]!r}-{os.urandom(4).hex()}").touch()
    return rows


@pytest.mark.parametrize("known", [True, False])
def test_each_chunk_is_made_once(where: str, known: bool, tmp_path: Path) -> None:
    """Whatever the restarts; labels make them again, when they are asked for."""
    rows = da.from_array(X, chunks=(500, 4)).map_blocks(noted, str(tmp_path), dtype=X.dtype, meta=X[:0])
    rows = rows if known else without_sizes(rows)
    km = KMeans(5, n_init=3, random_state=0).fit(rows)
    assert len(list(tmp_path.iterdir())) == 8
    km.labels_.compute()
    assert len(list(tmp_path.iterdir())) == 16


def test_small_chunks_are_packed_together(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours make as many blocks as there are threads, so that many chunks cost a pass no more than few."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    rows = da.from_array(X, chunks=(20, 4))
    weights = da.from_array(WEIGHTS, chunks=20)
    blocks, _ = dask_inputs.blocks_of(rows, weights, Wishes(tuple("abcd"), "float32"))
    assert blocks.n_blocks == 2
    assert blocks.summary.n_samples == len(X)
    assert blocks.summary.n_weighted == np.count_nonzero(WEIGHTS)
    blocks.close()


@pytest.mark.parametrize(
    ("sizes", "row_bytes", "n_threads", "loads"),
    [
        ([5, 5, 5, 5], 4, 2, [[0, 1], [2, 3]]),
        ([5, 0, 5, 0, 5, 5, 0], 4, 2, [[0, 2], [4, 5]]),
        ([1, 100, 1, 1], 4, 2, [[0, 1], [2, 3]]),
        ([2**20, 2**20, 2**20], 4, 1, [[0], [1], [2]]),
        ([2**19, 2**19, 2**20], 4, 1, [[0, 1], [2]]),
        ([2**18] * 12, 4, 2, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        ([3], 4, 16, [[0]]),
        ([0, 0], 4, 2, []),
    ],
)
def test_which_chunks_are_packed_together(
    sizes: list[int], row_bytes: int, n_threads: int, loads: list[list[int]]
) -> None:
    """Those that hold rows, in their order, about 4 MiB and as many for each thread; none is cut."""
    assert dask_inputs.loads_of(sizes, row_bytes, n_threads) == loads


def test_bad_rows_and_weights(where: str) -> None:
    """They are found in the chunks: the same kinds of errors, with their numbers."""
    rows = da.from_array(X, chunks=(900, 4))
    bad = X.copy()
    bad[3000:3003, 1] = np.nan
    with pytest.raises(ValueError, match="data must be finite; found 3 NaN or infinite values"):
        KMeans(3).fit(da.from_array(bad, chunks=(900, 4)))
    with pytest.raises(ValueError, match=r"sample_weight must be finite and >= 0; found -1"):
        KMeans(3).fit(rows, sample_weight=da.from_array(-np.ones(4000), chunks=900))
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(4000,\); found \(3999,\)"):
        KMeans(3).fit(rows, sample_weight=da.ones(3999, chunks=900))
    with pytest.raises(ValueError, match=r"must have the 5 chunks of X, of unknown sizes; found 4"):
        KMeans(3).fit(without_sizes(rows), sample_weight=without_sizes(da.ones(4000, chunks=1000)))
    with pytest.raises(TooFewSamplesError, match=r"n_clusters=30 needs at least 30 rows; the data hold 20"):
        KMeans(30).fit(without_sizes(rows[:20]))
    with pytest.raises(ValueError, match=r"0 sample\(s\).*Every chunk of X is empty"):
        KMeans(3).fit(without_sizes(rows[:0]))
    with pytest.raises(ValueError, match=r"0 sample\(s\).*Every chunk of X is empty"):
        NUMPY.score(rows[:0])
    with pytest.raises(ValueError, match="no such chunk"):
        KMeans(3).fit(rows.map_blocks(failing, dtype=X.dtype, meta=X[:0]))


def failing(rows: np.ndarray) -> np.ndarray:
    """Fail as the user's own function may."""
    raise ValueError("no such chunk")


@pytest.mark.fault
@pytest.mark.parametrize("known", [True, False])
def test_a_lost_worker_changes_no_bit(cluster: LocalCluster, known: bool) -> None:
    """A worker is killed between two iterations: its chunks are made again, and the fit is the same."""
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.iteration == 2 and not killed:
            pids = client.run(os.getpid)
            killed.append(pids[sorted(pids)[0]])
            os.kill(killed[0], signal.SIGKILL)

    rows = np.random.default_rng(4).normal(size=(4000, 4))
    expected = KMeans(6, n_init=1, random_state=0, tol=0).fit(rows)
    with Client(cluster) as client:
        lazy = da.from_array(rows, chunks=(300, 4))
        km = KMeans(6, n_init=1, random_state=0, tol=0, callback=kill).fit(
            lazy if known else without_sizes(lazy)
        )
        assert killed
        assert same(km, expected)
