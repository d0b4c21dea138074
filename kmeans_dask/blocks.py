"""A block of packed rows, and the seam between the algorithm and the engines.

The algorithm is written as functions of a run of blocks, `fn(blocks, *broadcast) -> small value`, whose value depends
on the rows and the arguments alone, never on how the rows are grouped (but for `passes.Partials.radii`). An engine
decides where they run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kmeans_dask import kernels, sums
from kmeans_dask.extremes import EXTREMES, no_extremes, of_lanes, room_to_widen
from kmeans_dask.tiles import TILE

Floats = npt.NDArray[np.float64]
Offsets = npt.NDArray[np.uint32]
Labels = npt.NDArray[np.int32]
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
_numbers = count()
NO_WEIGHTS: Floats = np.empty(0)
NO_COPIES: npt.NDArray[np.int32] = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows of the source, prepared and packed; ordered by nearness where there are many.

    tiles: (n_tiles, d4, 128) float32 or float64, feature-major; padding rows and features are 0.
    kept: offsets from first_row of the packed rows, (n_rows,), in any order; None: the first n_rows.
    listed: offsets of the rows that get a label or a null, sorted; None: all n_source_rows.
    weights: (n_rows,) float64, or (0,) when every row weighs 1.
    copies: how many equal rows each packed row stands for, (n_rows,) int32, or (0,): see `repeats`.
    cache: what a run remembers between passes; may be lost at any time, and is when a block travels.
    """

    tiles: npt.NDArray[Any]
    n_features: int
    n_rows: int
    first_row: int
    n_source_rows: int
    kept: Offsets | None = None
    listed: Offsets | None = None
    weights: Floats = field(default_factory=lambda: NO_WEIGHTS)
    copies: npt.NDArray[np.int32] = field(default_factory=lambda: NO_COPIES)
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def n_copies(self) -> int:
        """How many rows the packed ones stand for."""
        return int(self.copies.sum()) if self.copies.size else self.n_rows

    def row_ids(self) -> npt.NDArray[np.int64]:
        """Return the row id of each packed row, (n_rows,)."""
        if self.kept is None:
            return np.arange(self.first_row, self.first_row + self.n_rows, dtype=np.int64)
        return self.kept.astype(np.int64) + self.first_row

    def row_id(self, i: int) -> int:
        """Return the row id of packed row i."""
        return self.first_row + (i if self.kept is None else int(self.kept[i]))

    def rows(self, which: npt.NDArray[np.int64]) -> Floats:
        """Return the chosen packed rows, (m, n_features) float64."""
        return self.tiles[which // TILE, : self.n_features, which % TILE].astype(np.float64)

    def all_rows(self) -> Floats:
        """Return every packed row, (n_rows, n_features) float64."""
        flat = self.tiles[:, : self.n_features].transpose(0, 2, 1).reshape(-1, self.n_features)
        return flat[: self.n_rows].astype(np.float64)

    def tile_range(self, start: int, stop: int) -> "Block":
        """Return tiles start to stop as a block of its own, without copying; it lists the rows it holds."""
        a, b = start * TILE, min(stop * TILE, self.n_rows)
        kept = None if self.kept is None else self.kept[a:b]
        return Block(
            tiles=self.tiles[start:stop],
            n_features=self.n_features,
            n_rows=b - a,
            first_row=self.first_row + (a if kept is None else 0),
            n_source_rows=b - a if kept is None else self.n_source_rows,
            kept=kept,
            listed=kept,
            weights=self.weights[a:b],
            copies=self.copies[a:b],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Block, tuple(getattr(self, f.name) for f in fields(self) if f.name != "cache")

    def __sizeof__(self) -> int:
        arrays = (self.tiles, self.kept, self.listed, self.weights, self.copies)
        return 200 + sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class Summary:
    """What every pass needs to know of all rows: counts, and bounds for the exact sums."""

    n_samples: int
    n_weighted: int  # rows of positive weight
    # (n_features,) over the kept rows; zeros without rows, NaN without a value that is not null
    lowest: Floats
    highest: Floats
    highest_weight: float

    def combined(self, other: "Summary") -> "Summary":
        """Return the summary of both sets of rows."""
        if self.n_samples == 0 or other.n_samples == 0:
            return other if self.n_samples == 0 else self
        return Summary(
            self.n_samples + other.n_samples,
            self.n_weighted + other.n_weighted,
            np.fmin(self.lowest, other.lowest),
            np.fmax(self.highest, other.highest),
            max(self.highest_weight, other.highest_weight),
        )

    def magnitudes(self) -> Floats:
        """Return the largest |x| of each feature, (n_features,)."""
        return np.nan_to_num(np.maximum(np.abs(self.lowest), np.abs(self.highest)))

    @cached_property
    def column_exponents(self) -> npt.NDArray[np.int64]:
        """The exponents of exact sums of weight * x, (n_features,)."""
        return sums.exponents(self.magnitudes() * self.highest_weight)

    @cached_property
    def weight_exponent(self) -> int:
        """The exponent of exact sums of weights."""
        return sums.exponent(self.highest_weight)

    @cached_property
    def factors(self) -> Floats:
        """The factors of the high limbs of sums of each column and of the weights, (n_features + 1,)."""
        factors: Floats = np.ldexp(1.0, 31 - np.append(self.column_exponents, self.weight_exponent))
        return factors


def unused(name: str) -> str:
    """Return a name under which blocks remember nothing yet: several runs may be made on the same ones at once."""
    return f"{name}-{next(_numbers)}"


def without_rows(fn: F) -> F:
    """Mark a function of blocks that looks at no row, so that blocks on disk are not read for it."""
    fn.needs_rows = False  # type: ignore[attr-defined]
    return fn


def needs_rows(fn: Callable[..., Any]) -> bool:
    """Whether a function of blocks looks at rows."""
    return bool(getattr(fn, "needs_rows", True))


def of_distinct_rows(fn: F) -> F:
    """Mark a function of blocks that looks at no rows but those of `repeats.distinct`."""
    fn.needs_all_rows = False  # type: ignore[attr-defined]
    return fn


def needs_all_rows(fn: Callable[..., Any]) -> bool:
    """Whether a function of blocks looks at each of many equal rows."""
    return bool(getattr(fn, "needs_all_rows", needs_rows(fn)))


def summarise(blocks: Sequence[Block]) -> Summary:
    """Return the summary of a run of blocks."""
    summary = Summary(0, 0, np.zeros(blocks[0].n_features), np.zeros(blocks[0].n_features), 0.0)
    for block in blocks:
        summary = summary.combined(_summary(block))
    return summary


def _summary(block: Block) -> Summary:
    if block.n_rows == 0:
        return Summary(0, 0, np.zeros(block.n_features), np.zeros(block.n_features), 0.0)
    lowest, highest = _extremes(block)
    weighted = int(np.count_nonzero(block.weights)) if block.weights.size else block.n_rows
    heaviest = float(block.weights.max()) if block.weights.size else 1.0
    return Summary(block.n_rows, weighted, lowest, highest, heaviest)


def _extremes(block: Block) -> tuple[Floats, Floats]:
    """Return each feature's extremes, (n_features,), NaN without a value; packing remembers them."""
    if EXTREMES in block.cache:
        found: tuple[Floats, Floats] = block.cache[EXTREMES]
        return found
    lanes = no_extremes(block.n_features, block.tiles.dtype)
    kernels.add_extremes(block.tiles, block.n_rows, lanes, room_to_widen(block.tiles.dtype))
    return of_lanes(lanes)


class Run(Protocol):
    """A range of source rows, the unit in which results are written."""

    @property
    def first_row(self) -> int: ...
    @property
    def n_rows(self) -> int: ...


class Blocks(Protocol):
    """All rows of a data set, on some engine."""

    n_blocks: int
    summary: Summary
    n_features: int
    dtype: np.dtype[Any]

    def map_reduce(self, fn: Callable[..., T], *args: Any, combine: Callable[[T, T], T]) -> T:
        """Return fn(blocks, *args) of all blocks: of runs of them, combined; the grouping must not matter."""
        ...

    def map_runs(
        self, pieces: Callable[..., T], write: Callable[..., R], runs: Sequence[Run], *args: Any
    ) -> list[R]:
        """Return write(run, [pieces(block, first_row, stop_row, *args), ...], *args) for each run, in order."""
        ...

    def close(self) -> None:
        """Let go of the blocks."""
        ...
