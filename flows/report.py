"""What the command line says: lines or a live display on stderr, the result on stdout."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from kmeans_dask.lloyd import Progress
    from pipeline.sink import Run

Verbosity = Literal["quiet", "normal", "verbose"]

OURS: Final = ("kmeans_dask", "pipeline", "flows")
_LINES_SHOWN: Final = 20


class ConsoleHandler(logging.Handler):
    """Prints lines above the live display, if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line as it is."""
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def log_to(console: Console, run_id: str, verbosity: Verbosity) -> None:
    """Send every library's warnings, and our own lines from the level of `verbosity` on, to the console.

    On a terminal the live display stands for the lines of single iterations.
    """
    handler = ConsoleHandler(console)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {run_id} %(message)s"))
    normal = logging.WARNING if console.is_terminal else logging.INFO
    handler.setLevel({"quiet": logging.ERROR, "normal": normal, "verbose": logging.DEBUG}[verbosity])
    if verbosity != "verbose":
        handler.addFilter(_not_prefects_own)
        # A failing handler, as when Prefect's API is gone, must not write tracebacks among the lines.
        logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbosity == "verbose" else logging.INFO)


def _not_prefects_own(record: logging.LogRecord) -> bool:
    """Leave out what Prefect says of itself: what matters of it comes to us as an error, and is said once."""
    return not record.name.startswith("prefect")


@dataclass(slots=True)
class LiveProgress:
    """The restarts' latest iterations, as a table that is redrawn in place."""

    latest: "dict[int, Progress]" = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, progress: "Progress") -> None:
        """Note one iteration; called on the restarts' threads."""
        with self.lock:
            self.latest[progress.restart] = progress

    def __rich__(self) -> Table:
        """Draw the latest restarts, as many as a screen holds."""
        with self.lock:
            rows = sorted(self.latest.values(), key=lambda progress: progress.restart)
        table = Table(title=f"{len(rows)} restarts", title_justify="left")
        for name in ("restart", "iteration", "distortion", "changed", "seconds"):
            table.add_column(name, justify="right")
        for row in rows[-_LINES_SHOWN:]:
            table.add_row(
                str(row.restart),
                str(row.iteration),
                f"{row.distortion:.6g}",
                str(row.changed),
                f"{row.seconds:.3f}",
            )
        return table


@contextmanager
def live(console: Console, verbosity: Verbosity) -> "Iterator[LiveProgress | None]":
    """Yield what to call with each iteration: a live display on a terminal, else None."""
    if not console.is_terminal or verbosity == "quiet":
        yield None
        return
    progress = LiveProgress()
    with Live(progress, console=console, refresh_per_second=4, transient=True):
        yield progress


def result_of(run: "Run") -> dict[str, Any]:
    """Return a committed run as JSON values."""
    model = run.model
    return {
        "run_id": run.run_id,
        "path": run.uri,
        "n_clusters": model.n_clusters,
        "inertia": model.inertia,
        "distortion": model.distortion,
        "iterations": model.n_iter,
        "stop": model.stop,
        "best_restart": model.restart,
        "cluster_ids": [int(cluster) for cluster in model.cluster_ids],
        "sizes": [int(size) for size in model.sizes],
    }


def table_of(values: dict[str, Any]) -> Table:
    """Return JSON values as a table of two columns."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        text = f"{value:.10g}" if isinstance(value, float) else str(value)
        table.add_row(name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else text)
    return table


def stdout() -> Console:
    """Return the console of results."""
    return Console(file=sys.stdout, soft_wrap=True, highlight=False)


def stderr() -> Console:
    """Return the console of progress and log lines."""
    return Console(file=sys.stderr, highlight=False)
