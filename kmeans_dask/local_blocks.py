"""The engine in this process: blocks on a pool of threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial, reduce
from threading import Lock
from typing import Any, Self

import numpy as np

from kmeans_dask import repeats
from kmeans_dask.blocks import Block, R, Run, Summary, T, needs_all_rows, summarise
from kmeans_dask.extremes import EXTREMES

_GROUPS_PER_THREAD = 2  # where passes are long
_WORTH_A_THREAD = 64 * 16  # tiles times their features
_UNEVEN = 32  # the part of a share by which one may be larger or smaller where that spares to cut a block
_SHORT_BYTES = 2**26  # for each thread
Outcome = tuple[bool, Any]  # (True, value) or (False, error)


@dataclass(frozen=True, slots=True)
class Call:
    """A question to all blocks: see `Blocks.map_reduce`."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    combine: Callable[[Any, Any], Any]


def outcome_of(fn: Callable[[], Any]) -> Outcome:
    """Return (True, what fn returns) or (False, what it raises)."""
    try:
        return True, fn()
    except Exception as error:  # handed to whoever asked, who raises it
        return False, error


def value_of(outcome: Outcome) -> Any:
    """Return the value of an outcome, or raise its error."""
    ok, value = outcome
    if not ok:
        raise value
    return value


class LocalBlocks:
    """Blocks of this process; `map_reduce` runs on n_threads threads, all cores by default.

    are_short: whether they are so few that a pass takes little longer than threads take to wake up.
    """

    def __init__(
        self, blocks: Sequence[Block], n_threads: int | None = None, summary: Summary | None = None
    ) -> None:
        n_bytes = sum(block.tiles.nbytes for block in blocks)
        if n_bytes > repeats.MOST_BYTES:
            blocks = [repeats.keep_all(repeats.written(block)) for block in blocks]
        blocks = [block if EXTREMES in block.cache else repeats.written(block) for block in blocks]
        self.n_blocks = len(blocks)
        self.n_features = blocks[0].n_features
        self.dtype: np.dtype[Any] = blocks[0].tiles.dtype
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="kmeans")
        self.are_short = n_bytes <= _SHORT_BYTES * self.n_threads
        self._alone, self._writing = Lock(), Lock()
        self._hold(sorted(blocks, key=_first_row))
        if summary is not None:
            self.summary = summary
        elif any(map(repeats.is_repeated, self._blocks)):
            self.summary = summarise(self._blocks)
        else:
            self.summary = self.map_reduce(summarise, combine=Summary.combined)

    def _hold(self, blocks: list[Block]) -> None:
        seen = [repeats.distinct(block) if repeats.is_repeated(block) else block for block in blocks]
        groups = _groups(seen, _n_groups(seen, self.n_threads, short=self.are_short))
        self._blocks, self._groups = blocks, groups  # both or none: an interrupt may come anywhere

    @property
    def blocks(self) -> list[Block]:
        """The blocks with all of their rows, by their first row; equal ones are written once they are asked for."""
        with self._writing:
            if any(map(repeats.is_repeated, self._blocks)):
                writing = self._pool.map if len(self._blocks) > 1 else map
                self._hold(list(writing(repeats.written, self._blocks)))
            return self._blocks

    def _seen_by(self, *fns: Callable[..., Any]) -> list[list[Block]]:
        """Return the blocks by threads, with all rows if one of these functions needs them."""
        if any(map(needs_all_rows, fns)):
            _ = self.blocks
        return self._groups

    def map_reduce(self, fn: Callable[..., T], *args: Any, combine: Callable[[T, T], T]) -> T:
        """Return fn(blocks, *args) of all blocks; see `Blocks`."""
        groups = self._seen_by(fn)
        if len(groups) == 1:
            return fn(groups[0], *args)
        return reduce(combine, self._of_each(lambda group: fn(group, *args), groups))

    def map_all(self, calls: Sequence[Call]) -> list[Outcome]:
        """Return what becomes of each call, all made in one pass: group by group, one call after the other."""

        def made(group: list[Block]) -> list[Outcome]:
            return [outcome_of(partial(call.fn, group, *call.args)) for call in calls]

        groups = self._seen_by(*(call.fn for call in calls))
        parts = [made(groups[0])] if len(groups) == 1 else self._of_each(made, groups)
        return [
            outcome_of(partial(reduce, call.combine, map(value_of, found)))
            for call, found in zip(calls, zip(*parts, strict=True), strict=True)
        ]

    def _of_each(self, fn: Callable[[list[Block]], T], groups: list[list[Block]]) -> list[T]:
        """Return fn(group) of each group of blocks."""
        if not self.are_short or not self._alone.acquire(blocking=False):
            return list(self._pool.map(fn, groups))
        try:  # the calling thread works along; a signal waits for it
            found: list[Outcome] = [(False, None)] * len(groups)
            left = iter(range(len(groups)))

            def work() -> None:
                for i in left:
                    found[i] = outcome_of(partial(fn, groups[i]))
                    if not found[i][0]:  # nobody starts another; those before it have been started
                        deque(left, 0)

            helpers: list[Future[None]] = []
            try:
                n_helpers = min(self.n_threads, len(groups)) - 1
                helpers.extend(self._pool.submit(work) for _ in range(n_helpers))
                work()
            finally:
                deque(left, 0)
                # Not for one that waits for a thread.
                wait([helper for helper in helpers if not helper.cancel()])
            return list(map(value_of, found))
        finally:
            self._alone.release()

    def map_blocks(self, fn: Callable[..., Block], *args: Any) -> "LocalBlocks":
        """Return the blocks fn(block, *args), each old one freed as its new one is made; this object ends."""
        blocks, self._blocks, self._groups = self.blocks, [], []
        new = list(self._pool.map(lambda _: fn(blocks.pop(), *args), range(self.n_blocks)))
        self.close()
        return LocalBlocks(new, self.n_threads)

    def map_runs(
        self, pieces: Callable[..., T], write: Callable[..., R], runs: Sequence[Run], *args: Any
    ) -> list[R]:
        """Return write(run, pieces of its rows, *args) for each run; see `Blocks`."""

        def one(run: Run) -> R:
            return write(run, [piece for _, piece in self.pieces(run, pieces, args)], *args)

        _ = self.blocks  # written before the threads that would write them wait for each other
        return list(self._pool.map(one, runs))

    def pieces(self, run: Run, pieces: Callable[..., T], args: tuple[Any, ...]) -> list[tuple[int, T]]:
        """Return (first row, pieces(block, first_row, stop, *args)) of each block that holds rows of a run."""
        stop = run.first_row + run.n_rows
        return [(b.first_row, pieces(b, run.first_row, stop, *args)) for b in overlapping(self.blocks, run)]

    def close(self, *, wait: bool = True) -> None:
        """End the threads, after what they are at; wait for that, or let them end by themselves."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _first_row(block: Block) -> int:
    return block.first_row


def overlapping(blocks: Iterable[Block], run: Run) -> list[Block]:
    """Return the blocks that hold source rows of a run."""
    stop = run.first_row + run.n_rows
    return [b for b in blocks if b.first_row < stop and b.first_row + b.n_source_rows > run.first_row]


def _n_groups(blocks: Sequence[Block], n_threads: int, *, short: bool) -> int:
    """Return into how many groups to cut: one, which needs no pool, where threads cost more than they save."""
    size = sum(len(block.tiles) * block.tiles.shape[1] for block in blocks)
    if n_threads == 1 or size < _WORTH_A_THREAD:
        return 1
    return n_threads if short else n_threads * _GROUPS_PER_THREAD


def _groups(blocks: Sequence[Block], n_groups: int) -> list[list[Block]]:
    """Cut the blocks' tiles into about n_groups runs that take a pass about as long."""
    costs = [repeats.cost_of_tiles(block) if n_groups > 1 else 1 for block in blocks]
    total = sum(len(block.tiles) * cost for block, cost in zip(blocks, costs, strict=True))
    share = max(1, -(-total // n_groups))
    groups: list[list[Block]] = [[]]
    room = share
    for block, cost in zip(blocks, costs, strict=True):
        start, n_tiles = 0, len(block.tiles)
        while start < n_tiles:
            is_last = len(groups) == n_groups
            fits = abs((n_tiles - start) * cost - room) <= share // _UNEVEN
            stop = n_tiles if fits or is_last else min(n_tiles, start - -room // cost)
            groups[-1].append(block if stop - start == n_tiles else repeats.cut(block, start, stop))
            room -= (stop - start) * cost
            start = stop
            if not is_last and (room <= 0 or fits):
                groups.append([])
                room = share
    return [group for group in groups if group] or [list(blocks[:1])]
