"""Whole Lloyd runs of ours against peers in one process: `python -m benchmarks.lloyd [W2 FAISS ...]`.

Systems run in turn, each warmed first; a peer that is not installed is left out and named.
"""

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import product_rate
from benchmarks.peers import PEERS, Fit, Result
from benchmarks.report import Cell, Section, Size, Table, Target, main
from benchmarks.workloads import WORKLOADS, Rows

MAX_ITER = 100
_ENOUGH_SECONDS = 150.0  # no further round of a workload after these
_PAUSE_SECONDS = 0.3  # other systems' threads spin for a while after their work
_GEOMETRIC = {"scikit-learn": 8.0, "scikit-learn-intelex": 10.0, "FAISS": 8.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one workload: medians over rounds, and the median of the ratios to ours within a round."""

    system: str
    seconds: float
    times_ours: float
    iterations: int
    inertia: float


def timed(fit: Fit, X: Rows, start: Rows, max_iter: int) -> tuple[float, Result]:
    """Return the seconds of one run and what it reached."""
    time.sleep(_PAUSE_SECONDS)
    began = time.perf_counter()
    result = fit(X, start, max_iter)
    return time.perf_counter() - began, result


def available(size: Size) -> tuple[dict[str, Fit], list[str]]:
    """Return the systems that run here, and why others do not."""
    X = np.random.default_rng(0).random((2000, 4)).astype(np.float32)
    asked = (
        [name for name in PEERS if size.wants(name)] if any(n in PEERS for n in size.only) else list(PEERS)
    )
    found, missing = {}, []
    for name in dict.fromkeys(["ours", *asked]):
        try:
            PEERS[name](X, X[:3], 3)
        except ImportError as error:
            missing.append(f"{name} is left out: {error}.")
        else:
            found[name] = PEERS[name]
    return found, missing


def compared(X: Rows, start: Rows, systems: dict[str, Fit], repeats: int) -> list[Row]:
    """Return what each system needs, run in turn; ours comes first, and FAISS makes as many passes as ours did."""
    for fit in systems.values():
        fit(X[: max(5000, 2 * len(start))], start, 2)
    runs: dict[str, list[tuple[float, Result]]] = {system: [] for system in systems}
    began = time.monotonic()
    while len(runs["ours"]) < repeats and (not runs["ours"] or time.monotonic() - began < _ENOUGH_SECONDS):
        for system, fit in systems.items():
            passes = runs["ours"][-1][1].iterations if system == "FAISS" else MAX_ITER
            runs[system].append(timed(fit, X, start, passes))
    mine = [seconds for seconds, _ in runs["ours"]]
    return [
        Row(
            system,
            statistics.median(seconds for seconds, _ in found),
            statistics.median(s / ours for (s, _), ours in zip(found, mine, strict=True)),
            found[0][1].iterations,
            found[0][1].inertia,
        )
        for system, found in runs.items()
    ]


def measured(size: Size) -> Section:
    """How long do whole runs take, packing included, against others doing the same work?"""
    systems, notes = available(size)
    rate = product_rate()
    names = [name for name in WORKLOADS if name in size.only] or list(WORKLOADS)
    tables, found = [], {}
    for name in names:
        workload = WORKLOADS[name]
        try:
            X = workload.rows(size.share)
        except (ImportError, FileNotFoundError) as error:
            notes.append(f"{name} is left out: {error}.")
            continue
        found[name] = compared(X, workload.start(X), systems, size.repeats)
        work = 2 * X.size * workload.n_clusters
        cells: list[tuple[Cell, ...]] = [
            (r.system, r.seconds, r.times_ours, r.iterations, f"{r.inertia:.8g}", _share(r, work, rate))
            for r in found[name]
        ]
        head = ("", "seconds", "x ours", "iterations", "inertia", "of the matrix product's rate")
        tables.append(Table(f"{name}: {workload.about}, k = {workload.n_clusters}", head, tuple(cells)))
    question = (
        f"Whole runs of up to {MAX_ITER} iterations in one process, packing included, tol = 0, from the same start; "
        "medians of rounds in turn. The last column counts 2nkd for every iteration, also where rows are skipped."
    )
    return Section("Whole runs", question, tuple(tables), tuple(_targets(found)), tuple(notes))


def _share(row: Row, work: int, rate: float) -> str:
    return f"{work * row.iterations / row.seconds / 1e9 / rate:.0%}"


def _targets(found: dict[str, list[Row]]) -> list[Target]:
    ratios = {name: {r.system: r.times_ours for r in rows} for name, rows in found.items()}
    targets = []
    for peer, bound in _GEOMETRIC.items():
        logs = [math.log(r[peer]) for name, r in ratios.items() if peer in r and name != "W9"]
        if logs:
            mean = math.exp(statistics.fmean(logs))
            targets.append(
                Target(f"1. {peer} / ours, geometric mean of {len(logs)} workloads", mean, bound, True)
            )
    for name, r in ratios.items():
        best = min((r[peer] for peer in _GEOMETRIC if peer in r), default=None)
        if best is not None and name != "W9":
            targets.append(
                Target(f"1. {name}: the best of them / ours", best, 2.0 if name == "W4" else 3.0, True)
            )
    if "scikit-learn" in ratios.get("W9", {}):
        targets.append(Target("1. W9: scikit-learn / ours", ratios["W9"]["scikit-learn"], 1.0, True))
    return targets


if __name__ == "__main__":
    main(measured)
