"""Whole Lloyd runs of ours against peers: `python -m benchmarks.lloyd [W1 W2 ...] [--repeats N] [--json FILE]`.

Systems run in turn in one process, each warmed first on a few rows; a peer that is not installed is left out and named.
"""

import argparse
import json
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from benchmarks.peers import PEERS, Fit, Result
from benchmarks.workloads import WORKLOADS, Rows

MAX_ITER = 100


def timed(fit: Fit, X: Rows, start: Rows, max_iter: int) -> tuple[float, Result]:
    """Return the seconds of one run and what it reached."""
    began = time.perf_counter()
    result = fit(X, start, max_iter)
    return time.perf_counter() - began, result


def available(names: list[str]) -> dict[str, Fit]:
    """Return the peers that run here, warmed."""
    X = np.random.default_rng(0).random((2000, 4)).astype(np.float32)
    found = {}
    for name in names:
        try:
            PEERS[name](X, X[:3], 3)
        except ImportError as error:
            sys.stderr.write(f"{name}: left out, {error}\n")
        else:
            found[name] = PEERS[name]
    return found


def compare(name: str, repeats: int, share: float, peers: dict[str, Fit]) -> dict[str, dict[str, float]]:
    """Return each system's median seconds, iterations, inertia, and median ratio to ours of runs taken in turn."""
    workload = WORKLOADS[name]
    X = workload.rows(share)
    start = workload.start(X)
    for fit in peers.values():
        fit(X[:5000], start, 2)
    runs: dict[str, list[tuple[float, Result]]] = {peer: [] for peer in peers}
    for _ in range(repeats):
        iterations = MAX_ITER
        for peer, fit in peers.items():
            # FAISS does not stop by itself: it makes the passes that ours needed.
            run = timed(fit, X, start, iterations if peer == "FAISS" else MAX_ITER)
            runs[peer].append(run)
            if peer == "ours":
                iterations = run[1].iterations
    mine = [seconds for seconds, _ in runs["ours"]]
    return {
        peer: {
            "seconds": statistics.median(seconds for seconds, _ in found),
            "iterations": found[0][1].iterations,
            "inertia": found[0][1].inertia,
            "times ours": statistics.median(s / ours for (s, _), ours in zip(found, mine, strict=True)),
        }
        for peer, found in runs.items()
    }


def main() -> None:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--json", help="write the figures to this file too")
    asked = parser.parse_args()
    peers = available(asked.peers)
    figures = {}
    for name in asked.workloads:
        figures[name] = compare(name, asked.repeats, asked.share, peers)
        sys.stdout.write(f"\n{name}: {WORKLOADS[name].about}, k = {WORKLOADS[name].n_clusters}\n")
        for peer, row in figures[name].items():
            sys.stdout.write(
                f"  {peer:22} {row['seconds']:9.3f} s  {row['times ours']:7.2f} x ours  "
                f"{row['iterations']:4.0f} iterations  inertia {row['inertia']:.8g}\n"
            )
        sys.stdout.flush()
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump({"versions": versions(), "figures": figures}, file, indent=1)


def versions() -> dict[str, str]:
    """Return the versions of what was compared."""
    found = {"python": sys.version.split()[0]}
    for package in ("kmeans-dask", "numpy", "numba", "scikit-learn", "scikit-learn-intelex", "faiss-cpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    main()
