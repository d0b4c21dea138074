"""Above some number of workers the client asks a few, each of which asks others: with the same answers and recovery."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from kmeans_dask.dask_blocks import DaskBlocks, groups_of
from kmeans_dask.dask_cluster import Cluster
from kmeans_dask.lloyd import Fit, Identity, Limits, Progress, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.seeding import seeds
from pipeline.cluster import connected
from pipeline.config import DaskConfig
from tests import engine_data
from tests.engine_data import Table, cut, packed, recipes

TABLE = Table(seed=1, n_rows=3000)
CUTS = cut(3000, 200)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Five worker processes: with n_direct=2 one that asks two others, and one that asks one."""
    with connected(DaskConfig(workers=5, memory_limit=2**30)) as cluster:
        yield cluster


def expected() -> Fit:
    """Return the fit of the same rows in this process."""
    with LocalBlocks(packed(TABLE, CUTS)) as blocks:
        return lloyd(blocks, seeds(blocks, 7, 3, "random"), Limits(), Identity())


def same(a: Fit, b: Fit) -> bool:
    """Whether two fits are the same bits."""
    return (a.centroids.tobytes(), a.sizes, a.inertia, a.n_iter) == (
        b.centroids.tobytes(),
        b.sizes,
        b.inertia,
        b.n_iter,
    )


def test_groups_hold_every_worker_once() -> None:
    """Few workers are asked one by one; many in about as many groups as a group has workers."""
    names = [str(i) for i in range(100)]
    assert groups_of(names[:16], 16) == [[name] for name in names[:16]]
    groups = groups_of(names, 16)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert [len(group) for group in groups] == [10] * 10
    assert max(map(len, groups_of(names[:17], 16))) == 5


def test_groups_give_the_same_bits(cluster: Cluster) -> None:
    """Seeds and a fit over workers in groups are those of this process."""
    with closing(DaskBlocks(cluster, recipes(TABLE, CUTS, 1), n_direct=2)) as blocks:
        fit = lloyd(blocks, seeds(blocks, 7, 3, "random"), Limits(), Identity())
    assert same(fit, expected())


def test_an_error_in_a_group_reaches_the_caller(cluster: Cluster) -> None:
    """Whichever worker of a group fails, its error arrives as it is, and the next question is answered."""
    with closing(DaskBlocks(cluster, recipes(TABLE, CUTS, 1), n_direct=2)) as blocks:
        for row_id in range(50, 3000, 200):
            with pytest.raises(LookupError, match=f"row {row_id} is refused"):
                blocks.map_reduce(engine_data.refusing, row_id, combine=int.__add__)
        assert blocks.map_reduce(engine_data.count_of, combine=int.__add__) == 3000


@pytest.mark.fault
def test_a_worker_of_a_group_is_killed(cluster: Cluster) -> None:
    """A worker that only another worker talks to dies in mid-fit: the fit is the same bits."""
    with closing(DaskBlocks(cluster, recipes(TABLE, CUTS, 1), n_direct=2)) as blocks:
        groups = groups_of(blocks._loads.current().addresses, 2)
        victim = groups[0][-1]
        assert len(groups[0]) == 3
        pid = cluster.client.run(os.getpid, workers=[victim])[victim]

        def kill(progress: Progress) -> None:
            if progress.iteration == 2:
                os.kill(pid, signal.SIGKILL)

        fit = lloyd(blocks, seeds(blocks, 7, 3, "random"), Limits(), Identity(), kill)
        assert blocks.losses.workers == 1
    assert fit.n_iter > 3
    assert same(fit, expected())
