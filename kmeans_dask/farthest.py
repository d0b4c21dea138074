"""The rows farthest from their centroids: what empty clusters are filled with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kmeans_dask.blocks import Block, Floats
from kmeans_dask.passes import labels_of, scan_of, sq_distances_of
from kmeans_dask.steps import remembered_labels


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that might become a centroid."""

    sq_distance: float
    row_id: int
    label: int
    weight: float
    row: Floats  # (d,)


def farthest_rows(
    blocks: Sequence[Block], centroids: Floats, m: int, last: tuple[str, str] | None = None
) -> list[Candidate]:
    """Return the m rows of positive weight and distance farthest from their centroid, ties to the lowest row id.

    last: the run, and the name of these centroids, of a pass whose labels are taken where blocks remember them.
    """
    known = remembered_labels(blocks, *last) if last else None
    if known is None:
        scan = scan_of(centroids, blocks[0].tiles.dtype)
        known = [labels_of(block, centroids, scan) for block in blocks]
    found: list[Candidate] = []
    for block, labels in zip(blocks, known, strict=True):
        sq_distances = sq_distances_of(block, centroids, labels)
        if block.weights.size:
            sq_distances = np.where(block.weights > 0, sq_distances, 0.0)
        least = np.partition(sq_distances, -m)[-m] if m < len(sq_distances) else 0.0
        order = np.flatnonzero(sq_distances >= least)
        order = order[np.lexsort((block.row_ids()[order], -sq_distances[order]))][:m]
        rows = block.rows(order)
        found += [
            Candidate(
                float(sq_distances[i]), block.row_id(int(i)), int(labels[i]),
                float(block.weights[i]) if block.weights.size else 1.0, row,
            )
            for i, row in zip(order, rows, strict=True)
            if sq_distances[i] > 0
        ]  # fmt: skip
        found = farthest(found, [], m)
    return found


def farthest(a: list[Candidate], b: list[Candidate], m: int) -> list[Candidate]:
    """Return the m farthest of two lists."""
    return sorted(a + b, key=lambda c: (-c.sq_distance, c.row_id))[:m]
