"""A block in, a block of its distinct rows out, each with the number of its copies.

For passes only, whose sums are exact integers: a row counted three times adds what three rows add, bit by bit. Equal
rows are looked for within tiles, where ordering has brought them together; or, where many equal rows follow each other
in the source, among all rows of the block before they are packed, so that only one of each kind is packed and ordered.
The others are written when something else than a pass asks for them.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kmeans_dask import ordering
from kmeans_dask.blocks import Block, Offsets
from kmeans_dask.extremes import EXTREMES
from kmeans_dask.kernels import compiled
from kmeans_dask.kinds import number_kinds, repeat_kinds, write_hashes
from kmeans_dask.tiles import TILE

MOST_BYTES = 3 * 2**25  # of the blocks of an engine, up to which a second copy of most rows is no burden
_NAME = "distinct"
_KEPT = 0.7  # share of distinct rows up to which the others are left out
_LEAST_ROWS = 8 * TILE
_MOST_FEATURES = 128
_SAMPLE_TILES = 32
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, lie apart from each other
_SLOTS = 256


def keep_all(block: Block) -> Block:
    """Let passes over this block see all of its rows; return it."""
    block.cache[_NAME] = None
    return block


def cut(block: Block, start: int, stop: int) -> Block:
    """Return tiles start to stop as a block of its own; passes over it see all rows where they do so of the whole one.

    The distinct rows of the whole one are of no more use.
    """
    part = block.tile_range(start, stop)
    if block.cache.get(_NAME, block) is None:
        return keep_all(part)
    block.cache.pop(_NAME, None)
    return part


def distinct(block: Block) -> Block:
    """Return the block of the distinct rows, or the block itself if it has few equal ones; remembered with it."""
    if _NAME not in block.cache:
        block.cache.setdefault(_NAME, _distinct(block))  # two restarts at once may both make it; one is kept
    found: Block | None = block.cache[_NAME]
    return block if found is None else found


def versions(block: Block) -> list[Block]:
    """Return the block and, where it has been made, that of its distinct rows."""
    found: Block | None = block.cache.get(_NAME)
    return [block] if found is None else [block, found]


def _distinct(block: Block) -> Block | None:
    if isinstance(block.tiles, RepeatedTiles):
        return _block_of(block, block.tiles.distinct, block.tiles.copies)
    if _share_of_distinct(block) > _KEPT:
        return None
    n_rows, bits = block.n_rows, _bits_of(block)
    firsts, copies = np.empty((2, n_rows), np.int32)
    n_distinct, _ = first_rows(bits, n_rows, block.n_features, np.arange(len(bits)), firsts, copies)
    if n_distinct > _KEPT * n_rows:
        return None
    tiles = np.zeros((-(-n_distinct // TILE), *block.tiles.shape[1:]), block.tiles.dtype)
    gather_rows(block.tiles, firsts[:n_distinct], tiles)
    return _block_of(block, tiles, copies[:n_distinct].copy())


def _block_of(block: Block, tiles: npt.NDArray[Any], copies: npt.NDArray[np.int32]) -> Block:
    return Block(tiles, block.n_features, len(copies), block.first_row, block.n_source_rows, copies=copies)


def _bits_of(block: Block) -> npt.NDArray[Any]:
    return block.tiles.view(np.uint32 if block.tiles.dtype == np.float32 else np.uint64)


def cost_of_tiles(block: Block) -> int:
    """Return how many rows of a tile a pass looks at, about, by a sample of the tiles."""
    share = _share_of_distinct(block) if block.cache.get(_NAME, block) is not None else 1.0
    return max(1, round(TILE * share)) if share <= _KEPT else TILE


def _share_of_distinct(block: Block) -> float:
    """Return how many rows of some tiles are distinct within theirs, of all; 1 where they are not looked for."""
    n_rows, n_features, n_tiles = block.n_rows, block.n_features, len(block.tiles)
    if block.weights.size or block.copies.size or n_rows < _LEAST_ROWS or n_features > _MOST_FEATURES:
        return 1.0
    sample = sampled(n_tiles)
    firsts, copies = np.empty((2, len(sample) * TILE), np.int32)
    n_sampled, n_seen = first_rows(_bits_of(block), n_rows, n_features, sample, firsts, copies)
    return float(n_sampled / n_seen)


def sampled(n_tiles: int) -> npt.NDArray[np.int64]:
    """Return the places of some tiles, far from each other."""
    return np.unique((np.arange(_SAMPLE_TILES) * _GOLDEN % 1 * n_tiles).astype(np.int64))


def kinds_of(rows: npt.NDArray[Any]) -> tuple[Offsets, Offsets] | None:
    """Return the number of each row's kind, (n,), and the first row of each; None if few rows (n, d) are equal."""
    n_rows, n_features = rows.shape
    if n_rows < _LEAST_ROWS or n_features > _MOST_FEATURES or rows.strides[1] != rows.itemsize:
        return None
    bits = rows.view(np.uint32 if rows.dtype == np.float32 else np.uint64)
    samples = [bits[t * TILE : (t + 1) * TILE] for t in sampled(n_rows // TILE).tolist()]
    kinds, firsts = np.empty(n_rows, np.uint32), np.empty(int(_KEPT * n_rows), np.uint32)
    n_sampled = sum(number_kinds(some, TILE, kinds, firsts) for some in samples)
    if n_sampled > _KEPT * TILE * len(samples):
        return None
    n_kinds = number_kinds(bits, len(firsts), kinds, firsts)
    return (kinds, firsts[:n_kinds].copy()) if n_kinds else None


def ordered_by_kind(block: Block, kinds: Offsets) -> Block:
    """Return the block in which the rows of another, one of each kind, are repeated; near kinds lie side by side.

    kinds (n_source_rows,): of each row. The tiles of that other block are written over, and remembered with this one.
    """
    tiles, n_kinds = block.tiles, block.n_rows
    now = np.arange(n_kinds, dtype=np.uint32)
    if ordering.worth_ordering(n_kinds, block.n_features):
        now[ordering.order_tiles(tiles, n_kinds, block.n_features)] = np.arange(n_kinds, dtype=np.uint32)
    places = now[kinds]
    copies = np.bincount(places, minlength=n_kinds).astype(np.int32)
    repeated = cast("Any", RepeatedTiles(tiles, copies, places))
    cache = {EXTREMES: block.cache[EXTREMES], _NAME: _block_of(block, tiles, copies)}
    return replace(block, tiles=repeated, n_rows=len(kinds), cache=cache)


@dataclass(frozen=True, slots=True, eq=False)
class RepeatedTiles:
    """A block's tiles before they are written: the tiles of its distinct rows, and where among them each row's is."""

    distinct: npt.NDArray[Any]
    copies: npt.NDArray[np.int32]
    places: Offsets

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the tiles, as they are written."""
        return (-(-len(self.places) // TILE), *self.distinct.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the tiles."""
        return self.distinct.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tiles, as they are written."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]


def is_repeated(block: Block) -> bool:
    """Whether a block's equal rows have not been written yet."""
    return isinstance(block.tiles, RepeatedTiles)


def written(block: Block) -> Block:
    """Return the block with all of its rows; its cache is shared."""
    if not is_repeated(block):
        return block
    repeated = cast("RepeatedTiles", block.tiles)
    tiles, kept = np.zeros(repeated.shape, repeated.dtype), np.empty(block.n_rows, np.uint32)
    repeat_kinds(repeated.distinct, repeated.places, repeated.copies, kept, tiles)
    return replace(block, tiles=tiles, kept=kept if block.kept is None else block.kept[kept])


@compiled()
def first_rows(bits, n_rows, n_features, tiles, firsts, copies):  # type: ignore[no-untyped-def]
    """Write the first of each kind of row in each of some tiles, (m,), and how many there are of it, (n_rows,) each.

    bits (n_tiles, d4, 128): the tiles as unsigned integers. Return how many were written, of how many rows.
    """
    hashes, slots = np.empty(TILE, np.uint64), np.empty(_SLOTS, np.int64)
    n, n_seen = 0, 0
    for t in tiles:
        first = t * TILE
        rows = min(TILE, n_rows - first)
        write_hashes(bits[t], n_features, hashes)
        slots[:] = -1
        for r in range(rows):
            slot = np.int64(hashes[r] >> np.uint64(56))
            while slots[slot] >= 0:
                other = firsts[slots[slot]] - first
                if hashes[other] == hashes[r] and are_equal(bits[t], n_features, other, r):
                    break
                slot = (slot + 1) % _SLOTS
            if slots[slot] >= 0:
                copies[slots[slot]] += 1
            else:
                slots[slot], firsts[n], copies[n] = n, first + r, 1
                n += 1
        n_seen += max(rows, 0)
    return n, n_seen


@compiled()
def are_equal(bits, n_features, a, b):  # type: ignore[no-untyped-def]
    """Whether two rows of a tile, (d4, 128), have the same bits."""
    for f in range(n_features):  # noqa: SIM110 - numba compiles no generator
        if bits[f, a] != bits[f, b]:
            return False
    return True


@compiled()
def gather_rows(tiles, which, out):  # type: ignore[no-untyped-def]
    """Write chosen rows of tiles, (m,), to tiles of their own."""
    for t in range(out.shape[0]):
        for f in range(tiles.shape[1]):
            for r in range(min(TILE, which.shape[0] - t * TILE)):
                at = which[t * TILE + r]
                out[t, f, r] = tiles[at // TILE, f, at % TILE]
