"""Parquet in, results out: jobs as values, run from Python as from the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Job, load_job
    from pipeline.job import plan_job, run_job
    from pipeline.sink import Run, open_run

__all__ = ["Job", "Run", "load_job", "open_run", "plan_job", "run_job"]
_HOMES = {
    "Job": "config",
    "Run": "sink",
    "load_job": "config",
    "open_run": "sink",
    "plan_job": "job",
    "run_job": "job",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: a worker that reads Parquet needs no sink and no sequence of steps."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
