"""Blocks and a model -> label files, each written where most of its rows are."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kmeans_dask.agreement import Pairs, pairs
from kmeans_dask.arrow import arrow_of
from kmeans_dask.blocks import Block, Blocks, Floats, Labels
from kmeans_dask.passes import labels_of, scan_of, sq_distances_of
from pipeline.sink import PartRecord, write_part
from pipeline.source import Part, Plan, read_ids
from pipeline.storage import Store

MOST_PAIRS = 2**16  # of a cluster and a group


@dataclass(frozen=True, slots=True)
class PartRun:
    """One part to write, with what is needed to read its ids."""

    part: Part
    plan: Plan

    @property
    def first_row(self) -> int:
        """The row id of its first row."""
        return self.part.first_row

    @property
    def n_rows(self) -> int:
        """Its source rows, before any filter."""
        return self.part.n_rows


@dataclass(frozen=True, slots=True, eq=False)
class Naming:
    """Where the parts go, and what a row is told: the cluster id of its nearest centroid, (k, d) prepared."""

    store: Store
    run_id: str
    centroids: Floats
    cluster_ids: npt.NDArray[np.int32]
    groups: str | None = None  # an id column, to count how often each cluster meets each of its values


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """The label files, and how often each cluster meets each value of `groups`; None: not asked, or too many."""

    parts: tuple[PartRecord, ...]
    groups: str | None = None
    pairs: Pairs | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Listed rows of one block: row ids, (n,); clusters and distances mean nothing where `missing`."""

    row_ids: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float32]
    missing: npt.NDArray[np.bool_]


def write_labels(blocks: Blocks, plan: Plan, naming: Naming) -> Written:
    """Write every part of a plan; writing one again writes the same bytes."""
    runs = [PartRun(part, plan.narrowed(part.row_groups)) for part in plan.parts]
    written = [found for found in blocks.map_runs(piece_of, write_run, runs, naming) if found is not None]
    counts: Counter[tuple[Hashable, Hashable]] = Counter()
    for _, some in written:
        counts.update(some or {})
    counted = all(some is not None for _, some in written) and len(counts) <= MOST_PAIRS
    return Written(tuple(record for record, _ in written), naming.groups, counts if counted else None)


def piece_of(block: Block, first_row: int, stop_row: int, naming: Naming) -> Piece:
    """Label a block's listed rows from first_row up to stop_row."""
    listed = _ids(block, block.listed, block.n_source_rows)
    listed = listed[slice(*np.searchsorted(listed, (first_row, stop_row)))]
    clusters, distances = np.zeros(len(listed), np.int32), np.zeros(len(listed), np.float32)
    missing = np.ones(len(listed), np.bool_)
    kept = _ids(block, block.kept, block.n_rows)
    within = np.flatnonzero((kept >= first_row) & (kept < stop_row))
    if len(within):
        labels, found = _labelled(block, naming)
        at = np.searchsorted(listed, kept[within])
        clusters[at] = naming.cluster_ids[labels[within]]
        distances[at] = found[within]
        missing[at] = False
    return Piece(listed, clusters, distances, missing)


def _labelled(block: Block, naming: Naming) -> tuple[Labels, npt.NDArray[np.float32]]:
    """Return every packed row's label and distance, kept with the block for its other parts."""
    held = block.cache.get("written")
    if held is None or (held[0] is not naming.centroids and not np.array_equal(held[0], naming.centroids)):
        labels = labels_of(block, naming.centroids, scan_of(naming.centroids, block.tiles.dtype))
        sq_distances = sq_distances_of(block, naming.centroids, labels)
        held = (naming.centroids, labels, np.sqrt(sq_distances).astype(np.float32))
        block.cache["written"] = held
    return held[1], held[2]


def _ids(block: Block, offsets: npt.NDArray[np.uint32] | None, n: int) -> npt.NDArray[np.int64]:
    ids = np.arange(n, dtype=np.int64) if offsets is None else offsets.astype(np.int64)
    return ids + block.first_row


def write_run(
    run: PartRun, pieces: Sequence[Piece], naming: Naming
) -> tuple[PartRecord, Pairs | None] | None:
    """Write one part from the pieces of its rows, in row order; nothing where the filter leaves no row."""
    row_ids = np.concatenate([piece.row_ids for piece in pieces])
    if not len(row_ids):
        return None
    missing = np.concatenate([piece.missing for piece in pieces])
    clusters = arrow_of(np.concatenate([piece.clusters for piece in pieces]), missing)
    distances = arrow_of(np.concatenate([piece.distances for piece in pieces]), missing)
    listed = None if len(row_ids) == run.n_rows else row_ids - run.first_row
    ids = read_ids(run.plan, run.part, listed)
    first_row = run.first_row - run.plan.file(run.part.file).first_row
    record = write_part(
        naming.store, naming.run_id, run.part.file, first_row, ids=ids, clusters=clusters, distances=distances
    )
    return record, None if naming.groups is None else _pairs(clusters, ids[naming.groups])


def _pairs(clusters: pa.Array, groups: pa.ChunkedArray) -> Pairs | None:
    """Return how often each cluster meets each group; None where these are too many to be sent around."""
    counts = pairs(clusters, groups)
    return counts if len(counts) <= MOST_PAIRS else None
