"""Loads on workers: submitted, placed, opened as shards, and made again after a loss.

A load is the unit of reading and placing: a task whose result is a list of blocks. Its worker is prescribed, since Dask
by itself recomputes all that a dead worker held on whoever is left, and never spreads it again.
"""

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Future, get_worker

from kmeans_dask.blocks import Block
from kmeans_dask.dask_cluster import Cluster, Ready
from kmeans_dask.dask_messages import COMM_ERRORS, Absent, Lost, Question, ShardGone, answers
from kmeans_dask.placement import Host, place
from kmeans_dask.spool import is_absent, is_spooled, respooled, spooled

logger = logging.getLogger(__name__)

_DROP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one load's blocks: fn(*args), then each change in turn on every block.

    on_disk: they lie on the disk of the worker that makes them, and are made again where they are needed elsewhere.
    source: a delayed Dask value that fn takes before args, if any; not for blocks on disk.
    """

    fn: Callable[..., Iterable[Block]]
    args: tuple[Any, ...]
    first_row: int
    n_source_rows: int
    n_bytes: int
    changes: tuple[tuple[Callable[..., Block], tuple[Any, ...]], ...] = ()
    on_disk: bool = False
    source: Any = None


def made(recipe: Recipe, *source: Any) -> list[Block]:
    """Return the blocks of a recipe; those for the disk are written one by one. source: its value, if it has one."""
    blocks = recipe.fn(*source, *recipe.args)
    for fn, args in recipe.changes:
        blocks = _each(blocks, fn, args)
    return spooled(blocks, get_worker().local_directory) if recipe.on_disk else list(blocks)


def changed(blocks: list[Block], recipe: Recipe) -> list[Block]:
    """Return the blocks of a recipe from those before its last change."""
    fn, args = recipe.changes[-1]
    if any(map(is_absent, blocks)):
        return made(recipe)
    return respooled(blocks, fn, args) if is_spooled(blocks[0]) else list(_each(blocks, fn, args))


def _each(blocks: Iterable[Block], fn: Callable[..., Block], args: tuple[Any, ...]) -> Iterable[Block]:
    return (fn(block, *args) for block in blocks)


def moved(blocks: list[Block]) -> list[Block]:
    """Return the blocks; Dask brings them to the worker that runs this."""
    return blocks


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the loads are, in one generation; is_open: all of them, in memory, and opened as shards.

    moving: the worker that a load comes from, for those on their way to another.
    """

    generation: int
    futures: dict[int, Future[Any]]
    where: dict[int, str]
    moving: dict[int, str] = field(default_factory=dict)
    n_blocks: int = 0
    is_open: bool = False

    @property
    def addresses(self) -> list[str]:
        """The workers that hold loads."""
        return sorted(set(self.where.values()))


def place_all(
    n_bytes: list[int], held: Mapping[int, str], hosts: list[Host], *, on_disk: bool, lost: bool = False
) -> dict[int, str]:
    """Return each load's address as `place` does. lost: whether workers were."""
    if on_disk:
        hosts = [replace(host, memory_limit_bytes=0) for host in hosts]
    # From disk to disk a load moves by being read again, which only a loss is worth.
    return place(n_bytes, held, hosts, may_move=not on_disk or lost)


class Loads:
    """The loads of one data set; threads may share it."""

    def __init__(self, cluster: Cluster, recipes: Sequence[Recipe], ready: Ready) -> None:
        self.cluster = cluster
        self.recipes = list(recipes)
        self.shard = f"kmeans-{uuid.uuid4().hex[:12]}"
        self._lock = threading.RLock()
        self._placed = Placed(0, ready.futures, ready.where)

    def current(self) -> Placed:
        """Return the loads placed and open, after doing whatever is missing."""
        with self._lock:
            while not self._placed.is_open:
                try:
                    self._place()
                    self.cluster.wait(self._placed.futures, self._placed.where, self._placed.moving.values())
                    self._open()
                except Lost as lost:
                    self.lose(lost, self._placed.generation)
                except ShardGone:
                    self.find(self._placed.generation)
                except Absent as absent:
                    self._forget(set(absent.keys))
            return self._placed

    def lose(self, lost: Lost, generation: int) -> None:
        """Count lost workers and let go of their loads, once for all threads that saw it."""
        with self._lock:
            if generation != self._placed.generation:
                return
            self.cluster.lose(lost)
            self.find(generation)

    def find(self, generation: int) -> None:
        """Look up where each load is now, and forget those that are nowhere."""
        with self._lock:
            if generation != self._placed.generation:
                return
            alive = {host.address for host in self.cluster.hosts()}
            placed = self._placed
            where = self.cluster.holders({i: f for i, f in placed.futures.items() if f.status == "finished"})
            for i, future in placed.futures.items():
                needs = {placed.where[i], placed.moving.get(i, placed.where[i])}
                if future.status == "pending" and needs <= alive:
                    where[i] = placed.where[i]
            futures = {i: placed.futures[i] for i in where}
            self._placed = Placed(generation + 1, futures, where, placed.moving)

    def _forget(self, keys: set[str]) -> None:
        """Let go of loads whose rows stayed behind when Dask moved them: they are made again."""
        placed = self._placed
        kept = {i: future for i, future in placed.futures.items() if str(future.key) not in keys}
        where = {i: placed.where[i] for i in kept}
        self._placed = Placed(placed.generation + 1, kept, where, placed.moving)

    def changed(self, fn: Callable[..., Block], args: tuple[Any, ...]) -> "Loads":
        """Return the loads with fn(block, *args) for every block, where they are; this object ends."""
        placed = self.current()
        self._close_shards(placed.addresses)
        recipes = [replace(recipe, changes=(*recipe.changes, (fn, args))) for recipe in self.recipes]
        new = Loads(self.cluster, recipes, Ready())
        futures = {}
        for i, address in placed.where.items():
            # Popped one by one, so that Dask frees each old load as soon as its new one is made.
            futures[i] = self.cluster.submitted(
                f"changed-{i}", address, changed, placed.futures.pop(i), replace(recipes[i], source=None)
            )
        new._placed = Placed(0, futures, dict(placed.where))
        return new

    def close(self) -> None:
        """Free the blocks on the workers."""
        with self._lock:
            self._close_shards(self._placed.addresses)
            self._placed = Placed(self._placed.generation + 1, {}, {})

    def _place(self) -> None:
        hosts = self.cluster.awaited_hosts()
        self.cluster.check()
        alive = {host.address for host in hosts}
        placed = self._placed
        on_disk = any(recipe.on_disk for recipe in self.recipes)
        n_bytes = [recipe.n_bytes for recipe in self.recipes]
        where = place_all(n_bytes, placed.where, hosts, on_disk=on_disk, lost=placed.generation > 0)
        futures: dict[int, Future[Any]] = {}
        moving: dict[int, str] = {}
        sources = self._sources(i for i in where if placed.where.get(i) not in alive)
        for i, address in where.items():
            source = placed.where.get(i)
            if source == address:
                futures[i] = placed.futures[i]
                moving |= {i: placed.moving[i]} if i in placed.moving else {}
            elif source in alive and not self.recipes[i].on_disk:
                futures[i] = self.cluster.submitted(f"moved-{i}", address, moved, placed.futures[i])
                moving[i] = placed.where[i]
            else:
                self.cluster.losses.repeated_loads += placed.generation > 0
                recipe = replace(self.recipes[i], source=None)
                # Packed before further sources are made, so that few of them are held at a time.
                futures[i] = self.cluster.submitted(
                    f"load-{i}", address, made, recipe, *sources.get(i, ()), priority=1
                )
        self._placed = Placed(placed.generation, futures, where, moving)
        self.cluster.rely_on(where.values())

    def _sources(self, loads: Iterable[int]) -> dict[int, tuple[Future[Any]]]:
        """Return the sources that loads need, in the making."""
        needed = [i for i in loads if self.recipes[i].source is not None]
        futures = self.cluster.computed([self.recipes[i].source for i in needed])
        return {i: (future,) for i, future in zip(needed, futures, strict=True)}

    def _open(self) -> None:
        keys: dict[str, list[str]] = {}
        for i in sorted(self._placed.where):
            keys.setdefault(self._placed.where[i], []).append(str(self._placed.futures[i].key))
        questions = [
            Question(
                self.cluster.client.rpc, address, "kmeans_open", {"shard": self.shard, "keys": tuple(held)}
            )
            for address, held in keys.items()
        ]
        n_blocks = sum(self.cluster.client.sync(answers, questions))
        self._placed = replace(self._placed, moving={}, n_blocks=n_blocks, is_open=True)

    def _close_shards(self, addresses: list[str]) -> None:
        async def close() -> None:
            calls = [self.cluster.client.rpc(address).kmeans_drop(shard=self.shard) for address in addresses]
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), _DROP_SECONDS)

        try:
            self.cluster.client.sync(close)
        except COMM_ERRORS:
            logger.warning("a worker does not answer; its blocks are freed when it goes")
