"""The worker's side of the Dask engine: all blocks of one worker behind a few messages.

A shard's blocks are results of ordinary Dask tasks, which Dask counts, frees and can recompute; the shard only
refers to them. Messages are handlers of the worker, as those of Dask's own shuffle are: no actor, whose single thread
would make concurrent restarts queue, and whose worker could not be retired.
"""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from distributed import Worker, WorkerPlugin
from distributed.protocol.pickle import dumps, loads

from kmeans_dask.blocks import Run
from kmeans_dask.dask_messages import Absent, Question, ShardGone, answers, opened
from kmeans_dask.dask_pace import SMALL_BYTES, Pace
from kmeans_dask.disk_blocks import DiskBlocks, engine_here
from kmeans_dask.local_blocks import Call, LocalBlocks, Outcome, outcome_of, value_of
from kmeans_dask.spool import is_absent

PLUGIN = "kmeans-dask-shards"
_CALLERS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """The blocks held under some keys, and how long questions to them took."""

    keys: tuple[str, ...]
    blocks: LocalBlocks | DiskBlocks
    pace: Pace = field(default_factory=Pace)

    def quick(self, calls: Sequence[bytes]) -> list[Call] | None:
        """Return these calls, if they need no thread."""
        may_be = isinstance(self.blocks, LocalBlocks) and self.blocks.are_short
        if not may_be or sum(map(len, calls)) > SMALL_BYTES or not self.pace.has_quick:
            return None
        read = outcome_of(lambda: [Call(*loads(call)) for call in calls])
        return read[1] if read[0] and self.pace.is_quick(read[1]) else None


class Shards(WorkerPlugin):
    """Answers messages about shards; each answer is a pickled (ok, value or error)."""

    name = PLUGIN
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Attach the handlers to the worker."""
        self.worker = worker
        self.shards: dict[str, Shard] = {}
        self.callers = ThreadPoolExecutor(_CALLERS, thread_name_prefix="shard-call")
        self.writers = asyncio.Semaphore(worker.state.nthreads)
        for name in ("open", "map", "pieces", "runs", "drop", "ping", "disk"):
            worker.handlers[f"kmeans_{name}"] = getattr(self, name)

    def teardown(self, worker: Worker) -> None:
        """Let go of every shard."""
        for shard in list(self.shards):
            self._drop(shard)
        self.callers.shutdown(wait=False, cancel_futures=True)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Drop a shard as soon as Dask frees one of its blocks: its client has left or has moved it."""
        if start == "memory" and finish in ("released", "forgotten", "cancelled"):
            for shard in [shard for shard, held in list(self.shards.items()) if key in held.keys]:
                self._drop(shard)

    async def ping(self) -> bytes:
        """Show that the worker answers."""
        return b""

    async def disk(self) -> bytes:
        """Return where the worker's scratch files go, the machine and device, and how many bytes are free there."""
        directory = self.worker.local_directory

        def looked_at() -> tuple[str, tuple[str, int], int]:
            device = (socket.gethostname(), os.stat(directory).st_dev)
            return directory, device, shutil.disk_usage(directory).free

        return bytes(dumps(outcome_of(looked_at)))

    async def open(self, shard: str, keys: tuple[str, ...]) -> bytes:
        """Make a shard of the blocks held under these keys, unless it is there; return how many blocks it has."""

        def make() -> int:
            held = self.shards.get(shard)
            if held is not None and held.keys == tuple(keys):
                return held.blocks.n_blocks
            self._drop(shard)
            missing = [key for key in keys if key not in self.worker.data]
            if missing:
                raise ShardGone(shard)
            held_loads: list[Any] = [self.worker.data[key] for key in keys]
            absent = [key for key, load in zip(keys, held_loads, strict=True) if any(map(is_absent, load))]
            if absent:
                raise Absent(tuple(absent))
            blocks = [block for load in held_loads for block in load]
            self.shards[shard] = Shard(tuple(keys), engine_here(blocks, self.worker.state.nthreads))
            return len(blocks)

        return await self._answer(shard, make)

    async def map(self, shard: str, calls: list[bytes], peers: tuple[str, ...] = ()) -> bytes:
        """Return what becomes of each call, fn of the shard's blocks combined, all made in one pass.

        With peers their answers are combined with this worker's own, so that whoever asks hears one of them all.
        """

        held = self.shards.get(shard)
        quick = held.quick(calls) if held is not None and not peers else None

        def made() -> list[Outcome]:
            blocks, began = self._blocks(shard), time.perf_counter()
            read = quick or [Call(*loads(call)) for call in calls]
            outcomes = blocks.map_all(read)
            if held is not None:
                held.pace.note(read, time.perf_counter() - began)
            if not all(ok for ok, _ in outcomes) and self._blocks(shard) is not blocks:
                raise ShardGone(shard)
            return [(ok, value if ok else _portable(value)) for ok, value in outcomes]

        if not peers:
            return await self._answer(shard, made, here=quick is not None)
        asked = [Question(self.worker.rpc, a, "kmeans_map", {"shard": shard, "calls": calls}) for a in peers]
        theirs = asyncio.ensure_future(answers(asked))
        mine = await self._answer(shard, made)
        try:
            others: list[list[Outcome]] = await theirs
        except Exception as error:  # handed to the client, which raises it
            return bytes(dumps((False, error)))
        return await self._answer(shard, lambda: _combined(calls, [opened(mine), *others]))

    async def pieces(self, shard: str, call: bytes, run: bytes) -> bytes:
        """Return what `pieces` gives for the shard's blocks that hold rows of a run."""
        return await self._answer(shard, lambda: self._pieces(shard, call, loads(run)))

    async def runs(self, shard: str, call: bytes, run: bytes, peers: tuple[str, ...]) -> bytes:
        """Write one run from this shard's pieces and those of its peers; a peer that is lost is named to the caller."""
        message = {"shard": shard, "call": call, "run": run}
        async with self.writers:
            try:
                theirs = await answers(
                    [Question(self.worker.rpc, a, "kmeans_pieces", message) for a in peers]
                )
            except Exception as error:  # handed to the client, which raises it
                return bytes(dumps((False, error)))

            def write() -> Any:
                _, write_run, args = loads(call)
                pieces = self._pieces(shard, call, loads(run))
                for some in theirs:
                    pieces += some
                return write_run(loads(run), [piece for _, piece in sorted(pieces, key=_by_row)], *args)

            return await self._answer(shard, write)

    async def drop(self, shard: str) -> bytes:
        """Drop a shard."""
        self._drop(shard)
        return b""

    def _pieces(self, shard: str, call: bytes, run: Run) -> list[tuple[int, Any]]:
        pieces_of, _, args = loads(call)
        return self._blocks(shard).pieces(run, pieces_of, args)

    def _blocks(self, shard: str) -> LocalBlocks | DiskBlocks:
        if shard not in self.shards:
            raise ShardGone(shard)
        return self.shards[shard].blocks

    def _drop(self, shard: str) -> None:
        held = self.shards.pop(shard, None)
        if held is not None:
            held.blocks.close(wait=False)  # on the event loop, which must not wait for a pass to end

    async def _answer(self, shard: str, fn: Callable[[], Any], *, here: bool = False) -> bytes:
        """Run fn on a thread, or here, and pickle what it returns or raises: Dask would log a user's every error."""
        held = self.shards.get(shard)

        def guarded() -> bytes:
            try:
                return bytes(dumps((True, fn())))
            except Exception as error:  # handed to the client, which raises it
                # A shard that is dropped while it works fails in any way.
                is_gone = held is not None and self.shards.get(shard) is not held
                return bytes(dumps((False, ShardGone(shard) if is_gone else error)))

        if here:
            return guarded()
        try:
            return await asyncio.get_running_loop().run_in_executor(self.callers, guarded)
        except RuntimeError:  # the worker is closing, and its threads have ended
            return bytes(dumps((False, ShardGone(shard))))


def _combined(calls: Sequence[bytes], workers: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Return what becomes of each call, of what became of it on each worker; an error goes before all values."""

    def one(call: bytes, outcomes: Sequence[Outcome]) -> Outcome:
        combine = Call(*loads(call)).combine
        return outcome_of(lambda: reduce(combine, map(value_of, outcomes)))

    return [one(call, outcomes) for call, outcomes in zip(calls, zip(*workers, strict=True), strict=True)]


def _portable(error: Exception) -> Exception:
    """Return an error that arrives: one that cannot be pickled must not take the others' answers along."""
    try:
        loads(dumps(error))
    except Exception:
        return RuntimeError(repr(error))
    return error


def _by_row(piece: tuple[int, Any]) -> int:
    return piece[0]
