"""A plan -> rows, bytes, blocks and memory, before anything is read."""

import os
from dataclasses import dataclass

from kmeans_dask.errors import DataError, TooFewSamplesError
from pipeline.config import Job
from pipeline.load import loads_of, row_bytes
from pipeline.source import Plan

_PROCESS_BYTES = 300 * 2**20
_USABLE = 0.9
_STATE_BYTES = 16  # of a row, for each restart that runs: a label before and after, or a distance and a label


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a job will do; memory is that of one worker, or of this process."""

    files: int
    row_groups: int
    rows: int
    features: int
    feature_names: tuple[str, ...]
    read_bytes: int
    packed_bytes: int
    blocks: int
    label_files: int
    workers: int
    memory_bytes: int
    memory_limit_bytes: int


def summary_of(job: Job, plan: Plan, *, workers: int | None = None, limit: int | None = None) -> PlanSummary:
    """Return the summary of a job on `workers` of `limit` bytes each, by default as the job says."""
    dask = job.dask
    workers = workers or (dask.workers if dask else 1)
    threads = dask.threads_per_worker if dask else len(os.sched_getaffinity(0))
    limit = limit or (dask.memory_limit if dask and dask.address is None else machine_bytes())
    loads = loads_of(plan, dask.block_bytes if dask else 64 * 2**20)
    packed = plan.n_rows * row_bytes(plan)
    state = plan.n_rows * _STATE_BYTES * min(job.kmeans.n_init, os.cpu_count() or 1)
    largest = max((load.n_rows for load in loads), default=0)
    reading = min(threads, len(loads)) * largest * (row_bytes(plan) + 8 * len(plan.columns))
    return PlanSummary(
        files=len(plan.files),
        row_groups=len(plan.row_groups),
        rows=plan.n_rows,
        features=len(plan.features),
        feature_names=plan.features,
        read_bytes=plan.n_bytes,
        packed_bytes=packed,
        blocks=sum(-(-load.n_rows // load.block_rows) for load in loads),
        label_files=len(plan.parts),
        workers=workers,
        memory_bytes=_PROCESS_BYTES + (packed + state) // workers + reading,
        memory_limit_bytes=limit,
    )


def machine_bytes() -> int:
    """Return this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check(job: Job, plan: Plan, summary: PlanSummary, *, least_rows: int | None = None) -> None:
    """Refuse a job that cannot succeed: fewer rows than clusters, or more data than memory."""
    if plan.n_rows < (job.kmeans.n_clusters if least_rows is None else least_rows):
        raise TooFewSamplesError(
            f"n_clusters={job.kmeans.n_clusters} needs at least {job.kmeans.n_clusters} rows; {plan.place} holds "
            f"{plan.n_rows}. Lower kmeans.n_clusters or check source.filter."
        )
    if summary.memory_bytes > _USABLE * summary.memory_limit_bytes:
        where = "each worker" if job.dask else "this process"
        raise DataError(
            f"{plan.place}: {summary.rows:,} rows of {summary.features} features need about "
            f"{_mib(summary.memory_bytes)} in {where}, more than {_USABLE:.0%} of its "
            f"{_mib(summary.memory_limit_bytes)}. Raise dask.memory_limit or dask.workers, lower dask.block_bytes "
            "where row groups are small, or cluster fewer columns."
        )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
