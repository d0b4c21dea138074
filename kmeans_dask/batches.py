"""Centroids that follow the rows of one small batch after another.

D. Sculley: Web-scale k-means clustering, 2010. Each centroid is the mean of the rows that were nearest to it when their
batch came.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import randoms
from kmeans_dask.blocks import NO_WEIGHTS, Block, Blocks, Floats
from kmeans_dask.lloyd import Hook, Motion, Progress, Stop, Value, totals_of
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import block_of_rows


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Centroids (k, d), and the rows and weight, (k,), that each has followed."""

    centroids: Floats
    rows: npt.NDArray[np.int64]
    weights: Floats

    @classmethod
    def of(cls, batch: Blocks, centroids: Floats) -> "Seen":
        """Return centroids that have followed a first batch."""
        totals = totals_of(batch, centroids)
        return cls(centroids, np.array(totals.value.sizes), totals.weights)

    def after(self, batch: Blocks, motion: Motion) -> tuple["Seen", Value]:
        """Return the centroids after a batch, and how well they described it before."""
        totals = totals_of(batch, self.centroids)
        weights = self.weights + totals.weights
        joined = totals.weights > 0
        means = self.centroids.copy()
        step = totals.sums.T[joined] - totals.weights[joined, None] * means[joined]
        means[joined] += step / weights[joined, None]
        rows = self.rows + np.array(totals.value.sizes)
        return Seen(motion.after(means, self.centroids), rows, weights), totals.value


@dataclass(frozen=True, slots=True)
class Way:
    """How centroids follow batches: until `patience` of them have no lower distortion than as many before."""

    motion: Motion
    patience: int | None
    hook: Hook
    seed: int

    def followed(self, seen: Seen, batches: Iterable[Blocks]) -> tuple[Seen, list[Progress], Stop]:
        """Return the centroids after the batches, and how they described each before they followed it."""
        history = list[Progress]()
        last = time.monotonic()
        for batch in batches:
            seen, value = seen.after(batch, self.motion)
            now = time.monotonic()
            n, n_rows = len(history) + 1, batch.summary.n_samples
            history.append(Progress(0, self.seed, n, value.inertia, value.distortion, n_rows, now - last))
            last = now
            if self.hook(history[-1]):
                return seen, history, "stopped"
            if self.patience is not None and _no_better(history, self.patience):
                return seen, history, "tol"
        return seen, history, "max_iter"


def _no_better(history: Sequence[Progress], n: int) -> bool:
    """Whether the last n distortions together are no lower than the n before them."""
    values = [progress.distortion for progress in history[-2 * n :]]
    return len(values) >= 2 * n and math.fsum(values[-n:]) >= math.fsum(values[:n])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows: row_ids (m,), values (m, d), weights (m,)."""

    row_ids: npt.NDArray[np.int64]
    values: Floats
    weights: Floats

    def joined(self, *others: "Rows") -> "Rows":
        """Return all of them."""
        parts = (self, *others)
        return Rows(
            np.concatenate([part.row_ids for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )

    def as_blocks(self) -> LocalBlocks:
        """Return the rows in the order of their ids, as blocks of this process."""
        order = np.argsort(self.row_ids, kind="stable")
        weights = self.weights[order]
        block = block_of_rows(self.values[order], NO_WEIGHTS if (weights == 1).all() else weights)
        return LocalBlocks([block], n_threads=1)


def first_batch(blocks: Blocks, n_rows: int, n_clusters: int, seed: int) -> LocalBlocks:
    """Return a batch for the first centroids: three times as large, more where too few of its rows have weight."""
    size = 3 * max(n_rows, n_clusters)
    while True:
        batch = _batch(blocks, size, randoms.derived(seed, "first batch"))
        if batch.summary.n_weighted >= n_clusters or size >= blocks.summary.n_samples:
            return batch
        batch.close()
        size *= 4


def batches(blocks: Blocks, n_rows: int, seed: int) -> Iterator[LocalBlocks]:
    """Yield batches of n_rows drawn alike, with replacement, for ever; of all rows, if there are no more."""
    for i in count():
        with _batch(blocks, n_rows, randoms.derived(seed, "batch", i)) as batch:
            yield batch


def _batch(blocks: Blocks, n_rows: int, key: int) -> LocalBlocks:
    n_samples = blocks.summary.n_samples
    if n_rows < n_samples:
        row_ids = (randoms.uniforms(key, np.arange(n_rows)) * n_samples).astype(np.int64)
    else:
        row_ids = np.arange(n_samples)
    return blocks.map_reduce(taken, np.sort(row_ids), combine=Rows.joined).as_blocks()


def taken(blocks: Sequence[Block], row_ids: npt.NDArray[np.int64]) -> Rows:
    """Return those of the rows with these ids, ascending and perhaps repeated, that lie here."""
    return Rows.joined(*(_of_block(block, row_ids) for block in blocks))


def _of_block(block: Block, row_ids: npt.NDArray[np.int64]) -> Rows:
    inside = np.searchsorted(row_ids, [block.first_row, block.first_row + block.n_source_rows])
    row_ids = row_ids[inside[0] : inside[1]]
    order, held = _sorted_ids(block)
    at = np.minimum(np.searchsorted(held, row_ids), max(0, len(held) - 1))
    here = held[at] == row_ids if len(held) else np.zeros(len(row_ids), bool)
    places = order[at[here]]
    weights = block.weights[places] if block.weights.size else np.ones(len(places))
    return Rows(row_ids[here], block.rows(places), weights)


def _sorted_ids(block: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the places of the packed rows by row id, and these ids; remembered with the block."""
    found: tuple[npt.NDArray[Any], npt.NDArray[np.int64]] | None = block.cache.get("sorted ids")
    if found is None:
        row_ids = block.row_ids()
        order = np.argsort(row_ids, kind="stable")
        found = block.cache["sorted ids"] = (order, row_ids[order])
    return found
