"""Hypothesis strategies over data and over the ways to cut its rows into blocks, and the blocks they make."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from kmeans_dask import passes
from kmeans_dask.blocks import Block, Labels
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import Preparation, RowRange, pack

Floats = np.ndarray

# Around one tile of 128 rows and two, and the smallest.
LENGTHS = (1, 2, 3, 17, 127, 128, 129, 255, 256, 257)
KINDS = (
    "normal",
    "grid",
    "far grid",
    "magnitudes",
    "copies",
    "near ties",
    "constant column",
    "outlier",
    "zeros",
)
EXACT_KINDS = ("grid", "far grid", "copies", "constant column", "zeros")


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Stored rows (n, d) of one dtype, weights or none, a start (k, d) and a way to cut the rows into blocks."""

    X: Floats
    weights: Floats | None
    start: Floats
    cuts: tuple[int, ...]
    n_threads: int

    def blocks(self) -> LocalBlocks:
        """Return the rows as blocks."""
        return blocked(self.X, self.cuts, self.weights, self.n_threads)


def rows_of_kind(kind: str, n: int, d: int, rng: np.random.Generator) -> Floats:
    """Return n rows of one kind, (n, d) float64."""
    normal, grid = rng.normal(size=(n, d)), rng.integers(0, 4, size=(n, d)).astype(np.float64)
    few = rng.integers(0, max(1, n // 8), size=n)
    constant = grid.copy()
    constant[:, 0] = 7.25
    outlier = normal.copy()
    outlier[rng.integers(n)] = 1e9
    return {
        "normal": normal,
        "grid": grid,
        "far grid": grid + 1e6,
        "magnitudes": normal * 10.0 ** rng.uniform(-6, 6, size=d),
        "copies": (grid * 0.25)[few],
        "near ties": grid + rng.integers(-2, 3, size=(n, d)) * 2.0**-22,
        "constant column": constant,
        "outlier": outlier,
        "zeros": np.zeros((n, d)),
    }[kind]


@st.composite
def tables(draw: st.DrawFn, kinds: Sequence[str] = KINDS, dtype: str | None = None) -> Floats:
    """Return stored rows, (n, d) float32 or float64."""
    stored = dtype or draw(st.sampled_from(("float32", "float64")))
    n, d = draw(st.sampled_from(LENGTHS)), draw(st.sampled_from((1, 2, 3, 4, 5, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rows_of_kind(draw(st.sampled_from(kinds)), n, d, rng).astype(stored)


@st.composite
def weights_for(draw: st.DrawFn, n: int) -> Floats | None:
    """Return None, or n weights of which some are zero and at least one is not."""
    kind = draw(st.sampled_from(("none", "integers", "with zeros", "magnitudes")))
    if kind == "none":
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "magnitudes":
        return 10.0 ** rng.uniform(-3, 3, size=n)
    weights = rng.integers(0 if kind == "with zeros" else 1, 4, size=n).astype(np.float64)
    weights[rng.integers(n)] = 2.0
    return weights


@st.composite
def starts_for(draw: st.DrawFn, X: Floats, moves: bool = True) -> Floats:
    """Return k start centroids, (k, d): rows, copies among them, or rows moved a little or far away."""
    k = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start = X[rng.integers(len(X), size=k)].astype(np.float64)
    spread = float(np.ptp(X.astype(np.float64))) or 1.0
    if not moves:
        return start + 64 * draw(st.sampled_from((0, 0, 1))) * rng.integers(-1, 2, size=(k, 1))
    return start + spread * draw(st.sampled_from((0.0, 0.0, 0.05, 10.0))) * rng.normal(size=start.shape)


@st.composite
def cuttings(draw: st.DrawFn, n: int) -> tuple[int, ...]:
    """Return the bounds of blocks of n rows, 0 first and n last; equal neighbours are an empty block."""
    inner = draw(st.lists(st.integers(0, n), max_size=6))
    return (0, *sorted(inner), n)


@st.composite
def cases(draw: st.DrawFn, kinds: Sequence[str] = KINDS, weighted: bool = True, moves: bool = True) -> Case:
    """Return data, a start and a cutting."""
    X = draw(tables(kinds))
    weights = draw(weights_for(len(X))) if weighted else None
    n_threads = draw(st.sampled_from((1, 2, 3)))
    return Case(X, weights, draw(starts_for(X, moves)), draw(cuttings(len(X))), n_threads)


def as_stored(n_features: int, dtype: str) -> Preparation:
    """Return the preparation that stores values as they are."""
    zeros, ones = np.zeros(n_features), np.ones(n_features)
    names = tuple(f"x{f}" for f in range(n_features))
    return Preparation(names, dtype, zeros, zeros, ones, zeros, "error", "none")


def cut(X: Floats, cuts: Sequence[int], weights: Floats | None = None) -> list[Block]:
    """Return the rows as they are, in blocks between the cuts."""
    preparation = as_stored(X.shape[1], str(X.dtype))
    return [
        pack(list(X[a:b].T), RowRange(a, b - a), preparation, None if weights is None else weights[a:b])
        for a, b in itertools.pairwise(cuts)
    ]


def blocked(
    X: Floats, cuts: Sequence[int] = (), weights: Floats | None = None, n_threads: int = 1
) -> LocalBlocks:
    """Return the rows as they are, on the in-process engine; without cuts in one block."""
    return LocalBlocks(cut(X, cuts or (0, len(X)), weights), n_threads)


def labels_under(blocks: LocalBlocks, centroids: Floats) -> list[int]:
    """Return the engine's labels of all rows."""
    scan = passes.scan_of(centroids, blocks.dtype)
    row_ids = np.concatenate([block.row_ids() for block in blocks.blocks])
    parts: list[Labels] = [passes.labels_of(block, centroids, scan) for block in blocks.blocks]
    found: list[int] = np.concatenate(parts)[np.argsort(row_ids)].tolist()
    return found


def addend(value: float, bound: float) -> Fraction:
    """Return a value cut off 63 bits below its bound's exponent, as the exact sums define."""
    exponent = max(math.frexp(bound)[1], -980)
    unit = Fraction(2) ** (exponent - 63)
    return int(Fraction(value) / unit) * unit


def addend_means(
    X: Floats, labels: Sequence[int], centroids: Floats, weights: Floats | None
) -> list[list[float]]:
    """Return each cluster's mean of the addends, rounded once; a cluster without weight keeps its centroid."""
    w = [1.0] * len(X) if weights is None else weights.tolist()
    heaviest = max(w)
    rows, kept = X.astype(np.float64).tolist(), centroids.tolist()
    bounds = [max(abs(x) for x in column) * heaviest for column in zip(*rows, strict=True)]
    mass = [Fraction(0)] * len(kept)
    totals = [[Fraction(0)] * len(bounds) for _ in kept]
    for x, j, weight in zip(rows, labels, w, strict=True):
        mass[j] += addend(weight, heaviest)
        for f, bound in enumerate(bounds):
            totals[j][f] += addend(weight * x[f], bound)
    return [[float(t / m) for t in row] if m else c for row, m, c in zip(totals, mass, kept, strict=True)]
