"""Blocks on disk: read once for all who wait, nothing left behind, and a full disk named."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from kmeans_dask import disk_blocks, steps
from kmeans_dask.blocks import Block
from kmeans_dask.disk_blocks import DiskBlocks
from kmeans_dask.errors import InfrastructureError
from kmeans_dask.lloyd import Identity, Limits, lloyd
from kmeans_dask.passes import forget
from kmeans_dask.restarts import Settings, concurrently, fit_of, restarts_of
from kmeans_dask.spool import SpoolFile, spooled, tiles_of
from tests.engine_data import Table, count_of, cut, packed, scaled

ROOT = Path(__file__).parents[1]
TABLE = Table(seed=1, n_rows=20_000)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DiskBlocks]:
    """20 blocks of 1,000 rows in as many groups, in four files."""
    monkeypatch.setattr(disk_blocks, "GROUP_BYTES", 1)
    loads = [spooled(packed(TABLE, cut(20_000, 1000)[i : i + 6]), str(tmp_path)) for i in range(0, 20, 5)]
    with DiskBlocks([block for load in loads for block in load], n_threads=2) as blocks:
        yield blocks


def size_of(blocks: DiskBlocks) -> int:
    """Return the bytes of all tiles."""
    return sum(tiles_of(block).file_bytes for block in blocks.blocks)


class Gate:
    """Holds every function of blocks until it opens."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def count(self, blocks: Sequence[Block]) -> int:
        """Return the number of rows once the gate is open."""
        self.entered.set()
        assert self.open.wait(60)
        return count_of(blocks)


def test_calls_that_come_while_one_is_served_join_it(disk: DiskBlocks) -> None:
    """Nine calls that come while the first is at its first groups go round with it, and read only what they missed."""
    before, gate = disk.read_bytes, Gate()
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(disk.map_reduce, gate.count, combine=int.__add__)
        assert gate.entered.wait(60)
        others = [pool.submit(disk.map_reduce, count_of, combine=int.__add__) for _ in range(9)]
        while len(disk._rounds._under_way) < 10:
            threading.Event().wait(0.001)
        gate.open.set()
        assert [found.result() for found in (first, *others)] == [20_000] * 10
    # Two threads held the gate with a group each; the others' calls came after those were handed out.
    assert size_of(disk) <= disk.read_bytes - before <= 1.1 * size_of(disk)


def test_restarts_share_what_is_read(disk: DiskBlocks) -> None:
    """Restarts that run together read hardly more than the longest of them does alone."""
    choices = Settings(6, init="random", n_init=6, seed=3, tol=0.0)
    quiet = lambda progress: None  # noqa: E731
    alone = []
    for restart in restarts_of(choices):
        before = disk.read_bytes
        fit_of(disk, choices)(restart, quiet)
        alone.append(disk.read_bytes - before)
    before = disk.read_bytes
    concurrently(quiet, 6)(fit_of(disk, choices), restarts_of(choices))
    assert disk.read_bytes - before < 0.6 * sum(alone)
    assert disk.read_bytes - before >= max(alone)


def test_what_a_run_remembers_is_found_in_another_buffer(
    disk: DiskBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run labels each group from nothing once; later passes find labels and bounds though tiles moved."""
    labelled = []
    whole = steps._labelled
    monkeypatch.setattr(steps, "_labelled", lambda *args: labelled.append(1) or whole(*args))
    start = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0], [9.0, 9.0, 9.0]])
    assert lloyd(disk, start, Limits(), Identity()).n_iter > 2
    assert len(labelled) == 20


def test_what_needs_no_row_reads_none(disk: DiskBlocks) -> None:
    """Forgetting a run leaves the disk alone."""
    before = disk.read_bytes
    assert disk.map_reduce(forget, "nothing", combine=int.__add__) == 0
    assert disk.read_bytes == before


def failing(blocks: Sequence[Block]) -> int:
    """Fail on the group of one row."""
    if any(block.first_row <= 7000 < block.first_row + block.n_source_rows for block in blocks):
        raise LookupError("row 7000")
    return 0


def test_an_error_is_its_callers_alone(disk: DiskBlocks) -> None:
    """A call that fails in a shared round leaves the others' answers whole."""
    with ThreadPoolExecutor(6) as pool:
        good = [pool.submit(disk.map_reduce, count_of, combine=int.__add__) for _ in range(3)]
        bad = [pool.submit(disk.map_reduce, failing, combine=int.__add__) for _ in range(3)]
        assert [found.result() for found in good] == [20_000] * 3
        for found in bad:
            with pytest.raises(LookupError, match="row 7000"):
                found.result()


def test_a_file_cut_short_is_an_error(disk: DiskBlocks) -> None:
    """Packed blocks that the disk does not give back end the call, naming the directory; no call waits for ever."""
    file = tiles_of(disk.blocks[0]).file
    assert file is not None
    os.ftruncate(file.fd, 1000)
    with pytest.raises(InfrastructureError, match=r".*: packed blocks were cut short"):
        disk.map_reduce(count_of, combine=int.__add__)


def test_closing_ends_a_call_under_way(disk: DiskBlocks) -> None:
    """Blocks that are closed in mid-pass, as those of a client that left, fail the call and end their threads."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(disk.map_reduce, gate.count, combine=int.__add__)
        assert gate.entered.wait(60)
        disk.close(wait=False)
        with pytest.raises(RuntimeError, match="closed"):
            call.result(60)
        gate.open.set()
    disk.close()
    with pytest.raises(RuntimeError, match="closed"):
        disk.map_reduce(count_of, combine=int.__add__)


def open_files(folder: Path) -> int:
    """Return how many files without a name this process holds in a folder."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    files = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sum(file.startswith(str(folder)) and file.endswith("(deleted)") for file in files)


def test_files_end_with_their_blocks(tmp_path: Path) -> None:
    """Nothing has a name on the disk, and its room is free again once the last block of a file is gone."""
    blocks = spooled(packed(TABLE, cut(20_000, 1000)), str(tmp_path))
    assert open_files(tmp_path) == 1
    disk = DiskBlocks(blocks, n_threads=2)
    del blocks
    with disk.map_blocks(scaled, 2.0) as twice:
        np.testing.assert_array_equal(twice.summary.highest, 2 * disk.summary.highest)
        assert list(tmp_path.iterdir()) == []
        assert open_files(tmp_path) == 1
    assert open_files(tmp_path) == 0


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    """A process killed while its blocks lie on disk leaves no file and gives their room back."""
    code = (
        "import sys, time, numpy as np; from kmeans_dask.spool import SpoolFile; "
        "file = SpoolFile(sys.argv[1]); file.append(np.ones(2**22)); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"written\n"
        p.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond n_bytes, as on a disk or a quota that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Where the blocks do not fit, the directory, what is left to write, what is free and the fix are told."""
    said = r"no room for packed blocks \(File too large\): [\d,]+ bytes .* [\d,]+ are free\. Free some of that disk"
    with largest_file(100_000), pytest.raises(InfrastructureError, match=said) as caught:
        spooled(packed(TABLE, cut(20_000, 1000)), str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    del caught
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == 0


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A scratch directory that is not there is told, not a traceback."""
    with pytest.raises(InfrastructureError, match=r"gone: no scratch file can be made there"):
        SpoolFile(str(tmp_path / "gone"))


def test_rows_on_disk_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing and reading 128 MiB in groups of 1 MiB takes less than 40 MiB of memory."""
    monkeypatch.setattr(disk_blocks, "GROUP_BYTES", 2**20)
    process = psutil.Process()

    def block(i: int) -> Block:
        return Block(np.full((512, 4, 128), i, np.float32), 4, 512 * 128, i * 512 * 128, 512 * 128)

    with DiskBlocks(spooled(map(block, range(1)), str(tmp_path)), n_threads=2) as few:  # warm
        assert few.n_blocks == 1
    before, most = process.memory_info().rss, 0

    def look(blocks: Sequence[Block]) -> int:
        nonlocal most
        most = max(most, process.memory_info().rss)
        return sum(int(block.tiles[0, 0, 0]) == block.first_row // block.n_rows for block in blocks)

    with DiskBlocks(spooled(map(block, range(128)), str(tmp_path)), n_threads=2) as disk:
        assert size_of(disk) == 128 * 2**20
        assert disk.map_reduce(look, combine=int.__add__) == 128
    assert most - before < 40 * 2**20
