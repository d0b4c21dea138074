"""A sample of the rows, the same on any engine, and silhouettes on it."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kmeans_dask import passes, randoms, score_kernels
from kmeans_dask.blocks import Block, Blocks, Floats, Labels
from kmeans_dask.packing import block_of_rows

SAMPLE_ROWS = 4096
_CHUNK_ROWS = 256
_CHUNK_SUMS = 2**21  # of distances that a thread holds at once


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows drawn by their hashes: row_ids (m,), values (m, d), weights (m,)."""

    row_ids: npt.NDArray[np.int64]
    values: Floats
    weights: Floats

    def taken(self, which: npt.NDArray[np.intp]) -> "Sample":
        """Return the chosen rows, in that order."""
        return Sample(self.row_ids[which], self.values[which], self.weights[which])

    def labels(self, centroids: Floats) -> Labels:
        """Return the nearest centroid of each row, (m,)."""
        block = block_of_rows(self.values)
        return passes.labels_of(block, centroids, passes.scan_of(centroids, block.tiles.dtype))


def sampled(blocks: Blocks, m: int, seed: int) -> Sample:
    """Return m rows of positive weight drawn alike, or all of them when there are no more, by row id."""
    key = randoms.derived(seed, "sample")
    found: Sample = blocks.map_reduce(drawn, key, m, combine=partial(drawn_of_both, key=key, m=m))
    return found.taken(np.argsort(found.row_ids))


def drawn(blocks: Sequence[Block], key: int, m: int) -> Sample:
    """Return the m rows of positive weight with the smallest hashes, by hash."""
    found = Sample(np.empty(0, np.int64), np.empty((0, blocks[0].n_features)), np.empty(0))
    for block in blocks:
        row_ids = block.row_ids()
        order = np.argsort(randoms.row_hashes(key, row_ids), kind="stable")
        if block.weights.size:
            order = order[block.weights[order] > 0]
        order = order[:m]
        weights = block.weights[order] if block.weights.size else np.ones(len(order))
        found = drawn_of_both(found, Sample(row_ids[order], block.rows(order), weights), key, m)
    return found


def drawn_of_both(a: Sample, b: Sample, key: int, m: int) -> Sample:
    """Return the m of smallest hash among the rows of both."""
    both = Sample(
        np.concatenate((a.row_ids, b.row_ids)),
        np.concatenate((a.values, b.values)),
        np.concatenate((a.weights, b.weights)),
    )
    return both.taken(np.argsort(randoms.row_hashes(key, both.row_ids), kind="stable")[:m])


def silhouettes(
    sample: Sample, labellings: Sequence[Labels], n_threads: int | None = None
) -> list[float | None]:
    """Return the mean silhouette of the sample's rows under each labelling, (m,) each; None for a single cluster.

    Rousseeuw 1987: (b - a) / max(a, b), a the mean distance to the other rows of its cluster and b to those of the
    nearest other cluster; 0 for a row alone in its cluster. Distances and means count rows by their weights.
    """
    labels = np.stack(labellings)
    k, m = int(labels.max()) + 1, len(sample.weights)
    in_cluster: Floats = np.stack([np.bincount(line, sample.weights, k) for line in labels])
    alone = np.stack([(np.bincount(line, minlength=k) == 1)[line] for line in labels])

    chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_SUMS // (len(labels) * k)))

    def widths(first: int) -> Floats:
        totals = np.zeros((min(chunk_rows, m - first), len(labels), k))
        score_kernels.distance_sums(sample.values, sample.weights, first, labels, totals)
        rows = slice(first, first + len(totals))
        return _widths(totals, labels[:, rows], in_cluster, sample.weights[rows])

    with ThreadPoolExecutor(n_threads or len(os.sched_getaffinity(0))) as pool:
        found = np.concatenate(list(pool.map(widths, range(0, m, chunk_rows))))
    found[alone.T] = 0.0
    total = math.fsum(sample.weights.tolist())
    return [
        math.fsum((found[:, s] * sample.weights).tolist()) / total
        if np.count_nonzero(in_cluster[s]) > 1
        else None
        for s in range(len(labels))
    ]


def _widths(totals: Floats, labels: Labels, in_cluster: Floats, weights: Floats) -> Floats:
    """Return the silhouettes, (rows, s), of sums of distances (rows, s, k)."""
    own = labels.T[:, :, None]
    others = np.broadcast_to(in_cluster, totals.shape)
    rest = np.take_along_axis(others, own, 2)[:, :, 0] - weights[:, None]
    within = np.take_along_axis(totals, own, 2)[:, :, 0]
    a = np.divide(within, rest, out=np.zeros_like(within), where=rest > 0)
    means = np.divide(totals, others, out=np.full_like(totals, np.inf), where=others > 0)
    np.put_along_axis(means, own, np.inf, 2)
    b = means.min(axis=2)
    larger = np.maximum(a, b)
    found: Floats = np.divide(b - a, larger, out=np.zeros_like(a), where=(larger > 0) & np.isfinite(larger))
    return found
