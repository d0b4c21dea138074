"""A stored model and new rows -> a committed run of labels, in the layout of a fit."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from kmeans_dask.errors import DataError, ModelError
from kmeans_dask.lloyd import evaluated
from kmeans_dask.model import to_bytes
from pipeline.config import Job, job_from_sections, resolved
from pipeline.estimate import summary_of
from pipeline.job import discarding, engine, load, run_record
from pipeline.labels import Naming, write_labels
from pipeline.read_ahead import Source
from pipeline.room import check_room, settled
from pipeline.runner import PlainRunner, Runner
from pipeline.scoring import check_groups, groups_of, score, with_scores
from pipeline.sink import Run, commit, new_run_id, open_run, probe
from pipeline.storage import Store, no_empty_directories, open_store


def predict(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    runner: Runner | None = None,
    run_id: str | None = None,
) -> Run:
    """Label the rows of a source with a stored model, commit them to an output, and return that run.

    model: an output or a run in it. Ids, weight, filter, nulls, storage and engine are those of the job that made it.
    """
    runner, run_id = runner or PlainRunner(), run_id or new_run_id()
    fitted = open_run(model)
    job = job_for(fitted, source, output)
    store = open_store(job.output.path, job.output.storage)
    with no_empty_directories(store):
        return _committed(job, fitted, runner, run_id, store)


def _committed(job: Job, fitted: Run, runner: Runner, run_id: str, store: Store) -> Run:
    """The steps of a prediction, in their order."""
    conditional_put = runner.step("check-output", probe, store)
    source = Source(job)
    plan = runner.step("plan", source.plan)
    check_groups(job, plan)
    check_room(job, plan, summary_of(job, plan))
    found = fitted.model
    with discarding(store, run_id), engine(job.dask) as cluster:
        summary = settled(cluster, job, plan)
        blocks, _ = runner.step("load", load, cluster, job, source, plan, found.preparation, summary)
        with closing(blocks):
            value = runner.step("score", evaluated, blocks, found.centroids)
            scored = score(blocks, found, job, runner)
            naming = Naming(store, run_id, found.centroids, found.cluster_ids, groups_of(job))
            written = runner.step("write-labels", write_labels, blocks, plan, naming)
        if not written.parts:
            raise DataError(
                f"{plan.place}: no row is left to label after source.filter = {job.source.filter!r}. "
                "Check the source, or fit a model with another filter."
            )
        told = replace(
            found, sizes=np.array(value.sizes, np.int64), inertia=value.inertia, distortion=value.distortion
        )
        record = run_record(
            job_document=resolved(job), run_id=run_id, conditional_put=conditional_put, plan=plan, parts=written.parts,
            model=told, fits=(), workers_lost=cluster.losses.workers if cluster else 0,
        )  # fmt: skip
        result = {**record.result, "model_run": fitted.run_id}
        # The model's own two files, as they were: the sizes and inertia of these rows are in the manifest.
        record = replace(record, model_files=to_bytes(found), result=result)
        return runner.step("commit", commit, store, with_scores(record, scored, found, written))


def job_for(fitted: Run, source: str | os.PathLike[str], output: str | os.PathLike[str]) -> Job:
    """Return the job that made a run, for another source and output."""
    sections = {name: section for name, section in fitted.manifest["job"].items() if section is not None}
    model = fitted.model
    if "source" not in sections or "output" not in sections:
        raise ModelError(
            f"{fitted.uri}: its manifest tells no source or output of its job. Fit the model again."
        )
    sections["source"] = {
        **sections["source"],
        "path": [os.fspath(source)],
        "columns": list(model.feature_names),
    }
    sections["output"] = {**sections["output"], "path": os.fspath(output)}
    return job_from_sections(sections, Path.cwd(), place="predict")
