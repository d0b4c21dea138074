"""The Prefect flow: the job's sections as parameters, its steps and restarts as task runs."""

# ruff: noqa: E402 - loaded by its path, it must look at the packages' names before it imports them
from kmeans_dask.siblings import check_siblings

check_siblings()

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.exceptions import Abort

from flows.artifacts import name_flow_run, publish_restarts, publish_summary
from flows.delivery import check_api, drain, logs_in_prefect, send
from flows.prefect_runner import PrefectRunner
from kmeans_dask.errors import InfrastructureError
from pipeline.config import (
    DaskConfig,
    Job,
    KMeansConfig,
    OutputConfig,
    PrepareConfig,
    ScoresConfig,
    SourceConfig,
    job_from_sections,
)
from pipeline.job import run_job
from pipeline.runner import Watch
from pipeline.sink import Run, new_run_id

logger = logging.getLogger("flows")


@dataclass(slots=True)
class Execution:
    """What one execution of the flow gets from the process that started it, and what it leaves there."""

    run_id: str = field(default_factory=new_run_id)
    watch: Watch = field(default_factory=Watch)
    signals: Callable[[], AbstractContextManager[None]] = nullcontext
    run: Run | None = None
    error: BaseException | None = None


_EXECUTION: ContextVar[Execution | None] = ContextVar("execution", default=None)


@flow(name="kmeans", validate_parameters=True, persist_result=False)
def kmeans_flow(
    *,
    source: SourceConfig,
    prepare: PrepareConfig = PrepareConfig(),
    kmeans: KMeansConfig,
    dask: DaskConfig | None = None,
    scores: ScoresConfig | None = None,
    output: OutputConfig,
    set: list[str] = [],  # noqa: A002, B006 - the name that users see; never changed
) -> str:
    """Cluster a Parquet dataset; the run's labels, model and manifest are committed to the output.

    Args:
        source: the Parquet dataset to cluster
        prepare: what happens to the features first
        kmeans: the algorithm
        dask: a Dask cluster; default: in the flow's own process, on all its cores
        scores: scores of the clusters; default: none are made
        output: where the results are committed
        set: changes to the sections, as on the command line, like kmeans.n_clusters=12
    """
    sections = {
        "source": source, "prepare": prepare, "kmeans": kmeans, "dask": dask, "scores": scores, "output": output,
    }  # fmt: skip
    job = job_from_sections(sections, Path.cwd(), set, place="parameters")
    execution = _EXECUTION.get()
    if execution is None:
        return _execute(job, Execution()).uri
    try:
        return _execute(job, execution).uri
    finally:
        _check_still_heard()


def run_in_flow(job: Job, execution: Execution) -> Run:
    """Return the committed run of a job, run as a flow; raises the job's own error, not Prefect's."""
    token = _EXECUTION.set(execution)
    try:
        kmeans_flow(
            source=job.source, prepare=job.prepare, kmeans=job.kmeans, dask=job.dask, scores=job.scores,
            output=job.output,
        )  # fmt: skip
    except (Exception, Abort) as error:
        if execution.error is not None:
            raise execution.error from None
        if execution.run is None:
            raise InfrastructureError(f"the Prefect API failed before the job began: {error}") from error
        logger.warning("the run is committed, but the Prefect API could not be told: %s", error)
    finally:
        _EXECUTION.reset(token)
        drain()
    if execution.run is None:
        raise InfrastructureError("Prefect refused to start the flow run. See its API for the reason.")
    return execution.run


def _execute(job: Job, execution: Execution) -> Run:
    with execution.signals(), logs_in_prefect(execution.run_id):
        try:
            execution.run = _run(job, execution)
        except BaseException as error:
            # Restarts on other threads end only when they are told to.
            execution.watch.stop.set()
            execution.error = error
            raise
    return execution.run


def _check_still_heard() -> None:
    """Abort the flow run if the API is gone for good: Prefect would try for minutes to report its end."""
    try:
        check_api(seconds=10)
    except InfrastructureError as error:
        raise Abort(str(error)) from error


def _run(job: Job, execution: Execution) -> Run:
    send("the name of the flow run", name_flow_run, f"kmeans {execution.run_id}")
    runner = PrefectRunner(execution.watch, on_fits=partial(send, "the table of restarts", publish_restarts))
    run = run_job(job, runner, run_id=execution.run_id)
    send("the summary", publish_summary, run)
    return run
