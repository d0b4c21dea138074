"""How low an inertia is found, and in what time, over 20 seeds: `python -m benchmarks.quality [s1 ...]`."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.report import Cell, Section, Size, Table, Target, main, markdown
from benchmarks.workloads import SHARED
from kmeans_dask import KMeans

PAGE = Path(__file__).parents[1] / "docs" / "quality.md"
MARKS = ("<!-- figures -->", "<!-- end of figures -->")
SEEDS = 20
NEAR, SAME = 1.001, 1 + 1e-6
Rows = npt.NDArray[Any]


def stored(name: str) -> Callable[[], Rows]:
    """Return a reader of a set's features."""

    def rows() -> Rows:
        table = pq.read_table(SHARED / f"{name}.parquet")
        return np.column_stack([table[c].to_numpy() for c in table.column_names if c != "label"]) * 1.0

    return rows


def grid() -> Rows:
    """Return 20,000 rows around the 100 points of a grid."""
    rng = np.random.default_rng(5)
    points = np.array([(i, j) for i in range(10) for j in range(10)], float)
    return points[rng.integers(100, size=20_000)] + 0.15 * rng.normal(size=(20_000, 2))


def irregular() -> Rows:
    """Return 20,000 rows around 50 points, some close to others, of unequal number and spread."""
    rng = np.random.default_rng(6)
    points, shares = rng.uniform(size=(50, 2)) * 10, rng.dirichlet(np.full(50, 1.0))
    spreads, labels = rng.uniform(0.05, 0.4, size=50), rng.choice(50, p=shares, size=20_000)
    return points[labels] + spreads[labels][:, None] * rng.normal(size=(20_000, 2))


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows, how many clusters to look for, and the lowest inertia known: proven, published, or found by anyone here."""

    rows: Callable[[], Rows]
    n_clusters: int
    lowest: float
    proven: bool = False


PROBLEMS = {
    "s1": Problem(stored("sipu_s1"), 15, 8.91761562e12),
    "a1": Problem(stored("sipu_a1"), 20, 1.21462575e10),
    "r15": Problem(stored("sipu_r15"), 15, 108.619041),
    "letter": Problem(stored("uci_letter"), 26, 610_790.0),
    "china": Problem(stored("rgb_china"), 64, math.inf),
    "pendigit": Problem(stored("mssc_pendigit"), 10, 49_301_509.2),
    "grid": Problem(grid, 100, 888.263283),
    "irregular": Problem(irregular, 50, 1377.5),
}
MINIMA = {
    "iris": (
        152.347951760358, 78.851441426146, 57.2284732142857, 46.4461820512821, 39.0399872460872,
        34.2982296650718, 29.9889439507861, 27.7860924173081, 25.83405481997251,
    ),
    "ruspini": (
        89337.832142857, 51063.4750456705, 12881.0512361466, 10126.7197881828, 8575.40687645688,
        7126.19854312354, 6149.639019314019, 5181.65183982684, 4446.28214285714,
    ),
    "mssc_bavaria1": (
        602547222093.8822, 294506562778.027, 104474664100.716, 59761526720.5269, 35908538438.0298,
        21983207615.3985, 13385415052.5813, 8423750573.163314, 6446483642.87013,
    ),
}  # fmt: skip
PROBLEMS |= {
    f"{name} {k}": Problem(stored(name), k, minimum, proven=True)
    for name, minima in MINIMA.items()
    for k, minimum in enumerate(minima, start=2)
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fit of one seed."""

    problem: str
    system: str
    seed: int
    seconds: float
    inertia: float


SYSTEMS = ("scikit-learn", "ours")


def outcomes(name: str, seeds: Sequence[int], share: float = 1.0) -> Iterator[Outcome]:
    """Fit each seed by scikit-learn with n_init=10, then by ours as it is; seconds are those of the processor."""
    from sklearn import cluster
    from threadpoolctl import threadpool_limits

    problem = PROBLEMS[name]
    k, X = problem.n_clusters, problem.rows()
    X = X[: max(int(len(X) * share), 5 * k)]
    for some in (X[:50], np.random.default_rng(0).normal(size=(20_000, 6)).astype(X.dtype)):
        KMeans(10).fit(some)  # compiles, or loads what is compiled
    makers: dict[str, Callable[[int], Any]] = {
        "scikit-learn": lambda seed: cluster.KMeans(k, n_init=10, random_state=seed),
        "ours": lambda seed: KMeans(k, random_state=seed),
    }
    with threadpool_limits(
        1
    ):  # threads made before this process was given one core would only wait, at its cost
        for seed in seeds:
            for system in SYSTEMS:
                estimator = makers[system](seed)
                began = time.process_time()
                estimator.fit(X)
                yield Outcome(name, system, seed, time.process_time() - began, float(estimator.inertia_))


@dataclass(frozen=True, slots=True)
class Figures:
    """What some outcomes say; of a share of the rows the lowest inertia known is the lowest found."""

    found: Sequence[Outcome]
    share: float = 1.0

    def names(self, *, proven: bool) -> list[str]:
        """Return the problems whose minimum is proven, or not."""
        return [
            name for name in dict.fromkeys(o.problem for o in self.found) if PROBLEMS[name].proven == proven
        ]

    def lowest(self, name: str) -> float:
        """Return the lowest inertia known."""
        published = PROBLEMS[name].lowest
        found = [o.inertia for o in self.found if o.problem == name]
        return min([*found, published] if self.share == 1 else found)

    def ratios(self, name: str, system: str) -> list[float]:
        """Return each seed's inertia over the lowest known, ascending."""
        lowest = self.lowest(name)
        return sorted(o.inertia / lowest for o in self.found if (o.problem, o.system) == (name, system))

    def seconds(self, name: str, system: str) -> float:
        """Return the median of the seeds."""
        return median(o.seconds for o in self.found if (o.problem, o.system) == (name, system))

    def row(self, name: str, system: str) -> tuple[Cell, ...]:
        """Return a problem's figures."""
        r = self.ratios(name, system)
        within = f"{sum(x <= NEAR for x in r)} of {len(r)}"
        inertias = (f"{self.lowest(name):.9g}", f"{median(r):.5f}", f"{r[-1]:.5f}")
        about = f"{name}, k={PROBLEMS[name].n_clusters}"
        return (about, system, *inertias, within, f"{self.seconds(name, system):.3f}")

    def proven_row(self, base: str, system: str) -> tuple[Cell, ...]:
        """Return the figures of one set's proven minima."""
        names = [name for name in self.names(proven=True) if name.split()[0] == base]
        ratios = [self.ratios(name, system) for name in names]
        hits = ", ".join(str(sum(x <= SAME for x in r)) for r in ratios)
        seconds = sum(self.seconds(name, system) for name in names) / len(names)
        return base, system, hits, f"{max(r[-1] for r in ratios):.5f}", f"{seconds:.4f}"

    def targets(self) -> list[Target]:
        """Return what should hold of each problem."""
        worst, time = "quality: worst of ours / lowest known, ", "quality: our seconds / scikit-learn's, "
        names = self.names(proven=False)
        found = [Target(worst + name, self.ratios(name, "ours")[-1], NEAR) for name in names]
        seconds = {name: self.seconds(name, "ours") / self.seconds(name, "scikit-learn") for name in names}
        return found + [Target(time + name, ratio, 1.0) for name, ratio in seconds.items()]

    def section(self) -> Section:
        """Return the tables."""
        rows = [self.row(name, system) for name in self.names(proven=False) for system in SYSTEMS]
        bases = dict.fromkeys(name.split()[0] for name in self.names(proven=True))
        proven = [self.proven_row(base, system) for base in bases for system in SYSTEMS]
        head = ("", "", "lowest known", "median / lowest", "worst / lowest", f"within {NEAR}", "seconds")
        proven_head = ("k = 2 to 10", "", "seeds at the minimum, by k", "worst / minimum", "seconds")
        tables = [Table("Inertia over the lowest known", head, tuple(rows))] if rows else []
        tables += [Table("Proven minima, within 1e-6", proven_head, tuple(proven))] if proven else []
        question = (
            "KMeans by default settings against scikit-learn's with n_init=10, one after the other for each seed, on "
            "one core; medians, in seconds of the processor."
        )
        return Section("Quality", question, tuple(tables), tuple(self.targets()))


def write_page(section: Section, page: Path = PAGE) -> None:
    """Put the tables between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    tables = "\n".join(markdown(replace(section, targets=())).splitlines()[4:]).strip()
    page.write_text(
        f"{before}{MARKS[0]}\n\n{tables}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8"
    )


def measured(size: Size) -> Section:
    """How low an inertia is found, and in what time?"""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before scikit-learn counts its threads
    names = [name for name in PROBLEMS if size.wants(name)]
    seeds = range(max(2, int(SEEDS * size.share)))
    found = []
    for name in names:
        try:
            found += list(outcomes(name, seeds, size.share))
        except FileNotFoundError as error:
            sys.stderr.write(f"left out: {error}\n")
    section = Figures(found, size.share).section()
    if size.share == 1 and names == list(PROBLEMS):
        write_page(section)
    return section


if __name__ == "__main__":
    main(measured)
