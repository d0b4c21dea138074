"""The command line: what is on stdout, what on stderr, and the exit code."""

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.jobs import COMMAND, command, visible_run, write_job

RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_run_commits_and_prints_the_result_as_json(tmp_path: Path) -> None:
    """`run --json` exits 0 with one JSON object on stdout, and readers see that run."""
    done = command("run", write_job(tmp_path), "--no-prefect", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["run_id"] == visible_run(tmp_path / "out")
    assert (result["n_clusters"], result["rows"], sum(result["sizes"])) == (3, 600, 600)


def test_run_prints_a_table(tmp_path: Path) -> None:
    """Without --json the result is a table that tells what was found and why it stopped."""
    done = command("run", write_job(tmp_path), "--no-prefect")
    assert done.returncode == 0, done.stderr
    for name in (
        "run id",
        "path",
        "n clusters",
        "inertia",
        "distortion",
        "iterations",
        "stopped by",
        "best restart",
    ):
        assert re.search(rf"^{name} ", done.stdout, re.MULTILINE), name


def test_every_log_line_carries_the_run_id(tmp_path: Path) -> None:
    """Off a terminal, stderr has a line for each iteration of each restart, each with the run id."""
    done = command("run", write_job(tmp_path), "--no-prefect", "--json")
    run_id = json.loads(done.stdout)["run_id"]
    lines = done.stderr.splitlines()
    assert all(run_id in line for line in lines)
    for restart in range(3):
        assert any(f"restart {restart} iteration 1: distortion " in line for line in lines)


def test_many_sizes_are_cut_short_in_the_table_alone(tmp_path: Path) -> None:
    """A table shows the first hundred sizes and their number; --json has all of them."""
    arguments = ["--no-prefect", "--set", "kmeans.n_clusters=150", "--set", "kmeans.n_init=1"]
    done = command("run", write_job(tmp_path), *arguments)
    assert done.stdout.rstrip().endswith("... (150 in all)")
    done = command("run", tmp_path / "job.toml", *arguments, "--json")
    assert len(json.loads(done.stdout)["sizes"]) == 150


def test_the_version_is_the_distributions(tmp_path: Path) -> None:
    """`--version` prints what pip shows."""
    assert command("--version").stdout.strip() == version("kmeans-dask")


def test_a_script_without_the_guard_is_told_of_it(tmp_path: Path) -> None:
    """Workers import the script that runs a job; one that runs it at once gets an error that names the guard."""
    job, script = write_job(tmp_path), tmp_path / "script.py"
    script.write_text(
        f"import pipeline\npipeline.run_job(pipeline.load_job({str(job)!r}, ['dask.workers=1']))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_set_changes_one_key(tmp_path: Path) -> None:
    """--set may be given more than once and changes the job's keys."""
    job = write_job(tmp_path)
    done = command(
        "run",
        job,
        "--set",
        "kmeans.n_clusters=5",
        "--set",
        "kmeans.n_init=1",
        "--no-prefect",
        "--json",
        "--quiet",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_clusters"] == 5
    assert done.stderr == ""


def test_plan_reads_no_data_and_writes_nothing(tmp_path: Path) -> None:
    """`plan` tells rows and memory from the footers and leaves no output."""
    job = write_job(tmp_path)
    done = command("plan", job, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 600
    assert not (tmp_path / "out").exists()


def test_predict_labels_the_rows_of_the_fit_as_the_fit_did(tmp_path: Path) -> None:
    """`predict` commits a run in the same layout, with the fit's sizes on the fit's rows."""
    fitted = json.loads(command("run", write_job(tmp_path), "--no-prefect", "--json").stdout)
    done = command("predict", tmp_path / "out", tmp_path / "data.parquet", tmp_path / "labels", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sizes"] == fitted["sizes"]
    assert result["run_id"] == visible_run(tmp_path / "labels")


def test_a_terminal_gets_a_live_display_on_stderr(tmp_path: Path) -> None:
    """On a terminal a table of restarts stands for the lines of single iterations; stdout has the result alone."""
    reader, terminal = pty.openpty()
    job = write_job(tmp_path, n_rows=60_000, n_features=8, noise=8.0, n_clusters=30, n_init=9, tol=0)
    with subprocess.Popen(
        [COMMAND, "run", job, "--no-prefect", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        text=True,
    ) as process:
        os.close(terminal)
        shown = read_terminal(reader)
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["run_id"] in shown
    assert process.returncode == 0
    assert "iteration 1: distortion" not in shown
    assert re.search(r"restart.* iteration.* distortion.* changed.* seconds", shown)


def read_terminal(reader: int) -> str:
    """Return all that is written to a terminal until its last writer ends."""
    written = bytearray()
    with contextlib.suppress(OSError):  # how a terminal without writers reads
        while data := os.read(reader, 65536):
            written += data
    os.close(reader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.toml"], "no such job file"),
        (["run", "job.toml", "--set", "kmeans.n_cluster=3"], "n_clusters"),
        (["run", "job.toml", "--set", "kmeans.n_clusters=0"], "n_clusters"),
        (["run", "job.toml", "--set", "kmeans.n_clusters=601"], "601"),
        (["run", "job.toml", "--set", 'source.path="nothing"'], "nothing"),
        (["run", "job.toml", "--jsn"], "--json"),
        (["run"], "JOB"),
        (["rn"], "run"),
        (["predict", "nowhere", "data.parquet", "labels"], "nowhere"),
    ],
)
def test_bad_input_exits_2_with_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    """A user's mistake ends with exit code 2, says what is wrong without a traceback, and changes nothing."""
    write_job(tmp_path)
    before = listing(tmp_path)
    more = ["--no-prefect"] if arguments[0] == "run" and len(arguments) > 1 else []
    done = subprocess.run(
        [COMMAND, *arguments, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert listing(tmp_path) == before


@pytest.mark.slow
def test_a_prefect_api_that_never_answers_exits_3_in_time(tmp_path: Path) -> None:
    """A Prefect API that accepts connections and says nothing ends the job with exit code 3 in half a minute."""
    job = write_job(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
        began = time.monotonic()
        done = command(
            "run", job, env={**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home")}
        )
    assert done.returncode == 3
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 45
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_is_not_there_exits_3(tmp_path: Path) -> None:
    """A Dask scheduler that refuses ends the job with exit code 3, and no run is visible."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = command(
        "run", write_job(tmp_path), "--no-prefect", "--set", f"dask.address=tcp://127.0.0.1:{port}"
    )
    assert done.returncode == 3
    assert str(port) in done.stderr
    assert visible_run(tmp_path / "out") is None


def test_a_defect_exits_1_and_says_so(tmp_path: Path) -> None:
    """An error that is nobody's input ends with exit code 1, a traceback, and a line that calls it ours."""
    job = write_job(tmp_path)
    program = (
        "import sys, pipeline.job, flows.cli\n"
        "def broken(*args, **kwargs): raise ZeroDivisionError('by zero')\n"
        "pipeline.job.run_job = broken\n"
        f"sys.exit(flows.cli.exit_code_of(['run', {str(job)!r}, '--no-prefect']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "defect of kmeans-dask" in done.stderr


def test_help_needs_neither_prefect_nor_the_engine() -> None:
    """`--help` imports none of the heavy libraries, so that it answers at once."""
    program = (
        "import sys, flows.cli\n"
        "code = flows.cli.exit_code_of(['--help'])\n"
        "heavy = {'prefect', 'numpy', 'pyarrow', 'distributed', 'numba'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in ("run", "plan", "predict"):
        assert name in done.stdout
