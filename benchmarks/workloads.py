"""The data sets of the speed comparison: rows, a start that every peer is given, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

Rows = npt.NDArray[np.float32]
SHARED = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows by a seed, and how many clusters to look for."""

    name: str
    rows: Callable[[float], Rows]  # a share of the full number of rows, for tests on tiny sizes
    n_clusters: int
    about: str

    def start(self, X: Rows) -> Rows:
        """Return n_clusters distinct rows, (n_clusters, d), in an order that depends on the data alone."""
        rng = np.random.default_rng(1)
        distinct = np.unique(X[rng.permutation(len(X))[: 50 * self.n_clusters + 5000]], axis=0)
        return distinct[rng.permutation(len(distinct))[: self.n_clusters]]


def blobs(n: int, d: int, k: int) -> Callable[[float], Rows]:
    """Return a maker of normal blobs of unit noise around centres of scale 3."""

    def rows(share: float) -> Rows:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(k, d)) * 3
        m = max(int(n * share), 4 * k)
        return (centres[rng.integers(0, k, m)] + rng.normal(size=(m, d))).astype(np.float32)

    return rows


def noise(n: int, d: int) -> Callable[[float], Rows]:
    """Return a maker of uniform rows."""
    return lambda share: np.random.default_rng(0).random((max(int(n * share), 1000), d)).astype(np.float32)


def pixels(share: float) -> Rows:
    """Return the pixels of scikit-learn's sample image china.jpg (CC BY 2.0), 273,280 x 3."""
    from sklearn.datasets import load_sample_image

    return _some(load_sample_image("china.jpg").reshape(-1, 3).astype(np.float32), share)


def intrusions(share: float) -> Rows:
    """Return 38 numeric columns of KDD Cup 1999's 10% sample, in standard deviations; from the shared data sets."""
    table = pq.read_table(SHARED / "kdd99_10pct.parquet")
    names = [field.name for field in table.schema if str(field.type) == "double"]
    X = np.column_stack([table[name].to_numpy() for name in names])
    spread = X.std(axis=0)
    spread[spread == 0] = 1
    return _some(((X - X.mean(axis=0)) / spread).astype(np.float32), share)


def _some(X: Rows, share: float) -> Rows:
    return (
        X if share == 1 else X[np.random.default_rng(0).permutation(len(X))[: max(int(len(X) * share), 2000)]]
    )


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", blobs(1_000_000, 2, 8), 8, "1,000,000 x 2, blobs"),
        Workload("W2", blobs(1_000_000, 16, 16), 16, "1,000,000 x 16, blobs"),
        Workload("W3", blobs(500_000, 32, 100), 100, "500,000 x 32, blobs"),
        Workload("W4", noise(500_000, 16), 64, "500,000 x 16, uniform noise"),
        Workload("W5", blobs(200_000, 128, 256), 256, "200,000 x 128, blobs"),
        Workload("W6", blobs(1_000_000, 16, 1000), 1000, "1,000,000 x 16, blobs"),
        Workload("W7", pixels, 64, "273,280 x 3, pixels of a photograph"),
        Workload("W8", intrusions, 23, "494,021 x 38, network connections"),
        Workload("W9", blobs(2_000, 20_000, 10), 10, "2,000 x 20,000, wide blobs"),
    )
}
