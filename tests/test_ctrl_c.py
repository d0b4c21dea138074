"""Ctrl-C on a terminal: it reaches every process of the job, and only the job's own says so."""

import fcntl
import os
import pty
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.jobs import COMMAND, processes_with, write_job
from tests.test_cli import read_terminal


def key_pressed(arguments: list[str], environment: dict[str, str], seconds: float) -> tuple[int, str]:
    """Run a command as the foreground job of a new terminal, press Ctrl-C, and return exit code and screen."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # noqa: PLW1509 - Ctrl-C needs it
    ) as process:
        os.close(terminal)
        time.sleep(seconds)
        os.write(screen, b"\x03")
        written = read_terminal(screen)
    return process.returncode, written


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [1.5, 2.2, 3.0, 8.0])
def test_ctrl_c_is_answered_once(tmp_path: Path, seconds: float) -> None:
    """While workers start or compute, Ctrl-C ends all processes with exit code 130, one line and no traceback."""
    job = write_job(tmp_path, n_rows=60_000, n_features=8, noise=8.0, n_clusters=60, n_init=200, tol=0)
    mark = f"{tmp_path.name}-{seconds}"
    environment = {**os.environ, "TERM": "xterm", "KMEANS_TEST": mark}
    began = time.monotonic()
    code, screen = key_pressed(
        ["run", str(job), "--no-prefect", "--set", "dask.workers=2"], environment, seconds
    )
    assert code == 130, screen
    assert time.monotonic() - began < seconds + 10
    assert screen.count("interrupted by SIGINT") == 1
    assert "Traceback" not in screen
    assert processes_with("KMEANS_TEST", mark) == []
    assert not (tmp_path / "out" / "_LATEST.json").exists()
