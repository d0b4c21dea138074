"""A job and a runner -> a committed run: the sequence of steps, written once."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kmeans_dask.api import check_start, motion_of, start_centroids, warn_of_empty
from kmeans_dask.blocks import Blocks
from kmeans_dask.lloyd import Fit
from kmeans_dask.model import Model, model_of, to_bytes
from kmeans_dask.packing import Preparation, Wishes
from kmeans_dask.restarts import Restarts, Settings, best, fit_of, restarts_of
from kmeans_dask.seeding import METHODS
from kmeans_dask.sweep import Sweep, sample_rows_of, swept
from pipeline import scratch
from pipeline.config import DaskConfig, Job, resolved
from pipeline.estimate import PlanSummary, check_rows, summary_of
from pipeline.labels import Naming, write_labels
from pipeline.layout import block_bytes_of
from pipeline.load import load_here, load_on
from pipeline.read_ahead import Source
from pipeline.room import check_room, settled
from pipeline.runner import PlainRunner, Runner
from pipeline.scoring import check_groups, groups_of, score, with_scores, with_sweep
from pipeline.sink import (
    CentroidTable,
    PartRecord,
    RestartRow,
    Run,
    RunRecord,
    SourceRecord,
    commit,
    discard,
    new_run_id,
    open_run,
    probe,
)
from pipeline.source import Plan, scan
from pipeline.storage import Store, no_empty_directories, open_store

if TYPE_CHECKING:
    from kmeans_dask.dask_cluster import Cluster

logger = logging.getLogger(__name__)


def plan_job(job: Job) -> PlanSummary:
    """Return what a job would do, from the footers of its files alone."""
    return summary_of(job, scan(job.source, job.kmeans.dtype))


def run_job(
    job: Job, runner: Runner | None = None, *, run_id: str | None = None, source: Source | None = None
) -> Run:
    """Return the committed run of a job; whatever fails leaves the output as it was.

    source: the job's, begun before.

    Raises KMeansError: exit_code 2 for bad input or configuration, 3 where a retry may help.
    """
    runner, run_id = runner or PlainRunner(), run_id or new_run_id()
    store = open_store(job.output.path, job.output.storage)
    with no_empty_directories(store):
        return _committed(job, source or Source(job), runner, run_id, store)


def _committed(job: Job, source: Source, runner: Runner, run_id: str, store: Store) -> Run:
    """The steps of a job, in their order."""
    conditional_put = runner.step("check-output", probe, store)
    plan = runner.step("plan", source.plan)
    check_rows(job, plan)
    check_groups(job, plan)
    check_room(job, plan, summary_of(job, plan))
    start = start_of(job, plan.features)
    logger.info("%d rows of %d features: %s", plan.n_rows, len(plan.features), ", ".join(plan.features))
    with discarding(store, run_id), engine(job.dask) as cluster:
        wishes = Wishes(plan.features, plan.dtype, plan.nulls, job.prepare.scale, job.kmeans.metric)
        summary = settled(cluster, job, plan)
        blocks, preparation = runner.step("load", load, cluster, job, source, plan, wishes, summary)
        with closing(blocks):
            settings = settings_of(job, start, preparation)
            restarts = partial(runner.restarts, at_once=summary.restarts_at_once)
            found = found_in(blocks, settings, job, restarts, runner)
            warn_of_empty(found.winner, job.kmeans.frozen_centroids)
            model = model_of(found.winner, preparation, start if isinstance(start, str) else "model")
            scored = score(blocks, model, job, runner, found.sweep)
            naming = Naming(store, run_id, model.centroids, model.cluster_ids, groups_of(job))
            written = runner.step("write-labels", write_labels, blocks, plan, naming)
        record = run_record(
            job_document=resolved(job), run_id=run_id, conditional_put=conditional_put, plan=plan, parts=written.parts,
            model=model, fits=found.fits, workers_lost=cluster.losses.workers if cluster else 0,
        )  # fmt: skip
        record = with_scores(with_sweep(record, found.sweep), scored, model, written)
        return runner.step("commit", commit, store, record)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Every restart, the one to commit, and the sweep that chose among several numbers of clusters."""

    fits: Sequence[Fit]
    winner: Fit
    sweep: Sweep | None = None


def found_in(blocks: Blocks, settings: Settings, job: Job, restarts: Restarts, runner: Runner) -> Found:
    """Return what the restarts of one number of clusters found, or of several."""
    if not job.kmeans.is_sweep:
        fits = restarts(fit_of(blocks, settings), restarts_of(settings))
        return Found(fits, best(fits))
    n_rows = sample_rows_of(job.kmeans.numbers, *([job.scores.sample_rows] if job.scores else []))
    sweep = swept(blocks, settings, job.kmeans.numbers, restarts, runner.step, n_rows)
    logger.info("%s", sweep.choice.why)
    return Found(sweep.fits, sweep.winner, sweep)


@contextmanager
def engine(dask: DaskConfig | None) -> "Iterator[Cluster | None]":
    """Give the workers of a Dask section; None without one: this process."""
    if dask is None:
        yield None
    else:
        from pipeline.cluster import connected  # a third of a second that a job in this process does not need

        with connected(dask) as cluster:
            yield cluster


@contextmanager
def discarding(store: Store, run_id: str) -> Iterator[None]:
    """Remove what a run wrote when the body fails before its commit."""
    try:
        yield
    except BaseException:
        try:
            discard(store, run_id)
        except Exception as error:
            logger.warning("could not remove what run %s wrote to %s: %s", run_id, store.uri, error)
        raise


def load(
    cluster: "Cluster | None",
    job: Job,
    source: Source,
    plan: Plan,
    wishes: Wishes | Preparation,
    summary: PlanSummary,
) -> tuple[Blocks, Preparation]:
    """Return the plan's rows as blocks of the engine, prepared."""
    on_disk = summary.on_disk
    block_bytes, load_bytes = block_bytes_of(job, on_disk), block_bytes_of(job, False)
    if cluster is not None:
        return load_on(cluster, plan, block_bytes, wishes, load_bytes=load_bytes, on_disk=on_disk)
    directory = scratch.directory_of(None) if on_disk else None
    n_threads = len(os.sched_getaffinity(0))
    return load_here(
        plan, block_bytes, wishes, n_threads, load_bytes=load_bytes, scratch=directory, read=source.rows
    )


def start_of(job: Job, features: Sequence[str]) -> str | Model:
    """Return the start's method, or the stored model that `init` names; one that does not fit is refused unread."""
    keys = job.kmeans
    if keys.init in METHODS:
        return keys.init
    model = open_run(keys.init, job.output.storage).model
    check_start(model, features, keys.largest)
    return model


def settings_of(job: Job, start: str | Model, preparation: Preparation) -> Settings:
    """Return the restarts' settings; a model becomes its centroids in the job's prepared space."""
    keys = job.kmeans
    init = start if isinstance(start, str) else start_centroids(start, preparation, keys.largest)
    motion = motion_of(keys.metric, keys.frozen_centroids, init, keys.largest)
    return Settings(
        keys.largest, init, keys.n_init, keys.max_iter, keys.tol, keys.max_seconds, keys.seed, motion, keys.refines
    )  # fmt: skip


def run_record(
    *, job_document: dict[str, Any], run_id: str, conditional_put: bool, plan: Plan, parts: tuple[PartRecord, ...],
    model: Model, fits: Sequence[Fit], workers_lost: int,
) -> RunRecord:  # fmt: skip
    """Return what a commit writes beside the parts."""
    return RunRecord(
        run_id=run_id,
        conditional_put=conditional_put,
        job=job_document,
        sources=tuple(SourceRecord(file.uri, file.size, file.tag, file.n_rows) for file in plan.files),
        parts=parts,
        centroids=CentroidTable(
            model.feature_names, model.cluster_ids, model.sizes, model.centroids_in_units()
        ),
        model_files=to_bytes(model),
        restarts=tuple(
            RestartRow(
                len(fit.sizes),
                p.restart,
                p.seed,
                p.iteration,
                p.inertia,
                p.distortion,
                p.changed,
                p.seconds,
            )
            for fit in fits
            for p in fit.history
        ),
        result=result_of(model, parts),
        workers_lost=workers_lost,
    )


def result_of(model: Model, parts: Sequence[PartRecord]) -> dict[str, Any]:
    """Return the result as the manifest tells it."""
    return {
        "n_clusters": model.n_clusters,
        "n_features": len(model.feature_names),
        "rows": sum(part.rows for part in parts),
        "rows_clustered": int(np.sum(model.sizes)),
        "inertia": model.inertia,
        "distortion": model.distortion,
        "n_iter": model.n_iter,
        "breaths": model.breaths,
        "stop": model.stop,
        "restart": model.restart,
        "seed": model.seed,
        "sizes": model.sizes.tolist(),
    }
