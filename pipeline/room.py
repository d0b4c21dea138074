"""Whether a job fits into the memory and onto the disks of its workers, and what it does there."""

import logging
from typing import TYPE_CHECKING

from pipeline import scratch
from pipeline.config import Job
from pipeline.estimate import PlanSummary, check_memory, summary_of
from pipeline.source import Plan

if TYPE_CHECKING:
    from kmeans_dask.dask_cluster import Cluster

logger = logging.getLogger(__name__)


def check_room(job: Job, plan: Plan, summary: PlanSummary) -> None:
    """Refuse what does not fit into memory, or on a disk of this machine, where that is known."""
    check_memory(job, plan, summary)
    if summary.on_disk and not (job.dask and job.dask.address):
        # All workers of a local cluster share one directory.
        directory = scratch.directory_of(job.dask.local_directory if job.dask else None)
        scratch.check_here(directory, (summary.disk_bytes or 0) * (summary.workers or 1))


def settled(cluster: "Cluster | None", job: Job, plan: Plan) -> PlanSummary:
    """Return what a job will do on the workers that are there; refuses what does not fit."""
    if cluster is None or not (job.dask and job.dask.address):
        summary = summary_of(job, plan)
    else:
        hosts = cluster.hosts()
        smallest = min((host.memory_limit_bytes for host in hosts if host.memory_limit_bytes), default=None)
        summary = summary_of(job, plan, workers=len(hosts), limit=smallest)
        check_memory(job, plan, summary)
        if summary.on_disk:
            for disk in cluster.disks():
                scratch.check_room(
                    disk.place, len(disk.addresses) * (summary.disk_bytes or 0), disk.free_bytes
                )
    if summary.on_disk:
        logger.info(
            "packed rows, %.0f MiB, go to local disks; %d restarts at a time share each reading",
            summary.packed_bytes / 2**20, summary.restarts_at_once,
        )  # fmt: skip
    return summary
