"""What a pass over a run of blocks computes with centroids, and how partial results combine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, ledgers, repeats, rivals, scans, sums
from kmeans_dask.blocks import Block, Floats, Labels, Summary, without_rows
from kmeans_dask.sums import Limbs
from kmeans_dask.tiles import padded

Scan = tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[npt.NDArray[Any], float, float]]


@dataclass(frozen=True, slots=True)
class Partials:
    """What a pass returns for k clusters; rows counts rows, the limbs and inertia hold weighted sums.

    All but the radii depend on the rows and the step alone. They are bounds, wider where a pass has looked at fewer
    rows, and decide no more than what the next one looks at.
    """

    rows: npt.NDArray[np.int64]  # (k,)
    weight: Limbs  # (3, k); (3, 0) when every row weighs 1
    sums: Limbs  # (3, d, k)
    inertia: int
    changed: int
    radii: Floats  # (k,): how far rows are from the centroid of their cluster, at most

    def combined(self, other: "Partials") -> "Partials":
        """Return the partials of both sets of rows."""
        return Partials(
            self.rows + other.rows,
            # Blocks without rows do not know whether the others have weights.
            sums.added(self.weight, other.weight)
            if self.weight.shape == other.weight.shape
            else max(self.weight, other.weight, key=np.size),
            sums.added(self.sums, other.sums),
            self.inertia + other.inertia,
            self.changed + other.changed,
            np.maximum(self.radii, other.radii),
        )


@dataclass(frozen=True, slots=True)
class Exponents:
    """The exponents of the exact sums, from bounds over all rows: the same for every block."""

    columns: npt.NDArray[np.int64]  # (d,): of weight * x
    weight: int
    inertia: int


def exponents(summary: Summary, centroids: Floats) -> Exponents:
    """Return exponents for a pass with these centroids, (k, d)."""
    farthest = kernels.corner_distance(summary.lowest, summary.highest, centroids) * (1 + 2.0**-20)
    inertia = sums.exponent(farthest * summary.highest_weight)
    return Exponents(summary.column_exponents, summary.weight_exponent, inertia)


def digest(numbers: npt.NDArray[Any], after: str = "") -> str:
    """Return a name for the exact bits of numbers, and of those of another name before them."""
    return hashlib.blake2b(numbers.tobytes(), digest_size=16, key=after.encode()).hexdigest()


_PRECISION = {  # eps and tiny
    np.dtype(t): (float(np.finfo(t).eps), float(np.finfo(t).tiny)) for t in (np.float32, np.float64)
}


def scan_of(centroids: Floats, dtype: np.dtype[Any]) -> Scan:
    """Return centroids as `scans.judge` scans them."""
    k, d = centroids.shape
    k4, d4 = padded(k), padded(d)
    negative, squares, doubts = np.zeros((k4, d4), dtype), np.empty(k4, dtype), np.empty(k4, dtype)
    eps, tiny = _PRECISION[dtype]
    # Twice the bound of a score's error over |x|^2 + |c|^2; the canonical distances round to float64 too.
    doubt = 4 * ((scans.roundings(d4) + 8) * eps / 2 + (d4 + 8) * 2.0**-52)
    scans.write_scan(np.ascontiguousarray(centroids), doubt, negative, squares, doubts)
    return negative, squares, (doubts, doubt, tiny * (d + 8))


def balls_of(block: Block) -> tuple[Floats, Floats]:
    """Return a ball around each tile: centres (n_tiles, d), radii (n_tiles,); remembered with the block."""
    balls = block.cache.get("balls")
    if balls is None:
        balls = (np.empty((len(block.tiles), block.n_features)), np.empty(len(block.tiles)))
        rivals.balls_of(block.tiles, block.n_rows, *balls)
        block.cache["balls"] = balls
    found: tuple[Floats, Floats] = balls
    return found


def tile_sums_of(block: Block, factors: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the limbs of each tile's sums, (n_tiles, d + 1) each, the weight's last; remembered with the block."""
    held, name = block.cache.get("tile sums"), factors.tobytes()
    if held is None or held[0] != name:
        high, low = np.empty((2, len(block.tiles), block.n_features + 1), np.int64)
        ledgers.sums_of_tiles(block.tiles, block.n_rows, block.weights, block.copies, factors, high, low)
        held = (name, high, low)
        block.cache["tile sums"] = held
    return held[1], held[2]


def labels_of(block: Block, centroids: Floats, scan: Scan) -> Labels:
    """Return the label of each packed row, (n_rows,) int32."""
    labels = np.empty(block.n_rows, np.int32)
    rivals.label_rows(block.tiles, block.n_rows, balls_of(block), scan, centroids, labels)
    return labels


def sq_distances_of(block: Block, centroids: Floats, labels: Labels) -> Floats:
    """Return each packed row's canonical squared distance to the centroid of its label, (n_rows,)."""
    sq_distances = np.empty(block.n_rows)
    columns = np.ascontiguousarray(centroids.T)
    kernels.distances_of_rows(block.tiles, block.n_rows, columns, labels, sq_distances)
    return sq_distances


@without_rows
def forget(blocks: Sequence[Block], run: str) -> int:
    """Drop what the blocks remember of a run; return how many did."""
    return sum(one.cache.pop(run, None) is not None for block in blocks for one in repeats.versions(block))
