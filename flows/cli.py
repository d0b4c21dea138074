"""The command line: argv in, an exit code out.

0 committed; 1 a defect of ours; 2 bad input or configuration; 3 infrastructure, a retry may help; 130 and 143
interrupted by SIGINT and SIGTERM.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, CycloptsError, Parameter

from flows.interrupts import Interrupts
from kmeans_dask.errors import KMeansError, StopRequested
from kmeans_dask.starting import import_numba, importing

if TYPE_CHECKING:
    from flows.report import Verbosity
    from pipeline.config import Job
    from pipeline.sink import Run

DEFECT: Final = 1
USAGE: Final = 2

Sets = Annotated[
    list[str],
    Parameter(name="--set", negative="", help="Change a key of the job, like kmeans.n_clusters=12."),
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as one JSON object.")]
NoPrefect = Annotated[bool, Parameter(negative="", help="Run the same steps without Prefect.")]
Verbose = Annotated[bool, Parameter(negative="", help="Say what every step does.")]
Quiet = Annotated[bool, Parameter(negative="", help="Say nothing but errors.")]
Signals = Annotated[Interrupts, Parameter(parse=False)]

app = App(
    name="kmeans-dask",
    version=lambda: version("kmeans-dask"),
    help="K-means clustering as a data pipeline: Parquet in, clusters out.",
)


def main() -> None:
    """Leave the process with the exit code of its arguments."""
    code = exit_code_of(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # Everything is committed and every child has ended. The usual way out would wait for libraries' threads,
    # and pyarrow's abort the process ("terminate called") when they are just starting.
    os._exit(code)


def exit_code_of(argv: Sequence[str]) -> int:
    """Run one command line in the main thread; say what went wrong on stderr."""
    interrupts = Interrupts(threading.Event())
    try:
        with interrupts.handled():
            command, bound, ours = app.parse_args(list(argv), exit_on_error=False, help_on_error=False)
            command(*bound.args, **bound.kwargs, **dict.fromkeys(ours, interrupts))
    except (Exception, KeyboardInterrupt, StopRequested) as error:
        # After a signal whatever went wrong is its consequence.
        return _explained(error) if interrupts.exit_code is None else interrupts.said()
    return 0


def _explained(error: BaseException) -> int:
    if isinstance(error, CycloptsError):
        return USAGE
    if isinstance(error, KMeansError):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    traceback.print_exception(error)
    print(  # noqa: T201
        "This is a defect of kmeans-dask, not of your job: please report it with the lines above.",
        file=sys.stderr,
    )
    return DEFECT


@app.command
def run(
    job: Path,
    /,
    *,
    set: Sets = [],  # noqa: A002, B006 - the name that users see; never changed
    no_prefect: NoPrefect = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    signals: Signals,
) -> None:
    """Cluster a dataset and commit the result.

    Parameters
    ----------
    job
        The job's TOML file.
    """
    from flows import report
    from pipeline.config import load_job

    settings = load_job(job, set)
    run_here = _run_plainly if no_prefect else _run_in_flow
    with _workers_ahead(settings):
        committed = run_here(settings, signals, _verbosity(verbose, quiet))
    _show(report.result_of(committed), json)


@app.command
def plan(job: Path, /, *, set: Sets = [], json: AsJson = False) -> None:  # noqa: A002, B006
    """Tell rows, bytes, blocks, features and memory from the files' footers alone.

    Parameters
    ----------
    job
        The job's TOML file.
    """
    from pipeline.config import load_job
    from pipeline.job import plan_job

    _show(asdict(plan_job(load_job(job, set))), json)


@app.command
def predict(
    model: str,
    input: str,  # noqa: A002 - the name that users see
    output: str,
    /,
    *,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    signals: Signals,
) -> None:
    """Label the rows of a dataset with a stored model and commit the result.

    Parameters
    ----------
    model
        The output of a job, or one run in it.
    input
        File, directory, glob or URI of the Parquet data.
    output
        Directory or URI.
    """
    with importing():
        import_numba()
        from flows import report
        from pipeline.predict import predict as predict_run
        from pipeline.runner import PlainRunner, Watch
        from pipeline.sink import new_run_id

    run_id = new_run_id()
    report.log_to(report.stderr(), run_id, _verbosity(verbose, quiet))
    runner = PlainRunner(Watch(signals.stop))
    _show(report.result_of(predict_run(model, input, output, runner=runner, run_id=run_id)), json)


@contextmanager
def _workers_ahead(job: "Job") -> Iterator[None]:
    """Have what the workers of a local cluster need imported elsewhere, while this process imports its own."""
    if job.dask is None or job.dask.address is not None:
        yield
        return
    from pipeline import fork_server

    with fork_server.held("flows.preloaded"):
        yield


def _verbosity(verbose: bool, quiet: bool) -> "Verbosity":
    return "quiet" if quiet else "verbose" if verbose else "normal"


def _run_plainly(job: "Job", signals: Interrupts, verbosity: "Verbosity") -> "Run":
    from pipeline import read_ahead

    with read_ahead.begun(job) as source:
        with importing():
            import_numba()
            from flows import report
            from pipeline.job import run_job
            from pipeline.runner import PlainRunner, Watch
            from pipeline.sink import new_run_id

        console, run_id = report.stderr(), new_run_id()
        report.log_to(console, run_id, verbosity)
        with report.live(console, verbosity) as on_progress:
            watch = Watch(signals.stop, on_progress)
            return run_job(job, PlainRunner(watch), run_id=run_id, source=source)


def _run_in_flow(job: "Job", signals: Interrupts, verbosity: "Verbosity") -> "Run":
    with importing():
        import_numba()
        from flows import report, server
        from pipeline.runner import Watch
        from pipeline.sink import new_run_id

    console, run_id = report.stderr(), new_run_id()
    report.log_to(console, run_id, verbosity)
    with server.api():
        with importing():
            from flows.flow import Execution, run_in_flow

        with report.live(console, verbosity) as on_progress:
            watch = Watch(signals.stop, on_progress)
            return run_in_flow(job, Execution(run_id, watch, signals.handled))


def _show(values: dict[str, Any], as_json: bool) -> None:
    from flows import report

    print(json.dumps(values) if as_json else report.table_of(values))  # noqa: T201


if __name__ == "__main__":
    main()
