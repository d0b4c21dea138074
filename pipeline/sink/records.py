"""What the steps of a job hand to the commit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A label file as written; `path` is relative to the run, `source_file` an index into its sources."""

    path: str
    source_file: int
    first_row: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A source file as it was planned and, since every read compares, as it was read."""

    uri: str
    size: int
    tag: str
    rows: int


@dataclass(frozen=True, slots=True)
class CentroidTable:
    """One row per cluster: `centroids` is (k, d) float64 in the user's own units."""

    feature_names: tuple[str, ...]
    cluster_ids: NDArray[np.int32]
    sizes: NDArray[np.int64]
    centroids: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """One row per cluster, (k,), as `kmeans_dask.metrics` measures them; distance_quantiles are (k, q)."""

    cluster_ids: NDArray[np.int32]
    sizes: NDArray[np.int64]
    weights: NDArray[np.float64]
    spreads: NDArray[np.float64]
    silhouettes: NDArray[np.float64]
    quantiles: tuple[float, ...]
    distance_quantiles: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RestartRow:
    """One iteration of one restart."""

    n_clusters: int
    restart: int
    seed: int
    iteration: int
    inertia: float
    distortion: float
    changed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything a commit writes beside the parts, which are there already.

    `job` and `result` are JSON-ready and hold no secrets; `model_files` and `score_files` map names to bytes;
    `conditional_put` is what `probe` said of the output.
    """

    run_id: str
    conditional_put: bool
    job: Mapping[str, Any]
    sources: tuple[SourceRecord, ...]
    parts: tuple[PartRecord, ...]
    centroids: CentroidTable
    model_files: Mapping[str, bytes]
    restarts: tuple[RestartRow, ...]
    result: Mapping[str, Any]
    score_files: Mapping[str, bytes] = field(default_factory=dict)
    workers_lost: int = 0
