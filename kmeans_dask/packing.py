"""Columns of numbers become packed blocks: shifted, rounded to the stored dtype, then filled and scaled.

A raw float64 value x is stored as s = dtype(x - shift) and, after the whole data set is known, as
dtype((s - center) * (1 / scale)), nulls taking the value s = fill. The shift keeps float32 accurate on data far from
zero and is rounded so coarsely that exact ties between rows stay ties.
"""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, ordering, repeats, sums
from kmeans_dask.blocks import NO_WEIGHTS, Block, Blocks, Floats, Offsets, Summary
from kmeans_dask.errors import DataError
from kmeans_dask.extremes import EXTREMES, Lanes, no_extremes, of_lanes, room_to_widen
from kmeans_dask.ordering import worth_ordering
from kmeans_dask.tiles import TILE, padded

logger = logging.getLogger(__name__)

_COLUMNS_AT_ONCE = 1024  # of one array, whose rows hold them side by side
_TILES_AT_ONCE = 32  # gathered from rows that are packed only once
HEAD_ROWS = 65_536
_GRID = -5  # exponent of the step of shifts, to that of a column's spread
LARGEST = {"float32": 2.0**60, "float64": 2.0**480}
Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a preparation shall do, before the rows are known."""

    feature_names: tuple[str, ...]
    dtype: str
    nulls: str = "error"  # or "drop", "mean"
    scaling: str = "none"  # or "standard"
    metric: str = "euclidean"  # or "cosine": rows of unit length


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """How a raw value becomes a stored one; every array is (n_features,) float64."""

    feature_names: tuple[str, ...]
    dtype: str
    shift: Floats
    center: Floats
    scale: Floats  # 0 for a constant column under "standard"
    fill: Floats
    nulls: str
    scaling: str
    metric: str = "euclidean"

    def in_units(self, prepared: Floats) -> Floats:
        """Return points of the prepared space, (k, n_features), in the user's own units."""
        return self.shift + (self.center + prepared * self.scale)

    def prepared(self, points: Floats) -> Floats:
        """Return points in the user's own units, (k, n_features), in the prepared space, unrounded."""
        return ((points - self.shift) - self.center) * self.inverse()

    def equals(self, other: "Preparation") -> bool:
        """Whether both turn every row into the same bits."""
        arrays = (
            (getattr(self, name), getattr(other, name)) for name in ("shift", "center", "scale", "fill")
        )
        names = ("feature_names", "dtype", "nulls", "metric")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and all(np.array_equal(a, b) for a, b in arrays)

    def inverse(self) -> Floats:
        """Return 1 / scale, 0 where the scale is 0."""
        inverse: Floats = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale != 0)
        return inverse

    @property
    def is_final_when_packed(self) -> bool:
        """Whether packing alone prepares a row: nothing to fill, scale or bring to unit length."""
        return self.nulls != "mean" and self.scaling == "none" and self.metric == "euclidean"


@dataclass(frozen=True, slots=True)
class RowRange:
    """Where columns come from: see `Block` for first_row, n_source_rows and listed."""

    first_row: int
    n_source_rows: int
    listed: Offsets | None = None


def provisional(head: Sequence[Column] | Column, wishes: Wishes, n_threads: int = 1) -> Preparation:
    """Return the preparation for packing, from the first 65,536 rows of each column: its shift alone."""
    shift = _shifts(head, n_threads)
    zeros, ones = np.zeros(len(shift)), np.ones(len(shift))
    if wishes.metric == "cosine" and wishes.scaling == "none":
        shift = zeros  # directions are seen from the origin of the user's units
    return Preparation(
        wishes.feature_names,
        wishes.dtype,
        shift,
        zeros,
        ones,
        zeros,
        wishes.nulls,
        wishes.scaling,
        wishes.metric,
    )


def narrowed(columns: Column, preparation: Preparation) -> Preparation:
    """Return a preparation that stores the same numbers in half the memory, if float32 holds every one of them."""
    if preparation.dtype == "float64" and preparation.is_final_when_packed:
        largest = LARGEST["float32"] / math.sqrt(len(columns))
        if kernels.is_exact_in_float32(columns.T, preparation.shift, largest):
            return replace(preparation, dtype="float32")
    return preparation


def _shifts(columns: Sequence[Column] | Column, n_threads: int) -> Floats:
    """Return the shift of each column, from its first 65,536 values, less those that are NaN."""
    if isinstance(columns, np.ndarray):
        rows = columns[:, :HEAD_ROWS].T
        heads = [
            rows[:, first : first + _COLUMNS_AT_ONCE] for first in range(0, len(columns), _COLUMNS_AT_ONCE)
        ]
    else:
        heads = [np.array(column[:HEAD_ROWS, None], np.float64) for column in columns]
    if n_threads == 1 or len(heads) == 1:
        return np.concatenate(list(map(_shifts_of, heads)))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="shifts") as pool:
        return np.concatenate(list(pool.map(_shifts_of, heads)))


def _shifts_of(head: Column) -> Floats:
    n, d = head.shape
    lowest, highest, totals = np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d)
    kernels.plain_sums(head, lowest, highest, totals)
    shifts = _plain_shifts(lowest, highest, totals, n)
    unclear = np.flatnonzero(np.isnan(shifts))
    if unclear.size:
        d = len(unclear)
        extremes, limbs, counts = np.empty((d, 2)), np.empty((d, 3), np.int64), np.empty(d, np.int64)
        kernels.sums_of_columns(np.ascontiguousarray(head[:, unclear]), extremes, limbs, counts)
        shifts[unclear] = list(map(_shift, extremes.tolist(), limbs.tolist(), counts.tolist()))
    return shifts


def _plain_shifts(lowest: Floats, highest: Floats, totals: Floats, count: int) -> Floats:
    """Return what `_shift` returns of each column, if a sum with rounding decides it, else NaN."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spread = highest - lowest
        grid = np.ldexp(1.0, np.frexp(spread)[1] + _GRID)
        steps = totals / count / grid
        doubt = 2.0**-50 * (count + 1) * np.maximum(-lowest, highest) / grid
        shifts = np.where(
            np.abs(steps % 1 - 0.5) > doubt, np.rint(steps) * grid + 0.0, np.nan
        )  # + 0.0: there is one zero
        shifts = np.where((spread > 0) & (spread < np.inf), shifts, np.nan)
        return np.where((spread == 0) & np.isfinite(totals), lowest, shifts)


def _shift(extremes: list[float], accumulators: list[int], count: int) -> float:
    lowest, highest = extremes
    spread = highest - lowest
    if count == 0 or spread == 0 or not math.isfinite(spread):
        return lowest if count and spread == 0 else 0.0
    e = sums.exponent(max(abs(lowest), abs(highest)))
    mean = sums.ratio(sums.joined(*accumulators), e - sums.SQUARE_BITS, count, 0)
    grid = math.ldexp(1.0, max(math.frexp(spread)[1] + _GRID, -1074))
    return round(mean / grid) * grid if abs(mean / grid) < 2.0**52 else mean


def pack(
    columns: Sequence[Column] | Column,
    rows: RowRange,
    preparation: Preparation,
    weights: Floats | None = None,
    *,
    order: bool = True,
    by_kind: bool = False,
) -> Block:
    """Return a block of the listed rows of these columns, (n,) each; under nulls="drop" without those holding a NaN.

    columns may be one array (n_features, n), best the transpose of rows. order: by nearness, which pays from the second
    pass on. by_kind: of an array without weights whether only one of many equal rows may be packed, see `repeats`.
    """
    kept = rows.listed
    weights = NO_WEIGHTS if weights is None else weights
    if preparation.nulls == "drop":
        whole = ~np.logical_or.reduce([np.isnan(column) for column in columns])
        if not whole.all():
            kept = np.flatnonzero(whole).astype(np.uint32) if kept is None else kept[whole]
            columns = [column[whole] for column in columns]
            weights = weights[whole] if weights.size else weights
    n_rows, n_features = len(columns[0]), len(columns)
    may_repeat = by_kind and order and preparation.is_final_when_packed and not weights.size
    kinds = repeats.kinds_of(columns.T) if may_repeat and isinstance(columns, np.ndarray) else None
    if kinds is not None:
        n_rows = len(kinds[1])
    tiles = np.zeros((-(-n_rows // TILE), padded(n_features), TILE), preparation.dtype)
    extremes = no_extremes(n_features, tiles.dtype)
    if isinstance(columns, np.ndarray):
        _pack_rows(columns.T, None if kinds is None else kinds[1], preparation.shift, tiles, extremes)
    else:
        for f, column in enumerate(columns):
            kernels.pack_column(column, preparation.shift[f], f, tiles)
        kernels.add_extremes(tiles, n_rows, extremes, room_to_widen(tiles.dtype))
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    block = Block(tiles, n_features, n_rows, rows.first_row, rows.n_source_rows, kept, rows.listed, weights)
    lowest, highest = block.cache[EXTREMES] = of_lanes(extremes)
    limit = LARGEST[preparation.dtype] / math.sqrt(n_features)
    for f in np.flatnonzero(np.maximum(-lowest, highest) > limit).tolist():
        _refuse(columns[f], preparation, f, limit)
    if kinds is not None:
        return repeats.ordered_by_kind(block, kinds[0])
    return ordered(block) if order and preparation.is_final_when_packed else block


def _pack_rows(rows: Column, which: Offsets | None, shift: Floats, tiles: Column, extremes: Lanes) -> None:
    """Store rows (n, d), or some of them, in tiles, and widen extremes by them."""
    work = room_to_widen(tiles.dtype)
    if which is None:
        kernels.pack_rows(rows, shift, tiles, extremes, work)
        return
    for first in range(0, len(tiles), _TILES_AT_ONCE):
        some = which[first * TILE : (first + _TILES_AT_ONCE) * TILE]
        kernels.pack_rows(rows[some], shift, tiles[first : first + _TILES_AT_ONCE], extremes, work)


def block_of_rows(rows: Floats, weights: Floats = NO_WEIGHTS) -> Block:
    """Return a block of rows (m, d) as they are, with row ids 0 to m - 1; in float32 where that holds them exactly."""
    n_rows, n_features = rows.shape
    n_tiles = -(-n_rows // TILE)
    is_small = np.abs(rows).max(initial=0.0) <= LARGEST["float32"] / math.sqrt(n_features)
    dtype = "float32" if is_small and (rows.astype(np.float32) == rows).all() else "float64"
    padded_rows = np.zeros((n_tiles * TILE, padded(n_features)), dtype)
    padded_rows[:n_rows, :n_features] = rows
    tiles = np.ascontiguousarray(padded_rows.reshape(n_tiles, TILE, -1).transpose(0, 2, 1))
    return Block(tiles, n_features, n_rows, 0, n_rows, weights=weights)


def _refuse(column: Column, preparation: Preparation, feature: int, limit: float) -> None:
    largest = np.nanmax(np.abs(column.astype(np.float64) - preparation.shift[feature]))
    fix = 'Set dtype = "float64"' if preparation.dtype == "float32" else "Rescale the column"
    raise DataError(
        f"feature {preparation.feature_names[feature]!r}: a value lies {largest:.6g} from its centre; squared "
        f"distances in {preparation.dtype} hold only {limit:.6g}. {fix} or drop the row."
    )


def finish(block: Block, preparation: Preparation, *, order: bool = True) -> Block:
    """Return the block with nulls filled, values scaled, and rows of unit length under "cosine"; ids stay."""
    out = np.zeros_like(block.tiles)
    inverse = preparation.inverse()
    for f in range(block.n_features):
        finishing = (preparation.fill[f], preparation.center[f], inverse[f])
        kernels.finish_column(block.tiles, block.n_rows, f, finishing, out)
    if preparation.metric == "cosine":
        _to_unit_length(out, block)
    found = replace(block, tiles=out, cache={})
    return ordered(found) if order else found


def ordered(block: Block) -> Block:
    """Return the block with near rows side by side, if it has enough rows for that to be of use."""
    if not worth_ordering(block.n_rows, block.n_features):
        return block
    kept = ordering.order_tiles(block.tiles, block.n_rows, block.n_features)
    weights = block.weights[kept] if block.weights.size else block.weights
    cache = {name: found for name, found in block.cache.items() if name == EXTREMES}
    return replace(block, kept=kept if block.kept is None else block.kept[kept], weights=weights, cache=cache)


def _to_unit_length(tiles: npt.NDArray[Any], block: Block) -> None:
    zero = kernels.unit_rows(tiles, block.n_rows)
    if zero >= 0:
        raise DataError(
            f"row {block.row_id(zero)} has length 0, so metric='cosine' has no direction for it. "
            "Drop such rows, or use metric='euclidean'."
        )


def final(blocks: Blocks, packed: Preparation) -> Preparation:
    """Return the preparation with fill, center and scale of packed blocks, exact over all non-null rows."""
    if packed.nulls == "drop" and blocks.summary.n_samples == 0:
        raise DataError(
            f'nulls = "drop" leaves no row: each has a null in one of {", ".join(packed.feature_names)}. Leave out a '
            'column that is always null, or use nulls = "mean".'
        )
    means, variances = moments(blocks)
    for f in np.flatnonzero(np.isnan(means)):
        raise DataError(
            f"feature {packed.feature_names[f]!r}: every value is null, so there is no mean to fill in. "
            'Leave the column out, or use nulls = "drop".'
        )
    standard = packed.scaling == "standard"
    constant = blocks.summary.lowest == blocks.summary.highest
    scale = np.where(constant, 0.0, np.sqrt(variances)) if standard else packed.scale
    center = np.where(constant, blocks.summary.lowest, means) if standard else packed.center
    return replace(packed, center=center, scale=scale, fill=means)


def warn_of_coarse(summary: Summary, packed: Preparation) -> None:
    """Warn of columns whose spread float32 resolves with less than 12 bits."""
    unit = float(np.finfo(packed.dtype).eps)
    spread = summary.highest - summary.lowest
    for f in np.flatnonzero((spread > 0) & (summary.magnitudes() * unit > spread * 2.0**-12)):
        logger.warning(
            "feature %r: %s resolves its spread of %.6g only to %.3g; use dtype float64",
            packed.feature_names[f], packed.dtype, spread[f], summary.magnitudes()[f] * unit,
        )  # fmt: skip


def moments(blocks: Blocks) -> tuple[Floats, Floats]:
    """Return each feature's mean and population variance over its values that are not NaN; NaN when there are none."""
    magnitudes = blocks.summary.magnitudes()
    zeros = np.zeros(blocks.n_features)
    means = _averages(blocks, zeros, False, magnitudes)
    spread = np.maximum(np.abs(blocks.summary.highest - means), np.abs(blocks.summary.lowest - means))
    spread = np.nan_to_num(spread)
    return means, _averages(blocks, means, True, spread * spread)


def _averages(blocks: Blocks, centers: Floats, squared: bool, bounds: Floats) -> Floats:
    exponents = [sums.exponent(float(bound)) for bound in bounds]
    factors = np.array([sums.scale(e) for e in exponents])
    counts, limbs = blocks.map_reduce(column_sums, centers, squared, factors, combine=_add_column_sums)
    totals = sums.integers(limbs)
    return np.array([
        sums.ratio(total, e - 63, int(n), 0) if n else math.nan
        for total, e, n in zip(totals, exponents, counts, strict=True)
    ])  # fmt: skip


def column_sums(
    blocks: Sequence[Block], centers: Floats, squared: bool, factors: Floats
) -> tuple[npt.NDArray[np.int64], sums.Limbs]:
    """Return (counts (d,), limbs (3, d)) of each feature's x - center, or of its square, over values not NaN."""
    n_features = len(centers)
    counts, limbs = np.zeros(n_features, np.int64), np.zeros((3, n_features), np.int64)
    for block in blocks:
        found = [
            kernels.add_column(block.tiles, block.n_rows, f, centers[f], squared, factors[f])
            for f in range(n_features)
        ]
        count, high, low = np.array(found, np.int64).reshape(-1, 3).T
        counts, limbs = counts + count, sums.added(limbs, sums.normalised(high, low))
    return counts, limbs


def _add_column_sums(
    a: tuple[npt.NDArray[np.int64], sums.Limbs], b: tuple[npt.NDArray[np.int64], sums.Limbs]
) -> tuple[npt.NDArray[np.int64], sums.Limbs]:
    return a[0] + b[0], sums.added(a[1], b[1])
