"""What the figures were measured on: the machine, the versions, and the rate of its matrix product."""

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

# Of fresh processes: an installed package has its bytecode on disk; ours has it after the first process.
FRESH = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PACKAGES = (
    "kmeans-dask", "numpy", "numba", "dask", "pyarrow", "scikit-learn", "scikit-learn-intelex", "faiss-cpu", "dask-ml",
    "pyspark",
)  # fmt: skip


def product_rate(n_threads: int | None = None, size: int = 2048) -> float:
    """Return the GFLOP/s of numpy's float32 matrix product, the best of ten."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((size, size), np.float32) for _ in range(2))
    best = np.inf
    with threadpool_limits(n_threads or cores()):
        for _ in range(10):
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0))


def described() -> list[tuple[str, str]]:
    """Return what the machine and the installed versions are called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [
        ("processor", f"{names[0] if names else platform.machine()}, {cores()} cores"),
        ("memory", f"{memory:.0f} GiB"),
        ("matrix product, 1 thread", f"{product_rate(1):.0f} GFLOP/s"),
        (f"matrix product, {cores()} threads", f"{product_rate():.0f} GFLOP/s"),
        ("python", sys.version.split()[0]),
    ]
    return found + [(name, _version(name)) for name in PACKAGES]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
