"""What the command line says: lines or a live display on stderr, the result on stdout."""

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from flows.scores import score_lines, sweep_cells

if TYPE_CHECKING:
    from kmeans_dask.lloyd import Progress
    from pipeline.sink import Run

Verbosity = Literal["quiet", "normal", "verbose"]

OURS: Final = ("kmeans_dask", "pipeline", "flows")
_LINES_SHOWN: Final = 20
_VALUES_SHOWN: Final = 100
_TABLE_WIDTH: Final = 400
_NAMES: Final = {"n_iter": "iterations", "stop": "stopped by", "restart": "best restart"}


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
    handler.setLevel({"quiet": logging.ERROR, "normal": logging.INFO, "verbose": logging.DEBUG}[verbosity])
    if console.is_terminal and verbosity == "normal":
        handler.addFilter(lambda record: record.name != "kmeans_dask.iterations")
    if verbosity != "verbose":
        handler.addFilter(_worth_saying)
        # A failing handler, as when Prefect's API is gone, must not write tracebacks among the lines.
        logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    warnings.showwarning = _log_warning
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbosity == "verbose" else logging.INFO)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Pass our own lines and others' warnings, save Prefect's: its errors come to us, and are said once."""
    package = record.name.partition(".")[0]
    return package in OURS or (record.levelno >= logging.WARNING and package != "prefect")


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning as one log line, without the place in the source that raised it."""
    logging.getLogger("flows").warning("%s: %s", category.__name__, message)


@dataclass(slots=True)
class LiveProgress:
    """The restarts' latest iterations, as a table that is redrawn in place."""

    latest: "dict[tuple[int, int], Progress]" = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, progress: "Progress") -> None:
        """Note one iteration; called on the restarts' threads."""
        with self.lock:
            self.latest[progress.n_clusters or 0, progress.restart] = progress

    def __rich__(self) -> Table:
        """Draw the latest restarts, as many as a screen holds."""
        with self.lock:
            rows = [self.latest[key] for key in sorted(self.latest)]
        table = Table(box=None, pad_edge=False, show_header=bool(rows))
        sweep = any(row.n_clusters is not None for row in rows)
        for name in (*["k"] * sweep, "restart", "iteration", "distortion", "changed", "seconds"):
            table.add_column(name, justify="right")
        for row in rows[-_LINES_SHOWN:]:
            table.add_row(
                *[str(row.n_clusters)] * sweep,
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
    """Return a committed run as JSON values: its id, its place, and the result of its manifest."""
    return {"run_id": run.run_id, "path": run.uri, **run.manifest["result"]}


def table_of(values: dict[str, Any]) -> str:
    """Return JSON values as lines of two columns, never broken: a path can be copied from a narrow terminal.

    A sweep comes first, as a table of its own.
    """
    if "sweep" in values:
        rest = {key: value for key, value in values.items() if key != "sweep"}
        rest["picture"] = f"{values['path'].rstrip('/')}/elbow.svg"
        return f"{sweep_text(values['sweep'], values['n_clusters'])}\n{table_of(rest)}"
    named: list[tuple[str, str]] = []
    for key, value in values.items():
        if key == "scores":
            named += score_lines(value).items()
        else:
            named.append((_NAMES.get(key, key.replace("_", " ")), _text(value)))
    width = max(len(name) for name, _ in named)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in named)


def sweep_text(sweep: dict[str, Any], chosen: int) -> str:
    """Return the scores as a table whose lines are never broken, the chosen line marked, and the choice in words."""
    head, *rows = sweep_cells(sweep)
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(["", *head]):
        table.add_column(name, justify="left" if i in (0, len(head)) else "right", no_wrap=True)
    for row in rows:
        table.add_row("*" if row[0] == str(chosen) else "", *row)
    console = Console(file=io.StringIO(), width=_TABLE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, "", sweep["why"], ""])


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.10g}"
    if not isinstance(value, (list, tuple)):
        return str(value)
    shown = ", ".join(map(str, value[:_VALUES_SHOWN]))
    return shown if len(value) <= _VALUES_SHOWN else f"{shown}, ... ({len(value)} in all)"


def stderr() -> Console:
    """Return the console of progress and log lines."""
    return Console(file=sys.stderr, highlight=False)
