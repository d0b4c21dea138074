"""What a fresh process costs: `python -m benchmarks.start`. Kernels are on disk, as after `make run`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import FRESH
from benchmarks.report import Section, Size, Table, Target, main

_FITS = """
import time, numpy as np
from kmeans_dask import kmeans
X = np.random.default_rng(0).random(({rows}, 16), np.float32)
for _ in range(2):
    began = time.perf_counter()
    kmeans(X, 16, n_init=1, max_iter=20)
    print(time.perf_counter() - began)
"""
HERE = Path(__file__).parents[1]


def output_of(code: str) -> str:
    """Return what a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=HERE, env=FRESH, capture_output=True, text=True
    ).stdout


def seconds_of(code: str) -> float:
    """Return the seconds of a fresh interpreter."""
    began = time.perf_counter()
    output_of(code)
    return time.perf_counter() - began


def measured(size: Size) -> Section:
    """How slow is a fresh process?"""
    fits = _FITS.format(rows=max(1000, int(200_000 * size.share)))
    output_of(fits)
    firsts = [[float(line) for line in output_of(fits).split()] for _ in range(size.repeats)]
    codes = {"nothing": "pass", "kmeans_dask": "import kmeans_dask", "all": "from kmeans_dask import kmeans"}
    imports = {
        name: statistics.median(seconds_of(code) for _ in range(size.repeats)) for name, code in codes.items()
    }
    first, second = (statistics.median(run[i] for run in firsts) for i in range(2))
    rows = (
        ("import kmeans_dask", imports["kmeans_dask"] - imports["nothing"]),
        ("from kmeans_dask import kmeans: numba, numpy and pyarrow too", imports["all"] - imports["nothing"]),
        ("the first fit", first),
        ("the second fit", second),
    )
    targets = (
        Target("8. the first fit less the second, s", first - second, 1.5),
        Target("8. from kmeans_dask import kmeans, s", imports["all"] - imports["nothing"], 0.7),
    )
    question = "Fresh interpreters, with kernels on disk; medians."
    return Section("A fresh process", question, (Table("", ("", "seconds"), rows),), targets)


if __name__ == "__main__":
    main(measured)
