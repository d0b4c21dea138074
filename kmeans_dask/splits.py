"""Bisecting k-means: one cluster, then the worst cluster split in two, until there are enough.

M. Steinbach, G. Karypis, V. Kumar: A comparison of document clustering techniques, 2000. A row belongs to the leaf that
the splits lead it to, each to the nearer of its two centroids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kmeans_dask import kernels, passes, randoms, sums
from kmeans_dask.blocks import Block, Blocks, Floats, Labels
from kmeans_dask.chosen import Chosen, taken
from kmeans_dask.lloyd import Hook, evaluated
from kmeans_dask.restarts import Settings, best, check_samples, concurrently, fit_of, restarts_of

STRATEGIES = ("biggest_inertia", "largest_cluster")
Side = tuple[Floats, int]  # two centroids (2, d), and which of them is nearer
Path = tuple[Side, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A cluster: the way to it, its centroid (d,), and how it describes its rows."""

    path: Path
    centroid: Floats
    size: int
    n_weighted: int
    inertia: float
    n_iter: int = 0


def bisected(
    blocks: Blocks, settings: Settings, strategy: str, hook: Hook, n_threads: int
) -> tuple[list[Leaf], float]:
    """Return settings.n_clusters leaves, neighbours in the tree beside each other, and the weight of all rows.

    strategy: one of `STRATEGIES`.
    """
    check_samples(blocks, settings.n_clusters)
    whole = fit_of(blocks, replace(settings, n_clusters=1, n_init=1))(restarts_of(settings)[0], hook)
    leaves = [Leaf((), whole.centroids[0], whole.sizes[0], blocks.summary.n_weighted, whole.inertia)]
    for i in range(settings.n_clusters - 1):
        worst = _worst(leaves, strategy)
        leaf = leaves[worst]
        seeded = replace(settings, n_clusters=2, seed=randoms.derived(settings.seed, "bisect", i) >> 1)
        leaves[worst : worst + 1] = _split(blocks, leaf, seeded, hook, n_threads)
        forget(blocks, leaf.path)
    for leaf in leaves:
        forget(blocks, leaf.path)
    return leaves, weight_of(blocks)


def _worst(leaves: Sequence[Leaf], strategy: str) -> int:
    """Return the leaf to split: of those that can be, if any, the first of the highest inertia or size."""

    def rank(i: int) -> tuple[bool, float, int]:
        leaf = leaves[i]
        score = leaf.inertia if strategy == "biggest_inertia" else leaf.size
        return leaf.n_weighted > 1 and leaf.inertia > 0, score, -i

    return max(range(len(leaves)), key=rank)


def _split(blocks: Blocks, leaf: Leaf, settings: Settings, hook: Hook, n_threads: int) -> list[Leaf]:
    """Return the two halves of a leaf; of one without distinct rows, all and nothing."""
    if leaf.n_weighted < 2 or leaf.inertia == 0:
        both = np.stack([leaf.centroid, leaf.centroid])
        rest = Leaf((*leaf.path, (both, 1)), leaf.centroid, 0, 0, 0.0)
        return [replace(leaf, path=(*leaf.path, (both, 0))), rest]
    rows = within(blocks, leaf.path)
    fit = best(concurrently(hook, n_threads)(fit_of(rows, settings), restarts_of(settings)))
    centroids = fit.centroids[np.lexsort(fit.centroids.T[::-1])]
    found = []
    for side in (0, 1):
        path = (*leaf.path, (centroids, side))
        half = within(blocks, path)
        value = evaluated(half, centroids[side : side + 1])
        found.append(
            Leaf(path, centroids[side], value.sizes[0], half.summary.n_weighted, value.inertia, fit.n_iter)
        )
    return found


def within(blocks: Blocks, path: Path) -> Blocks:
    """Return the rows that a path leads to."""
    return Chosen(blocks, partial(rows_at, path=path)) if path else blocks


def rows_at(block: Block, path: Path) -> Block:
    """Return a block's rows at the end of a path, remembered with the block."""
    if not path:
        return block
    name = _name(path)
    found = block.cache.get(name)
    if found is None:
        before = rows_at(block, path[:-1])
        centroids, side = path[-1]
        labels = passes.labels_of(before, centroids, passes.scan_of(centroids, before.tiles.dtype))
        found = block.cache[name] = taken(before, np.flatnonzero(labels == side))
    return found


def inertia_of(blocks: Blocks, paths: Sequence[Path], centroids: Floats) -> float:
    """Return the inertia of all rows, each to the centroid of its leaf, (k, d)."""
    scale = passes.exponents(blocks.summary, centroids).inertia
    total = blocks.map_reduce(_costs, paths, centroids, sums.scale(scale), combine=int.__add__)
    return sums.value(total, scale, sums.SQUARE_BITS)


def _costs(blocks: Sequence[Block], paths: Sequence[Path], centroids: Floats, factor: float) -> int:
    total = 0
    for block in blocks:
        sq_distances = passes.sq_distances_of(block, centroids, leaf_labels(block, paths))
        total += sums.joined(*kernels.total_of(sq_distances, block.weights, factor))
    return total


def weight_of(blocks: Blocks) -> float:
    """Return the weight of all rows."""
    scale = sums.exponent(blocks.summary.highest_weight)
    return sums.value(
        blocks.map_reduce(_weights, sums.scale(scale), combine=int.__add__), scale, sums.SQUARE_BITS
    )


def _weights(blocks: Sequence[Block], factor: float) -> int:
    return sum(
        sums.joined(*kernels.total_of(np.ones(block.n_rows), block.weights, factor)) for block in blocks
    )


def _name(path: Path) -> str:
    return "rows-" + "-".join(f"{passes.digest(centroids)}{side}" for centroids, side in path)


def forget(blocks: Blocks, path: Path) -> None:
    """Let go of the rows at the end of a path."""
    if path:
        blocks.map_reduce(passes.forget, _name(path), combine=int.__add__)


def labels_of(blocks: Blocks, paths: Sequence[Path]) -> Labels:
    """Return the leaf of each row of blocks of this process whose row ids are 0 to n_samples - 1."""
    labels = np.empty(blocks.summary.n_samples, np.int32)

    def write(some: Sequence[Block]) -> int:
        for block in some:
            labels[block.row_ids()] = leaf_labels(block, paths)
        return 0

    blocks.map_reduce(write, combine=int.__add__)
    return labels


def leaf_labels(block: Block, paths: Sequence[Path]) -> Labels:
    """Return the leaf of each packed row, (n_rows,), among the paths in their order."""
    labels = np.empty(block.n_rows, np.int32)
    open_ = [(block, np.arange(block.n_rows), list(range(len(paths))), 0)]
    while open_:
        rows, places, leaves, depth = open_.pop()
        if len(leaves) == 1:
            labels[places] = leaves[0]
            continue
        centroids, _ = paths[leaves[0]][depth]
        nearer = passes.labels_of(rows, centroids, passes.scan_of(centroids, rows.tiles.dtype))
        for side in (0, 1):
            which = np.flatnonzero(nearer == side)
            beyond = [leaf for leaf in leaves if paths[leaf][depth][1] == side]
            open_.append((taken(rows, which), places[which], beyond, depth + 1))
    return labels
