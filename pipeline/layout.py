"""Where packed blocks lie, in memory or on disk, and how many restarts run at once beside them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from kmeans_dask.disk_blocks import GROUP_BYTES, READ_AHEAD
from kmeans_dask.ordering import worth_ordering
from kmeans_dask.packing import HEAD_ROWS
from kmeans_dask.restarts import n_init_of
from kmeans_dask.tiles import TILE
from pipeline import processes
from pipeline.config import INITS, Job
from pipeline.loads import HERE_BYTES, Load, loads_of, row_bytes
from pipeline.source import Plan

_PROCESS_BYTES = 300 * 10**6  # beside its rows, with numba and Arrow at work
# The same of a copy of a process that has imported all. Should the fork server fail to start, workers start afresh and
# take more than the plan says.
_COPY_BYTES = 200 * 10**6
_USABLE = 0.9
_USABLE_ELSEWHERE = 0.6  # workers that we did not start spill to disk and pause from there on
# Of a row, for each restart that runs: a label and a slack, in a search also those of where a breath starts from;
# while it is seeded, a squared distance and a label.
_STATE_BYTES, _SEEDING_BYTES = 8.1, 12
_WRITTEN_BYTES = 8  # of a row, once labels are written: a label and a distance
_WRITING_BYTES = 80  # of a row in a part that is being written: its pieces, joined, encoded
_OFFSET_BYTES = 4
_RESTARTS_ON_DISK = 16  # at most at once: each pass over the disk serves them all
_RESTARTS_ON_WORKERS = 8  # at least, where they fit: what they ask at one moment is one message and one pass


@dataclass(frozen=True, slots=True)
class Layout:
    """How a job uses its machines; bytes are those of one worker, or of this process."""

    on_disk: bool
    restarts_at_once: int
    memory_bytes: int
    disk_bytes: int


def usable_of(job: Job) -> float:
    """Return the share of a worker's memory that a job may use."""
    return _USABLE_ELSEWHERE if job.dask and job.dask.address else _USABLE


def block_bytes_of(job: Job, on_disk: bool) -> int:
    """Return the most bytes of a block."""
    wished = job.dask.block_bytes if job.dask else HERE_BYTES
    return min(wished, GROUP_BYTES) if on_disk else wished


def layout_of(job: Job, plan: Plan, workers: int, limit: int | None) -> Layout:
    """Return the first that fits of blocks in memory and blocks on disk, with as many restarts as fit beside them.

    `prepare.blocks` may leave one of them. Where nothing fits, the one that needs least, with one restart at a time.
    """
    wished = {"auto": (False, True), "memory": (False,), "disk": (True,)}[job.prepare.blocks]
    room = None if limit is None else int(usable_of(job) * limit)
    found = [_layout(job, plan, workers, room, on_disk=on_disk) for on_disk in wished]
    fitting = [layout for layout in found if room is None or layout.memory_bytes <= room]
    return fitting[0] if fitting else min(found, key=lambda layout: layout.memory_bytes)


def _layout(job: Job, plan: Plan, workers: int, room: int | None, *, on_disk: bool) -> Layout:
    loads = loads_of(plan, block_bytes_of(job, False), block_bytes_of(job, on_disk))
    packed = -(-plan.n_rows * row_bytes(plan) // workers)
    fixed = _process_bytes(job) + int(plan.n_rows * _beside_tiles(plan)) // workers
    if on_disk:
        fixed += _buffers(job, loads, packed) + 8 * (plan.weight is not None) * plan.n_rows // workers
        largest = max((load.n_rows for load in loads), default=0) * row_bytes(plan)
        disk = packed + (_threads(job) * largest if _is_finished(job, plan) else 0)
    else:
        # In process rows are held before and after the preparation is finished.
        fixed += packed * (2 if job.dask is None and _is_finished(job, plan) else 1)
        disk = 0
    state = int(plan.n_rows * _state_bytes(job)) // workers
    at_once = _at_once(job, on_disk=on_disk)
    if room is not None and state:
        at_once = max(1, min(at_once, (room - fixed) // state))
    # One after the other: rows are read, clustered, written.
    phases = (_reading(job, plan, loads), at_once * state, _writing(job, plan, workers))
    return Layout(on_disk, at_once, fixed + max(phases), disk)


def _process_bytes(job: Job) -> int:
    """Return the bytes of a process beside its rows."""
    copied = job.dask is not None and not job.dask.address and processes.COPIES_WORKERS
    return _COPY_BYTES if copied else _PROCESS_BYTES


def _state_bytes(job: Job) -> float:
    running = _STATE_BYTES * (2 if job.kmeans.refines else 1)
    return max(running, _SEEDING_BYTES if job.kmeans.init in ("k-means||", "k-means++") else 0)


def _at_once(job: Job, *, on_disk: bool) -> int:
    """Return how many restarts may run at once: in memory of this process more than there are cores only share them."""
    n_restarts = n_init(job) * len(job.kmeans.numbers)
    if on_disk:
        return min(n_restarts, _RESTARTS_ON_DISK)
    # Of those that share a limit of time each would only get less far.
    merged = _RESTARTS_ON_WORKERS if job.dask and job.kmeans.max_seconds is None else 1
    return min(n_restarts, max(os.cpu_count() or 1, merged))


def n_init(job: Job) -> int:
    """Return the restarts of each number of clusters."""
    keys = job.kmeans
    return n_init_of(keys.n_init, keys.init, keys.refines) if keys.init in INITS else 1


def _is_finished(job: Job, plan: Plan) -> bool:
    """Whether packed rows are changed once all are known."""
    return plan.nulls == "mean" or job.prepare.scale == "standard" or job.kmeans.metric == "cosine"


def _threads(job: Job) -> int:
    return job.dask.threads_per_worker if job.dask else len(os.sched_getaffinity(0))


def _reading(job: Job, plan: Plan, loads: Sequence[Load]) -> int:
    """Return the bytes of the loads that hold the first rows, and of those read beside them: columns and packed."""
    largest = max((load.n_rows for load in loads), default=0)
    others = min(_threads(job), len(loads)) - 1
    rows = min(plan.n_rows, HEAD_ROWS + largest) + max(others, 0) * largest
    return rows * (row_bytes(plan) + 8 * len(plan.columns))


def _writing(job: Job, plan: Plan, workers: int) -> int:
    """Return the bytes of labels, and of the parts that are written at once."""
    part = max((part.n_rows for part in plan.parts), default=0)
    return (
        plan.n_rows * _WRITTEN_BYTES // workers + min(_threads(job), len(plan.parts)) * part * _WRITING_BYTES
    )


def _beside_tiles(plan: Plan) -> float:
    """Return the bytes of what lies in memory for each row beside its tile: row ids, and balls and sums of tiles."""
    n_features = len(plan.features)
    chosen = plan.filter is not None or plan.nulls == "drop"
    is_ordered = worth_ordering(plan.n_rows, n_features)
    ids = _OFFSET_BYTES * (chosen + (chosen or is_ordered))
    return ids + (3 * n_features + 3) * 8 / TILE


def _buffers(job: Job, loads: Sequence[Load], packed: int) -> int:
    largest = max([GROUP_BYTES, *(load.block_bytes for load in loads)])
    return (_threads(job) + READ_AHEAD) * min(largest, packed)
