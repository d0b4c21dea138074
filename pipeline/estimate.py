"""A plan -> rows, bytes, blocks and memory, before anything is read."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kmeans_dask.errors import DataError, TooFewSamplesError
from kmeans_dask.gap import reference_runs
from kmeans_dask.sweep import sample_rows_of
from pipeline.config import DaskConfig, Job
from pipeline.layout import block_bytes_of, layout_of, n_init, usable_of
from pipeline.loads import loads_of, row_bytes
from pipeline.source import Plan

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a job will do; memory and disk are those of one worker, or of this process.

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
    blocks_in: Literal["memory", "disk"] | None
    disk_bytes: int | None
    restarts_at_once: int | None
    scoring_passes: int = 0
    sample_rows: int = 0
    reference_runs: int = 0

    @property
    def on_disk(self) -> bool:
        """Whether packed blocks lie on disk."""
        return self.blocks_in == "disk"


def summary_of(job: Job, plan: Plan, *, workers: int | None = None, limit: int | None = None) -> PlanSummary:
    """Return the summary of a job on `workers` of `limit` bytes each, by default as the job says."""
    known_workers, known_limit = _room(job.dask)
    workers, limit = workers or known_workers, limit or known_limit
    layout = None if workers is None else layout_of(job, plan, workers, limit)
    on_disk = layout.on_disk if layout else job.prepare.blocks == "disk"
    loads = loads_of(plan, block_bytes_of(job, False), block_bytes_of(job, on_disk))
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
        memory_bytes=layout.memory_bytes if layout else None,
        memory_limit_bytes=limit,
        n_clusters=job.kmeans.numbers,
        restarts=n_init(job) * len(job.kmeans.numbers),
        distances_per_iteration=plan.n_rows * n_init(job) * sum(job.kmeans.numbers),
        blocks_in=("disk" if layout.on_disk else "memory") if layout else None,
        disk_bytes=layout.disk_bytes if layout else None,
        restarts_at_once=layout.restarts_at_once if layout else None,
        **_scoring(job, plan),
    )


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
    """Refuse what does not fit into memory, where both are known."""
    needed, limit = summary.memory_bytes, summary.memory_limit_bytes
    usable = usable_of(job)
    if needed is not None and limit is not None and needed > usable * limit:
        raise DataError(
            f"{plan.place}: {summary.rows:,} rows of {summary.features} features need about {_mib(needed)} in "
            f"{'each worker' if job.dask else 'this process'}{_where(summary)}, more than {usable:.0%} of its "
            f"{_mib(limit)}. {_remedy(job)}, or cluster fewer columns."
        )


def _where(summary: PlanSummary) -> str:
    return " beside blocks on disk" if summary.on_disk else ""


def _remedy(job: Job) -> str:
    disk = ', set prepare.blocks = "auto"' if job.prepare.blocks == "memory" else ""
    if job.dask is None:
        return f"Name a Dask cluster in dask.address{disk}"
    small = f"lower dask.block_bytes where row groups are small{disk}"
    if job.dask.address:
        return f"Start more workers or give each more memory, {small}"
    return f"Raise dask.memory_limit or dask.workers, {small}"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
