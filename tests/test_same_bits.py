"""The same bytes from one job on any number of workers and threads, with any blocks, on any processor."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import Job, open_run, run_job
from tests.engine_jobs import job, result_files, write_files

N_ROWS = 90_000  # more than the 65,536 that decide the shift, so that loads differ in kind
ROOT = Path(__file__).parents[1]

# Every number of workers, both numbers of threads and blocks from 128 rows to all of them, not every combination.
ENGINES: dict[str, Mapping[str, Any]] = {
    "one-worker-tiny-blocks": {"workers": 1, "threads_per_worker": 1, "block_bytes": "1KiB"},
    "two-workers-two-threads": {"workers": 2, "threads_per_worker": 2, "block_bytes": "16KiB"},
    "four-workers": {"workers": 4, "threads_per_worker": 1, "block_bytes": "100KiB"},
    "two-workers-large-blocks": {"workers": 2, "threads_per_worker": 1, "block_bytes": "1MiB"},
    "four-workers-two-threads-one-block": {"workers": 4, "threads_per_worker": 2, "block_bytes": "64MiB"},
}
# Files and rows of a row group, and everything that decides the result.
SOURCES: dict[str, tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    "dropped-weighted-filtered-float32": (
        4, 1700,
        {"nulls": "drop", "weight": "w", "filter": "year >= 2011"},
        {"scale": "standard", "dtype": "float32", "init": "k-means||", "n_init": 1, "refine": True},
    ),
    "filled-float64-one-large-row-group": (
        1, N_ROWS,
        {"nulls": "mean"},
        {"scale": "standard", "dtype": "float64", "init": "k-means++", "tol": 0.0},
    ),
    "integers-full-of-ties-float32": (
        3, 4999,
        {"columns": ["a", "b"]},
        {"dtype": "float32", "init": "random", "tol": 0.0, "max_iter": 30},
    ),
}  # fmt: skip


def table() -> pa.Table:
    """Return ids, weights, years, two columns of few integers, and three of numbers far from zero with nulls."""
    rng = np.random.default_rng(20)
    group = rng.integers(0, 6, N_ROWS)
    hidden = {f"x{f}": rng.random(N_ROWS) < 0.01 for f in range(3)}
    columns = {f"x{f}": 10.0**f * (rng.normal(size=N_ROWS) + 3 * group + 100) for f in range(3)}
    return pa.table(
        {
            "id": np.arange(N_ROWS),
            "year": pa.array(2010 + np.arange(N_ROWS) * 8 // N_ROWS, pa.int32()),
            "w": rng.integers(0, 5, N_ROWS) / 3.0,
            "a": pa.array(rng.integers(0, 16, N_ROWS), pa.int16()),
            "b": pa.array(rng.integers(-8, 8, N_ROWS), pa.int16()),
            **{name: pa.array(values, mask=hidden[name]) for name, values in columns.items()},
        }
    )


def made(folder: Path, name: str, dask: Mapping[str, Any] | None = None) -> Job:
    """Return one of the jobs, its source in folder.parent."""
    files, group_rows, keys, rest = SOURCES[name]
    home = folder.parent / name
    path = (
        str(home / "*.parquet")
        if home.exists()
        else write_files(home, table(), files=files, group_rows=group_rows)
    )
    folder.mkdir()
    source = {"path": path, "ids": ["id"], "columns": ["x0", "x1", "x2"], **keys}
    return job(folder, source, dask=dask, n_clusters=7, **rest)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What each job writes when it runs in this process, on all cores."""
    folder = tmp_path_factory.mktemp("in-process")
    return {name: result_files(run_job(made(folder / f"job-{i}", name))) for i, name in enumerate(SOURCES)}


def test_two_workers_write_the_same_bytes(in_process: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """Labels, centroids and model of a job with nulls, weights, filter and scale, on two workers as in process."""
    name = "dropped-weighted-filtered-float32"
    run = run_job(made(tmp_path / "job", name, {"workers": 2, "block_bytes": "50KiB"}))
    assert result_files(run) == in_process[name]
    files = sorted(in_process[name])
    assert files[0] == "centroids.parquet"
    assert files[-2:] == ["model.json", "model.parquet"]
    assert [file[:17] for file in files[1:-2]] == [f"labels/part-{file:05d}" for file in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("engine", ENGINES)
def test_clusters_write_the_same_bytes(
    in_process: dict[str, dict[str, str]], tmp_path: Path, name: str, engine: str
) -> None:
    """Workers, threads and the size of blocks change no byte."""
    assert result_files(run_job(made(tmp_path / "job", name, ENGINES[engine]))) == in_process[name]


def test_one_core_writes_the_same_bytes(in_process: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """In this process, one core gives the bytes of all of them: other blocks, other threads."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        for i, name in enumerate(SOURCES):
            assert result_files(run_job(made(tmp_path / f"job-{i}", name))) == in_process[name]
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it compiles most kernels anew
@pytest.mark.parametrize(
    "dask", [None, {"workers": 2, "block_bytes": "100KiB"}], ids=["in-process", "two-workers"]
)
def test_a_plain_processor_writes_the_same_bytes(
    in_process: dict[str, dict[str, str]], plain_processor: dict[str, str], tmp_path: Path, dask: Any
) -> None:
    """Kernels compiled for the oldest x86-64, without fused multiply-add or wide vectors, change no byte."""
    for i, name in enumerate(SOURCES):
        wanted = made(tmp_path / f"job-{i}", name, dask).model_dump_json(exclude_unset=True)
        done = subprocess.run(
            [sys.executable, "-m", "tests.test_same_bits"],
            input=wanted, env=plain_processor, cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert result_files(open_run(tmp_path / f"job-{i}" / "out")) == in_process[name]
        assert done.stdout.split() == ["x86-64"]
    kernels = Path(plain_processor["NUMBA_CACHE_DIR"])
    assert list(kernels.rglob("*.nbi")), "nothing was compiled for that processor"


def main() -> None:
    """Run the job on stdin as JSON; print the processor that its kernels were compiled for."""
    from numba.core.config import CPU_NAME

    run_job(Job.model_validate(json.load(sys.stdin)))
    print(CPU_NAME)  # noqa: T201


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_row_groups_do_not_matter(
    in_process: dict[str, dict[str, str]], tmp_path: Path, name: str
) -> None:
    """The same rows in other files and row groups give the same model, centroids and labels."""
    _, _, keys, rest = SOURCES[name]
    runs = []
    for i, (files, group_rows) in enumerate([(1, 2**20), (7, 3333)]):
        folder = tmp_path / f"job-{i}"
        path = write_files(tmp_path / f"data-{i}", table(), files=files, group_rows=group_rows)
        folder.mkdir()
        source = {"path": path, "ids": ["id"], "columns": ["x0", "x1", "x2"], **keys}
        runs.append(run_job(job(folder, source, n_clusters=7, **rest)))
    for file in ("centroids.parquet", "model.json", "model.parquet"):
        assert {result_files(run)[file] for run in runs} == {in_process[name][file]}
    assert runs[0].labels.equals(runs[1].labels)


if __name__ == "__main__":
    main()
