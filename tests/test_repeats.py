"""Passes over distinct rows that count several times each: what they give is what passes over all rows give."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest

from kmeans_dask import kinds, kmeans, lloyd, local_blocks, packing, passes, predict, repeats, search
from kmeans_dask.api import blocks_of as api_blocks_of
from kmeans_dask.blocks import Block
from kmeans_dask.lloyd import Limits
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.means import updated
from kmeans_dask.tiles import TILE
from kmeans_dask.tracks import Track
from kmeans_dask.trials import Landing
from tests.blockings import blocked
from tests.test_pruning import assert_equal, passed, reaches
from tests.test_refine import refined


def rows_with_copies(n: int, d: int, n_kinds: int, seed: int) -> np.ndarray:
    """Return n rows, each one of so many kinds, neighbours often of the same kind."""
    rng = np.random.default_rng(seed)
    different = rng.normal(size=(n_kinds, d))
    return different[np.sort(rng.integers(n_kinds, size=n))]


def blocks_of(X: np.ndarray, *, all_rows: bool, n_threads: int = 2) -> LocalBlocks:
    """Return rows in two blocks, or in one for one thread, of which passes see all rows, or the distinct ones."""
    blocks = blocked(X, (0, len(X) // 3, len(X)) if n_threads > 1 else (0, len(X)), n_threads=n_threads)
    if all_rows:
        blocks.map_reduce(lambda group: [repeats.keep_all(block) for block in group], combine=list.__add__)
    return blocks


def n_distinct(blocks: LocalBlocks) -> int:
    """Return how many rows passes look at."""
    return blocks.map_reduce(
        lambda group: sum(repeats.distinct(block).n_rows for block in group), combine=int.__add__
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "k"), [(1, 3), (3, 20), (38, 5)])
def test_passes_over_distinct_rows_equal_those_over_all(dtype: str, d: int, k: int) -> None:
    """In ten passes with moves to the means, small ones and jumps: counts, sums, inertia and changes to the bit."""
    X = rows_with_copies(9000, d, 700, seed=d).astype(dtype)
    rng = np.random.default_rng(k)
    start = X[rng.integers(len(X), size=k)].astype(np.float64)
    with blocks_of(X, all_rows=False) as few, blocks_of(X, all_rows=True) as every:
        assert n_distinct(few) < 2000
        assert n_distinct(every) == 9000
        tracks = (Track("run", start), Track("run", start))
        for i in range(10):
            found = [
                passed(blocks, track.step(blocks, exact=i % 3 > 0))
                for track, blocks in zip(tracks, (few, every), strict=True)
            ]
            assert_equal(*found)
            assert found[0].changed == found[1].changed
            far = reaches(X, every, tracks[0].centroids)
            assert all((partials.radii >= far).all() for partials in found)
            step = tracks[0].step(few, exact=True)
            new = updated(few, step.centroids, found[0], step.scales)
            if i % 4 == 2:
                new[rng.integers(k)] = X[rng.integers(len(X))]
            for track, partials in zip(tracks, found, strict=True):
                track.move(new, partials.radii)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_search_over_distinct_rows_equals_one_over_all(
    n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same centroids, inertia, iterations and breaths, iterations at once or pass by pass."""
    landings = list[Landing | None]()

    def seen(*arguments: Any) -> Landing | None:
        landings.append(landed(*arguments))
        return landings[-1]

    landed = search.landed
    monkeypatch.setattr(search, "landed", seen)
    X = rows_with_copies(30_000, 3, 3000, seed=1)
    found = []
    for all_rows in (False, True):
        with blocks_of(X, all_rows=all_rows, n_threads=n_threads) as blocks:
            fit, best = refined(blocks, X[::1500].copy())
            errors = search.errors_of(blocks, best.centroids, None, "errors")
        found.append((best.centroids.tolist(), best.inertia, best.n_iter, best.breaths, errors.tolist()))
        assert best.inertia < fit.inertia
        assert errors.sum() == pytest.approx(best.inertia)
    assert found[0] == found[1]
    assert any(landing and landing.n_iter > 2 for landing in landings) == (n_threads == 1)


def test_distinct_rows_stand_for_all_of_their_tile() -> None:
    """Each row of a tile is one of its distinct rows, as often as it is there; -0.0 is another than 0.0."""
    X = rows_with_copies(1500, 2, 40, seed=3)
    X[:60] = 0.0
    X[30:60] = -0.0
    with blocked(X, (0, 1500), n_threads=1) as blocks:
        [whole] = blocks.blocks
    few = repeats.distinct(whole)
    rows, copies = few.all_rows(), few.copies.tolist()
    assert sum(copies) == few.n_copies == 1500
    different = {row.tobytes() for row in whole.all_rows()}
    expected: dict[bytes, int] = {}
    for row in whole.all_rows():
        expected[row.tobytes()] = expected.get(row.tobytes(), 0) + 1
    found: dict[bytes, int] = {}
    for row, count in zip(rows, copies, strict=True):
        found[row.tobytes()] = found.get(row.tobytes(), 0) + count
    assert found == expected
    assert len(rows) <= len(different) * -(-1500 // TILE)


def packed_by_kind(X: np.ndarray) -> Block:
    """Return rows as one block, packed by kind where they are worth it."""
    wishes = packing.Wishes(tuple(f"x{f}" for f in range(X.shape[1])), str(X.dtype))
    preparation = packing.provisional(X.T, wishes)
    return packing.pack(X.T, packing.RowRange(0, len(X)), preparation, by_kind=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "d", "n_kinds"), [(6000, 38, 2500), (5888, 3, 40), (1100, 1, 1)])
def test_equal_rows_lie_side_by_side(dtype: str, n: int, d: int, n_kinds: int) -> None:
    """Found among all rows of a block, however far apart: the same rows under the same ids, one of each kind kept."""
    X = rows_with_copies(n, d, n_kinds, seed=n).astype(dtype)
    X[n // 2 :] = X[: n - n // 2]
    before = packed_by_kind(X)
    assert repeats.is_repeated(before)
    found = repeats.written(before)
    assert found.cache is before.cache
    ids, rows = found.row_ids(), found.all_rows()
    X = X - packing.provisional(X.T, packing.Wishes(("",) * d, dtype)).shift.astype(dtype)
    assert np.sort(ids).tolist() == list(range(n))
    assert np.array_equal(rows, X[ids].astype(np.float64))
    assert not found.tiles.transpose(0, 2, 1).reshape(-1, found.tiles.shape[1])[n:].any()
    expected, counts = np.unique(X, axis=0, return_counts=True)
    assert 1 + np.count_nonzero((rows[1:] != rows[:-1]).any(axis=1)) == len(expected)
    few = repeats.distinct(found)
    order = np.lexsort(few.all_rows().T[::-1])
    assert np.array_equal(few.all_rows()[order], expected)
    assert few.copies[order].tolist() == counts.tolist()
    assert not few.tiles.transpose(0, 2, 1).reshape(-1, few.tiles.shape[1])[len(expected) :].any()
    tiles = before.tiles
    assert (len(tiles), tiles.shape, tiles.dtype, tiles.nbytes) == (
        len(found.tiles), found.tiles.shape, found.tiles.dtype, found.tiles.nbytes,
    )  # fmt: skip


@pytest.mark.parametrize("n_equal", [0, 32])
def test_rows_of_many_kinds_are_left_alone(n_equal: int) -> None:
    """Where few rows are equal, which a sample of them tells, or else all of them, each is packed."""
    X = np.random.default_rng(8).normal(size=(200 * TILE, 2))
    X.reshape(200, -1)[repeats.sampled(200)[:n_equal]] = 1.0
    assert repeats.kinds_of(X) is None
    assert not repeats.is_repeated(packed_by_kind(X))


@pytest.mark.parametrize("seed", range(3))
def test_kinds_are_numbered_as_they_come(seed: int) -> None:
    """Against a dictionary: rows of one to five features of few bits, also 0.0 beside -0.0, in more than one batch."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 3000)), int(rng.integers(1, 6))
    X = (rng.integers(3, size=(n, d)) * rng.choice([-1.0, 1.0], size=(n, d))).astype(np.float32)
    seen: dict[bytes, int] = {}
    expected = [seen.setdefault(row.tobytes(), len(seen)) for row in X]
    for most in (len(seen), len(seen) - 1):
        found, firsts = np.empty(n, np.uint32), np.empty(most, np.uint32)
        n_kinds = kinds.number_kinds(X.view(np.uint32), most, found, firsts)
        assert n_kinds == (len(seen) if most == len(seen) else 0)
        if n_kinds:
            assert found.tolist() == expected
            assert firsts.tolist() == [expected.index(kind) for kind in range(len(seen))]


@pytest.mark.parametrize(("n", "n_threads", "n_found"), [(9000, 1, 1), (140_000, 2, 2), (60_000, 2, 0)])
def test_kinds_change_no_bit_of_a_model(
    n: int, n_threads: int, n_found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of rows in the order of their kinds is that of rows ordered one by one; threads cut no such block."""
    X = rows_with_copies(n, 3, n // 13, seed=9)
    models, found, order = [], list[int](), repeats.ordered_by_kind

    def noted(block: Block, of_rows: np.ndarray) -> Block:
        found.append(len(of_rows))
        return order(block, of_rows)

    monkeypatch.setattr(repeats, "ordered_by_kind", noted)
    for most in (repeats.MOST_BYTES, 0):
        monkeypatch.setattr(repeats, "MOST_BYTES", most)
        model = kmeans(X, 8, init="k-means||", seed=3, n_threads=n_threads)
        models.append((model.centroids.tobytes(), model.inertia, predict(model, X).tolist()))
    assert models[0] == models[1]
    assert len(found) == n_found
    assert sum(found) == (n if n_found else 0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_equal_rows_are_written_once_they_are_asked_for(order: Literal["C", "F"]) -> None:
    """A run from given centroids looks at one row of each kind alone; seeding sees all rows, and so does whoever asks.

    Rows whose features do not lie side by side are packed as they are.
    """
    X = np.asarray(rows_with_copies(140_000, 3, 10_000, seed=2), order=order)
    start = X[::20_000].copy()
    blocks, preparation = api_blocks_of(X, n_threads=2)
    with blocks:
        assert [repeats.is_repeated(block) for block in blocks._blocks] == [order == "C"] * 2
        lloyd.lloyd(blocks, preparation.prepared(start), Limits(max_iter=3), lloyd.Identity())
        assert [repeats.is_repeated(block) for block in blocks._blocks] == [order == "C"] * 2
        ids = blocks.map_reduce(lambda group: [block.row_ids() for block in group], combine=list.__add__)
        assert not any(map(repeats.is_repeated, blocks._blocks))
        assert np.sort(np.concatenate(ids)).tolist() == list(range(len(X)))
        rows = np.concatenate([block.all_rows() for block in blocks.blocks])
    assert np.array_equal(rows + preparation.shift, X[np.concatenate(ids)])


@pytest.mark.parametrize("by_kind", [True, False])
def test_threads_share_the_distinct_rows(by_kind: bool) -> None:
    """Where one half of the rows has few kinds, threads look at about as many distinct rows each; no bit changes."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(160_000, 2))
    few, many = rng.integers(700, size=80_000), np.arange(80_000)
    if by_kind:  # equal ones follow each other, in both halves
        few, many = np.sort(few), many // 2
    X[:80_000], X[80_000:] = X[few], X[80_000 + many]
    start = X[::20_000].copy()
    blocks, preparation = api_blocks_of(X, n_threads=2)
    with blocks:
        assert [repeats.is_repeated(block) for block in blocks._blocks] == [by_kind] * 2
        seen = [sum(repeats.distinct(block).n_rows for block in group) for group in blocks._groups]
        assert len(seen) == 2
        assert max(seen) < 0.6 * sum(seen)
        found = lloyd.lloyd(blocks, preparation.prepared(start), Limits(max_iter=5), lloyd.Identity())
    whole = kmeans(X, len(start), init=start, max_iter=5, tol=0, n_threads=1)
    assert found.centroids.tobytes() == whole.centroids.tobytes()
    assert found.inertia == whole.inertia


def test_an_interrupt_while_rows_are_written_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again sees all rows."""

    def count(blocks: Sequence[Block]) -> int:
        return sum(block.n_rows for block in blocks)

    X = rows_with_copies(140_000, 3, 10_000, seed=2)
    blocks, _ = api_blocks_of(X, n_threads=2)
    with blocks, monkeypatch.context() as patch:
        assert repeats.is_repeated(blocks._blocks[0])
        patch.setattr(local_blocks, "_groups", interrupted)
        with pytest.raises(KeyboardInterrupt):
            blocks.map_reduce(count, combine=int.__add__)
        patch.undo()
        assert blocks.map_reduce(count, combine=int.__add__) == len(X)


def interrupted(*_: object) -> None:
    """Fail as on Ctrl-C."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("lose", [dict[str, Any].clear, dict[str, Any].popitem])
def test_a_repeated_block_may_lose_its_cache(lose: Callable[[dict[str, Any]], object]) -> None:
    """Its extremes and its distinct rows are found again, also where it has travelled."""
    X = rows_with_copies(6000, 3, 500, seed=1)
    before = packed_by_kind(X)
    travelled = pickle.loads(pickle.dumps(before))
    lose(before.cache)
    for block in (before, travelled):
        assert repeats.distinct(block).n_rows == len(np.unique(X, axis=0))
        with LocalBlocks([block], n_threads=1) as blocks:
            assert blocks.summary.n_samples == len(X)
            assert np.array_equal(blocks.summary.highest - blocks.summary.lowest, np.ptp(X, axis=0))
            assert sum(block.n_rows for block in blocks.blocks) == len(X)


def test_chosen_rows_keep_their_ids() -> None:
    """Of rows packed by kind that are some of the source's."""
    X = rows_with_copies(3000, 3, 300, seed=3)
    listed = np.arange(0, 6000, 2, dtype=np.uint32)
    preparation = packing.provisional(X.T, packing.Wishes(("a", "b", "c"), "float64"))
    block = packing.pack(X.T, packing.RowRange(0, 6000, listed), preparation, by_kind=True)
    assert repeats.is_repeated(block)
    whole = repeats.written(block)
    assert np.array_equal(whole.all_rows(), (X - preparation.shift)[whole.row_ids() // 2])


def test_passes_over_all_rows_are_shared_by_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where blocks are too large for distinct rows, threads have as many rows each, however many are equal."""
    monkeypatch.setattr(repeats, "MOST_BYTES", 0)
    rng = np.random.default_rng(4)
    X = rng.normal(size=(160_000, 2))
    X[:80_000] = X[rng.integers(700, size=80_000)]
    blocks, _ = api_blocks_of(X, n_threads=2)
    with blocks:
        assert [[repeats.distinct(b).n_rows for b in group] for group in blocks._groups] == [[80_000]] * 2


@pytest.mark.parametrize(
    ("n_tiles", "n_groups", "found"), [((100, 2), 1, 1), ((100, 100, 3), 2, 2), ((3, 3), 2, 2)]
)
def test_there_are_no_more_groups_than_asked_for(n_tiles: Sequence[int], n_groups: int, found: int) -> None:
    """The last group takes what is left."""
    rng = np.random.default_rng(0)
    blocks = [packing.block_of_rows(rng.normal(size=(n * TILE, 2))) for n in n_tiles]
    groups = local_blocks._groups(blocks, n_groups)
    assert len(groups) == found
    assert sum(len(block.tiles) for group in groups for block in group) == sum(n_tiles)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_differ_in_sign_have_different_hashes(dtype: type) -> None:
    """Numbers whose lower bits are alike do not share the few hashes that would make the search for equal ones slow."""
    signs = (np.arange(1024)[:, None] >> np.arange(10)) % 2 * 2 - 1
    X = (signs / np.sqrt(10)).astype(dtype)
    tiles = np.ascontiguousarray(X.reshape(8, TILE, 10).transpose(0, 2, 1))
    hashes = np.empty((8, TILE), np.uint64)
    for bits, found in zip(tiles.view(f"u{X.itemsize}"), hashes, strict=True):
        kinds.write_hashes(bits, 10, found)
    of_rows = np.array([kinds.hash_of(row) for row in X.view(f"u{X.itemsize}")], np.uint64)
    for found in (hashes, of_rows):
        assert len(np.unique(found)) == 1024
        assert len(np.unique(found >> np.uint64(52))) > 700  # of 1,024 slots and more


@pytest.mark.parametrize("why", ["weights", "few", "wide", "different"])
def test_where_rows_are_kept_as_they_are(why: str) -> None:
    """Blocks with weights, few rows, wide rows or hardly an equal row are passed over as they are."""
    n, d = (600 if why == "few" else 3000), (200 if why == "wide" else 2)
    X = rows_with_copies(n, d, 10**6 if why == "different" else 20, seed=5)
    weights = np.ones(n) if why == "weights" else None
    with blocked(X, (0, n), weights, n_threads=1) as blocks:
        [block] = blocks.blocks
        assert repeats.distinct(block) is block


def test_a_run_over_distinct_rows_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the distinct rows remember goes with what the block remembers; larger sets are not copied at all."""
    X = rows_with_copies(3000, 2, 20, seed=6)
    with blocked(X, (0, 3000), n_threads=1) as blocks:
        passed(blocks, Track("run", X[:3]).step(blocks, exact=False))
        assert blocks.map_reduce(passes.forget, "run", combine=int.__add__) == 1
        assert blocks.map_reduce(passes.forget, "run", combine=int.__add__) == 0
        assert lloyd.lloyd(blocks, X[::1000].copy(), Limits(), lloyd.Identity()).sizes
    monkeypatch.setattr(repeats, "MOST_BYTES", 1000)
    with blocked(X, (0, 3000), n_threads=1) as blocks:
        assert n_distinct(blocks) == 3000


def test_what_travels_is_the_block_alone() -> None:
    """A pickled block has lost its distinct rows, as all of its cache."""
    X = rows_with_copies(3000, 2, 20, seed=6)
    with blocked(X, (0, 3000), n_threads=1) as blocks:
        [block] = blocks.blocks
        repeats.distinct(block)
    make, arguments = block.__reduce__()
    travelled = make(*arguments)
    assert isinstance(travelled, Block)
    assert travelled.cache == {}
    assert travelled.n_copies == travelled.n_rows == 3000
