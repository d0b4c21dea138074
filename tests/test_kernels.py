"""The compiled loops: nearest centroid, ties, canonical distances; the same as plain Python with numba off."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmeans_dask import kernels, passes
from kmeans_dask.blocks import Block
from kmeans_dask.tiles import TILE
from tests import naive
from tests.blockings import Case, blocked, cases, cut, labels_under

ROOT = Path(__file__).parents[1]
UNCOMPILED = bool(os.environ.get("NUMBA_DISABLE_JIT"))
MAKERS = {
    "empty",
    "zeros",
    "ones",
    "full",
    "arange",
    "array",
    "empty_like",
    "zeros_like",
    "full_like",
    "concatenate",
}
SQUARE = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])


def labels_of(X: np.ndarray, centroids: np.ndarray) -> list[int]:
    """Return the engine's labels of rows in one block."""
    with blocked(X) as blocks:
        return labels_under(blocks, centroids)


def test_labels_and_distances_worked_by_hand() -> None:
    """The square's corners: two rows to each, at squared distances 0, 1/4, 1/4, 0; padding gets nothing."""
    centroids = np.array([[0.0, 0.0], [1.0, 1.0]])
    (block,) = cut(SQUARE, (0, 4))
    labels = passes.labels_of(block, centroids, passes.scan_of(centroids, block.tiles.dtype))
    assert labels.tolist() == [0, 0, 1, 1]
    assert passes.sq_distances_of(block, centroids, labels).tolist() == [0, 0.25, 0.25, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_lowest_index_wins_ties(dtype: str) -> None:
    """A row midway, or on two equal centroids, takes the lower index, in every lane and every group of four."""
    X = np.array([[0.5], [1.0], [0.0]], dtype)
    assert labels_of(X, np.array([[1.0], [0.0], [1.0]])) == [0, 0, 1]
    for k in (2, 4, 5, 9):
        for first in range(k):
            centroids = np.full((k, 1), 50.0)
            centroids[first:] = 1.0
            assert labels_of(X, centroids) == [first] * 3


@settings(max_examples=25 if UNCOMPILED else 150)
@given(cases(weighted=False))
def test_labels_are_the_canonical_ones(case: Case) -> None:
    """Over data, starts and blocks, every label is the lowest index of the least canonical distance."""
    with case.blocks() as blocks:
        assert labels_under(blocks, case.start) == naive.nearest(case.X, case.start)


@settings(max_examples=5 if UNCOMPILED else 60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 3, 8, 30]))
def test_near_ties_are_settled(seed: int, dtype: str, d: int) -> None:
    """Rows within rounding of the middle of two centroids, far from zero, have canonical labels."""
    rng = np.random.default_rng(seed)
    centroids = rng.integers(-3, 4, size=(9, d)) + rng.choice([0.0, 1000.0])
    pairs = centroids[rng.integers(9, size=(40, 2))]
    middles = pairs.mean(axis=1)
    X = (middles * (1 + rng.integers(-3, 4, size=(40, d)) * np.finfo(dtype).eps)).astype(dtype)
    jittered = centroids * (1 + rng.integers(-2, 3, size=centroids.shape) * 2.0**-52)
    for start in (centroids, jittered, np.concatenate((jittered, centroids))):
        assert labels_of(X, start) == naive.nearest(X, start)


@pytest.mark.parametrize("far", [1e20, 1e30, 1e100, 2.0**480])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_centroids_beyond_the_range_of_the_scan(far: float, dtype: str) -> None:
    """Given centroids may overflow float32 in the scan: their rows are settled in float64."""
    X = np.array([[0.0, 1.0], [2.0, 3.0], [-5.0, 0.0]], dtype)
    centroids = np.array([[far, 0.0], [-far, far], [2.0, 2.0], [0.0, -far], [0.0, 0.0]])
    with np.errstate(all="ignore"):  # with numba off, numpy tells of each infinity
        assert labels_of(X, centroids) == naive.nearest(X, centroids) == [4, 2, 4]
        only_far = centroids[[1, 0, 3]]
        assert labels_of(X, only_far) == naive.nearest(X, only_far)


@pytest.mark.parametrize("tiny", [1e-20, 1e-30, 1e-42])
def test_squares_that_underflow_in_float32(tiny: float) -> None:
    """Where every square of the scan underflows, the float64 distances still tell rows apart."""
    X = (np.arange(12).reshape(6, 2) * tiny).astype(np.float32)
    centroids = X[[4, 1, 3]].astype(np.float64)
    assert labels_of(X, centroids) == naive.nearest(X, centroids)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129])
def test_padding_is_never_seen(n: int) -> None:
    """What lies beyond the last row reaches no label, distance or sum."""
    rng = np.random.default_rng(n)
    X, centroids = rng.normal(size=(n, 3)), rng.normal(size=(5, 3))
    (clean,) = cut(X, (0, n))
    tiles = np.concatenate((clean.tiles, np.zeros((1, *clean.tiles.shape[1:]))))
    for i in range(n, tiles.shape[0] * TILE):
        tiles[i // TILE, :, i % TILE] = 1e6
    dirty = Block(tiles, 3, n, 0, n)
    scan = passes.scan_of(centroids, tiles.dtype)
    labels = passes.labels_of(dirty, centroids, scan)
    assert labels.tolist() == naive.nearest(X, centroids)
    assert len(passes.sq_distances_of(dirty, centroids, labels)) == n
    for block in (clean, dirty):
        counts, high, low = np.zeros(5, np.int64), np.zeros((3, 5), np.int64), np.zeros((3, 5), np.int64)
        kernels.count_rows(labels, counts)
        kernels.add_rows(block.tiles, n, labels, block.weights, np.full(3, 2.0**20), high, low)
        assert counts.tolist() == np.bincount(labels, minlength=5).tolist()
        if block is clean:
            expected = high, low
    assert np.array_equal(high, expected[0])
    assert np.array_equal(low, expected[1])


def test_a_block_gives_its_rows_back() -> None:
    """Rows, ids and ranges of tiles are those that were packed, with gaps where rows were left out."""
    X = np.random.default_rng(0).normal(size=(300, 3))
    for block in cut(X, (0, 300)):
        assert np.array_equal(block.all_rows(), X)
        assert np.array_equal(block.rows(np.array([299, 0, 130])), X[[299, 0, 130]])
        part = block.tile_range(1, 3)
        assert np.array_equal(part.all_rows(), X[128:])
        assert part.row_ids().tolist() == list(range(128, 300))
        kept = np.arange(0, 600, 2, dtype=np.uint32)
        gaps = Block(block.tiles, 3, 300, 1000, 600, kept, kept)
        assert gaps.row_ids().tolist() == list(range(1000, 1600, 2))
        assert gaps.tile_range(2, 3).row_ids().tolist() == list(range(1512, 1600, 2))
        assert gaps.row_id(299) == 1598


METHODS = {
    "all", "any", "argmax", "argmin", "astype", "copy", "flatten", "max", "mean", "min", "prod", "ravel", "sort", "sum",
}  # fmt: skip


def borrowing_kernels() -> list[ast.FunctionDef]:
    """Return the sources of all kernels that count no references."""
    trees = [ast.parse(path.read_text()) for path in Path(kernels.__file__).parent.glob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(d).startswith("borrowing(") for d in f.decorator_list)]


@pytest.mark.parametrize("kernel", borrowing_kernels(), ids=lambda kernel: str(kernel.name))
def test_kernels_that_count_no_references_make_and_return_no_arrays(kernel: ast.FunctionDef) -> None:
    """An array made there would never be freed, and one returned would be freed twice; numba refuses only some."""
    calls = {ast.unparse(node.func) for node in ast.walk(kernel) if isinstance(node, ast.Call)}
    assert not {call.removeprefix("np.") for call in calls if call.startswith("np.")} & MAKERS
    assert not {call.rpartition(".")[2] for call in calls if "." in call} & METHODS
    subscripted = {ast.unparse(n.value) for n in ast.walk(kernel) if isinstance(n, ast.Subscript)}
    for node in ast.walk(kernel):
        if isinstance(node, ast.Return) and node.value is not None:
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            assert not {ast.unparse(value) for value in values} & subscripted
            assert not any(isinstance(v, ast.Subscript) and isinstance(v.slice, ast.Slice) for v in values)


def test_the_same_without_compilation() -> None:
    """Every test of this file, and the small ones of whole passes, sums and means, pass with numba switched off."""
    if UNCOMPILED:
        pytest.skip("this is the run without compilation")
    others = [f"tests/test_{name}.py" for name in ("sums", "pruning", "lloyd")]
    small = "test_kernels or test_sums or by_hand or rounded or short or goes_on or leave_each"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", small, __file__, *others]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
