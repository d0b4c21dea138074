"""The engine in this process over blocks that lie on its disk.

Passes go round: threads read one group of blocks after another, and every call that is under way is answered from a
group while it lies in the buffer. A call that comes while others are served joins at the group they are at, and is
whole when the round comes back to where it joined. So restarts that run at once share the reading.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from typing import Any, Self

import numpy as np

from kmeans_dask import repeats
from kmeans_dask.blocks import Block, R, Run, Summary, T, needs_rows, summarise
from kmeans_dask.local_blocks import Call, LocalBlocks, Outcome, outcome_of, overlapping, value_of
from kmeans_dask.spool import Buffer, is_spooled, respooled, tiles_of

GROUP_BYTES = 16 * 2**20
READ_AHEAD = 2  # threads that read while others compute


class DiskBlocks:
    """Blocks on the disk of this process; see `Blocks`. n_threads compute at once, and READ_AHEAD more read."""

    def __init__(
        self, blocks: Sequence[Block], n_threads: int | None = None, summary: Summary | None = None
    ) -> None:
        self.blocks = sorted(blocks, key=lambda block: block.first_row)
        self.n_blocks = len(self.blocks)
        self.n_features = self.blocks[0].n_features
        self.dtype: np.dtype[Any] = self.blocks[0].tiles.dtype
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        for block in self.blocks:
            repeats.keep_all(block)  # a copy of its distinct rows would lie in memory
        self._rounds = Rounds(groups_of(self.blocks), self.n_threads)
        self.summary = self.map_reduce(summarise, combine=Summary.combined) if summary is None else summary

    @property
    def read_bytes(self) -> int:
        """How many bytes were read so far."""
        return self._rounds.read_bytes

    def map_reduce(self, fn: Callable[..., T], *args: Any, combine: Callable[[T, T], T]) -> T:
        """Return fn(blocks, *args) of all blocks; see `Blocks`."""
        [outcome] = self.map_all([Call(fn, args, combine)])
        found: T = value_of(outcome)
        return found

    def map_all(self, calls: Sequence[Call]) -> list[Outcome]:
        """Return what becomes of each call; see `LocalBlocks`."""
        asked = [Asked(call, len(self._rounds.groups)) for call in calls]
        self._rounds.serve([one for one in asked if needs_rows(one.call.fn)])
        for one in asked:
            if not needs_rows(one.call.fn):
                for group in self._rounds.groups:
                    one.answer(group)
        return [one.outcome() for one in asked]

    def map_blocks(self, fn: Callable[..., Block], *args: Any) -> "DiskBlocks":
        """Return the blocks fn(block, *args), each old file freed as its new one is written; this object ends."""
        files: dict[int, list[Block]] = {}
        for block in self.blocks:
            files.setdefault(id(tiles_of(block).file), []).append(block)
        loads = list(files.values())
        n_loads, n_threads = len(loads), self.n_threads
        files.clear()
        self.blocks = []
        self.close()
        with ThreadPoolExecutor(n_threads, thread_name_prefix="respool") as pool:
            new = list(pool.map(lambda _: respooled(loads.pop(), fn, args), range(n_loads)))
        return DiskBlocks([block for load in new for block in load], n_threads)

    def map_runs(
        self, pieces: Callable[..., T], write: Callable[..., R], runs: Sequence[Run], *args: Any
    ) -> list[R]:
        """Return write(run, pieces of its rows, *args) for each run; see `Blocks`."""
        with ThreadPoolExecutor(self.n_threads, thread_name_prefix="runs") as pool:
            return list(
                pool.map(
                    lambda run: write(run, [piece for _, piece in self.pieces(run, pieces, args)], *args),
                    runs,
                )
            )

    def pieces(self, run: Run, pieces: Callable[..., T], args: tuple[object, ...]) -> list[tuple[int, T]]:
        """Return each block's first row and piece of a run's rows; see `LocalBlocks`."""
        stop = run.first_row + run.n_rows
        found = []
        with self._rounds.buffer() as buffer:
            for block in overlapping(self.blocks, run):
                [filled] = self._rounds.filled(buffer, [block])
                found.append((block.first_row, pieces(filled, run.first_row, stop, *args)))
        return found

    def close(self, *, wait: bool = True) -> None:
        """Let go of the files, and end the threads after what they are at; wait for that, or let them end."""
        self._rounds.close(wait=wait)
        self.blocks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Asked:
    """A call on its way round the groups."""

    def __init__(self, call: Call, n_groups: int) -> None:
        self.call = call
        self.wanting = set(range(n_groups))
        self.done = threading.Event()
        self._missing = n_groups
        self._found: list[Any] = []  # one value at most: what was found so far, combined
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def answer(self, blocks: Sequence[Block]) -> None:
        """Ask one group, and combine what it says with what is known."""
        if self.done.is_set():
            return
        ok, value = outcome_of(lambda: self.call.fn(blocks, *self.call.args))
        if not ok:
            self.fail(value)
            return
        with self._lock:
            ok, value = outcome_of(lambda: reduce(self.call.combine, [*self._found, value]))
            self._found = [value]
            self._missing -= 1
        if not ok:
            self.fail(value)
        elif not self._missing:
            self.done.set()

    def fail(self, error: Exception) -> None:
        """End with an error; the first one stays."""
        with self._lock:
            self._error = self._error or error
        self.done.set()

    def outcome(self) -> Outcome:
        """Return (True, the value) or (False, the error)."""
        return (True, self._found[0]) if self._error is None else (False, self._error)


class Rounds:
    """Threads that go round the groups as long as a call is under way, each with a buffer of its own."""

    def __init__(self, groups: Sequence[Sequence[Block]], n_threads: int) -> None:
        self.groups = groups
        self.read_bytes = 0
        self._n_readers = min(n_threads + READ_AHEAD, len(groups))
        self._computing = threading.Semaphore(n_threads)
        self._largest = max(sum(tiles_of(block).file_bytes for block in group) for group in groups)
        self._pool = ThreadPoolExecutor(self._n_readers, thread_name_prefix="kmeans-disk")
        self._buffers: list[Buffer] = []
        self._lock = threading.Lock()
        self._under_way: list[Asked] = []
        self._reading: set[int] = set()
        self._at = self._n_running = 0
        self._closed = False

    def serve(self, asked: Sequence[Asked]) -> None:
        """Return when every call is answered."""
        with self._lock:
            if self._closed:
                raise RuntimeError("these blocks are closed")
            self._under_way += asked
            n_new = self._n_readers - self._n_running if asked else 0
            self._n_running += n_new
            for _ in range(n_new):
                self._pool.submit(self._go_round)
        try:
            for one in asked:
                one.done.wait()
        finally:
            with self._lock:
                self._under_way = [one for one in self._under_way if one not in asked]

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """Give a buffer that holds any one group."""
        with self._lock:
            buffer = self._buffers.pop() if self._buffers else Buffer(self._largest)
        try:
            yield buffer
        finally:
            with self._lock:
                self._buffers.append(buffer)

    def filled(self, buffer: Buffer, blocks: Sequence[Block]) -> list[Block]:
        """Return the blocks with their tiles in a buffer."""
        found = buffer.filled(blocks)
        with self._lock:
            self.read_bytes += sum(block.tiles.nbytes for block in found)
        return found

    def close(self, *, wait: bool) -> None:
        """Fail the calls under way, and end the threads."""
        with self._lock:
            self._closed = True
            for one in self._under_way:
                one.fail(RuntimeError("these blocks are closed"))
        self._pool.shutdown(wait=wait)
        self._buffers.clear()
        self.groups = []

    def _go_round(self) -> None:
        try:
            with self.buffer() as buffer:
                while (group := self._next()) is not None:
                    self._serve(group, buffer)
        except BaseException as error:  # nobody may wait for ever
            with self._lock:
                self._n_running -= 1
                for one in self._under_way:
                    one.fail(RuntimeError(f"a reading thread ended: {error!r}"))
            raise

    def _next(self) -> int | None:
        """Return the next group that a call wants and nobody is reading; None, and the thread ends."""
        with self._lock:
            wanting = [one.wanting for one in self._under_way if not (self._closed or one.done.is_set())]
            for step in range(len(self.groups) if wanting else 0):
                group = (self._at + step) % len(self.groups)
                if group not in self._reading and any(group in wanted for wanted in wanting):
                    self._at = group + 1
                    self._reading.add(group)
                    return group
            self._n_running -= 1
            return None

    def _serve(self, group: int, buffer: Buffer) -> None:
        """Read a group, and answer all calls that want it by then."""
        read, blocks = outcome_of(lambda: self.filled(buffer, self.groups[group]))
        with self._computing:
            with self._lock:
                self._reading.discard(group)
                takers = [one for one in self._under_way if group in one.wanting]
                for one in takers:
                    one.wanting.discard(group)
            for one in takers:
                if read:
                    one.answer(blocks)
                else:
                    one.fail(blocks)


def groups_of(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return neighbours together, up to GROUP_BYTES of tiles or one larger block."""
    groups: list[list[Block]] = []
    room = 0
    for block in blocks:
        n_bytes = tiles_of(block).file_bytes
        if not groups or n_bytes > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(block)
        room -= n_bytes
    return groups


def engine_here(
    blocks: Sequence[Block], n_threads: int | None = None, summary: Summary | None = None
) -> LocalBlocks | DiskBlocks:
    """Return the engine of this process for blocks in memory or on disk."""
    engine = DiskBlocks if is_spooled(blocks[0]) else LocalBlocks
    return engine(blocks, n_threads, summary)
