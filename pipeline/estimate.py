"""A plan -> rows, bytes, blocks and memory, before anything is read."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kmeans_dask.errors import DataError, TooFewSamplesError
from kmeans_dask.gap import reference_runs
from kmeans_dask.restarts import n_init_of
from kmeans_dask.sweep import sample_rows_of
from pipeline.config import INITS, DaskConfig, Job
from pipeline.load import Load, loads_of, row_bytes
from pipeline.source import Plan

_PROCESS_BYTES = 300 * 2**20
_USABLE = 0.9
_USABLE_ELSEWHERE = 0.6  # workers that we did not start spill to disk and pause from there on
_STATE_BYTES = 16  # of a row, for each restart that runs: a label before and after, or a distance and a label
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a job will do; memory is that of one worker, or of this process.

    None: not known before the job connects to its workers, or no worker has a limit.
    distances_per_iteration: of all restarts together, at most: most rows need none. The last three, what scores and
    choosing among several n_clusters add: passes over all rows, rows of the sample, clusterings of as many even ones.
    """

    files: int
    row_groups: int
    rows: int
    features: int
    feature_names: tuple[str, ...]
    read_bytes: int
    packed_bytes: int
    blocks: int
    label_files: int
    workers: int | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    n_clusters: tuple[int, ...]
    restarts: int
    distances_per_iteration: int
    scoring_passes: int = 0
    sample_rows: int = 0
    reference_runs: int = 0


def summary_of(job: Job, plan: Plan, *, workers: int | None = None, limit: int | None = None) -> PlanSummary:
    """Return the summary of a job on `workers` of `limit` bytes each, by default as the job says."""
    known_workers, known_limit = _room(job.dask)
    workers = workers or known_workers
    loads = loads_of(plan, job.dask.block_bytes if job.dask else 64 * 2**20)
    return PlanSummary(
        files=len(plan.files),
        row_groups=len(plan.row_groups),
        rows=plan.n_rows,
        features=len(plan.features),
        feature_names=plan.features,
        read_bytes=plan.n_bytes,
        packed_bytes=plan.n_rows * row_bytes(plan),
        blocks=sum(-(-load.n_rows // load.block_rows) for load in loads),
        label_files=len(plan.parts),
        workers=workers,
        memory_bytes=None if workers is None else _memory(job, plan, loads, workers),
        memory_limit_bytes=limit or known_limit,
        n_clusters=job.kmeans.numbers,
        restarts=_n_init(job) * len(job.kmeans.numbers),
        distances_per_iteration=plan.n_rows * _n_init(job) * sum(job.kmeans.numbers),
        **_scoring(job, plan),
    )


def _n_init(job: Job) -> int:
    """Return the restarts of each number of clusters."""
    return n_init_of(job.kmeans.n_init, job.kmeans.init) if job.kmeans.init in INITS else 1


def _scoring(job: Job, plan: Plan) -> dict[str, int]:
    """Return what scores add, and choosing among several numbers of clusters."""
    keys, scores = job.kmeans, job.scores
    if not keys.is_sweep and scores is None:
        return {}
    n_rows = sample_rows_of(keys.numbers, *([scores.sample_rows] if scores else []))
    return {
        "scoring_passes": 2 * len(keys.numbers),
        "sample_rows": min(plan.n_rows, n_rows),
        "reference_runs": reference_runs(len(keys.numbers)) if keys.is_sweep else 0,
    }


def _room(dask: DaskConfig | None) -> tuple[int | None, int | None]:
    """Return the workers and the memory of each, where the job says them."""
    if dask is None:
        return 1, machine_bytes()
    return (None, None) if dask.address else (dask.workers, dask.memory_limit)


def _memory(job: Job, plan: Plan, loads: Sequence[Load], workers: int) -> int:
    """Return the bytes that one of `workers` needs."""
    dask = job.dask
    packed = plan.n_rows * row_bytes(plan)
    finished = plan.nulls == "mean" or job.prepare.scale == "standard" or job.kmeans.metric == "cosine"
    if dask is None and finished:
        packed *= 2  # before and after the preparation is finished
    n_restarts = _n_init(job) * len(job.kmeans.numbers)
    state = plan.n_rows * _STATE_BYTES * min(n_restarts, os.cpu_count() or 1)
    threads = dask.threads_per_worker if dask else len(os.sched_getaffinity(0))
    largest = max((load.n_rows for load in loads), default=0)
    reading = min(threads, len(loads)) * largest * (row_bytes(plan) + 8 * len(plan.columns))
    return _PROCESS_BYTES + (packed + state) // workers + reading


def machine_bytes(cgroup: Path = _CGROUP) -> int:
    """Return this machine's memory, or the smaller share of it that a container allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def check_rows(job: Job, plan: Plan) -> None:
    """Refuse fewer rows than clusters."""
    n_clusters = job.kmeans.largest
    if plan.n_rows < n_clusters:
        raise TooFewSamplesError(
            f"n_clusters={n_clusters} needs at least {n_clusters} rows; {plan.place} holds "
            f"{plan.n_rows}. Lower kmeans.n_clusters or check source.filter."
        )


def check_memory(job: Job, plan: Plan, summary: PlanSummary) -> None:
    """Refuse more data than memory, where both are known."""
    needed, limit = summary.memory_bytes, summary.memory_limit_bytes
    usable = _USABLE_ELSEWHERE if job.dask and job.dask.address else _USABLE
    if needed is not None and limit is not None and needed > usable * limit:
        raise DataError(
            f"{plan.place}: {summary.rows:,} rows of {summary.features} features need about {_mib(needed)} in "
            f"{'each worker' if job.dask else 'this process'}, more than {usable:.0%} of its {_mib(limit)}. "
            f"{_remedy(job.dask)}, or cluster fewer columns."
        )


def _remedy(dask: DaskConfig | None) -> str:
    if dask is None:
        return "Name a Dask cluster in dask.address"
    if dask.address:
        return (
            "Start more workers or give each more memory, lower dask.block_bytes where row groups are small"
        )
    return "Raise dask.memory_limit or dask.workers, lower dask.block_bytes where row groups are small"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
