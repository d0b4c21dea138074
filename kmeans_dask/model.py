"""A fitted model: a frozen value, and its two files as bytes.

`model.json` holds everything but the centroids, which `model.parquet` holds as bits. Neither holds times, run ids or
names of workers, so that equal data and configuration give equal bytes.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.arrow import arrow_of, numpy_of
from kmeans_dask.blocks import Floats
from kmeans_dask.errors import ModelError
from kmeans_dask.lloyd import Fit
from kmeans_dask.packing import Preparation

FORMAT = "kmeans-dask-model"
VERSION = 1
JSON_NAME, PARQUET_NAME = "model.json", "model.parquet"
_ARRAYS = ("shift", "center", "scale", "fill")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "inertia": (float, int), "distortion": (float, int), "n_iter": int, "breaths": int, "restart": int, "seed": int,
    "stop": str, "init": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Iteration:
    """One pass of the winning run: the inertia and distortion under the centroids before the update."""

    iteration: int
    inertia: float
    distortion: float
    changed: int


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Centroids and how they came to be.

    centroids: (n_clusters, n_features) float64 in the prepared space; row i is the cluster named cluster_ids[i].
    sizes: rows of each cluster in the fit. inertia: weighted sum of squared distances, prepared space.
    distortion: inertia / total weight. stop: "converged", "tol", "max_iter", "max_seconds" or "stopped".
    breaths: trials of the search that refined the run; their iterations count in n_iter, and are not in the history.
    """

    centroids: Floats
    cluster_ids: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    inertia: float
    distortion: float
    n_iter: int
    stop: str
    restart: int
    seed: int
    init: str
    history: tuple[Iteration, ...]
    preparation: Preparation
    breaths: int = 0

    @property
    def n_clusters(self) -> int:
        """The number of centroids."""
        return len(self.centroids)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features, in the order of the columns of `centroids`."""
        return self.preparation.feature_names

    def centroids_in_units(self) -> Floats:
        """Return the centroids in the user's own units, (n_clusters, n_features)."""
        return self.preparation.in_units(self.centroids)


def model_of(fit: Fit, preparation: Preparation, init: str) -> Model:
    """Return the model of a finished run, its clusters named 0 to k - 1."""
    history = tuple(Iteration(p.iteration, p.inertia, p.distortion, p.changed) for p in fit.history)
    return Model(
        fit.centroids, np.arange(len(fit.centroids), dtype=np.int32), np.array(fit.sizes, np.int64), fit.inertia,
        fit.distortion, fit.n_iter, fit.stop, fit.restart, fit.seed, init, history, preparation, fit.breaths,
    )  # fmt: skip


def to_bytes(model: Model) -> dict[str, bytes]:
    """Return the contents of model.json and model.parquet by file name."""
    document = {
        "format": FORMAT, "version": VERSION, "n_clusters": model.n_clusters, "init": model.init,
        "restart": model.restart, "seed": model.seed, "inertia": model.inertia, "distortion": model.distortion,
        "n_iter": model.n_iter, "stop": model.stop, "breaths": model.breaths,
        "preparation": _preparation_document(model.preparation),
        "history": [asdict(iteration) for iteration in model.history],
    }  # fmt: skip
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    columns = {"cluster": arrow_of(model.cluster_ids), "size": arrow_of(model.sizes)}
    features = [arrow_of(column) for column in model.centroids.T]
    table = pa.table([*columns.values(), *features], names=[*columns, *model.feature_names])
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
    return {JSON_NAME: text.encode(), PARQUET_NAME: sink.getvalue()}


def _preparation_document(preparation: Preparation) -> dict[str, Any]:
    features = zip(
        preparation.feature_names, *(getattr(preparation, name).tolist() for name in _ARRAYS), strict=True
    )
    return {
        "dtype": preparation.dtype, "nulls": preparation.nulls, "scaling": preparation.scaling,
        "metric": preparation.metric,
        "features": [dict(zip(("name", *_ARRAYS), feature, strict=True)) for feature in features],
    }  # fmt: skip


def from_bytes(json_bytes: bytes, parquet_bytes: bytes, where: str = "the model") -> Model:
    """Return the model of the two files' contents; ModelError, naming `where`, if they are not one of this version."""
    document = _document(json_bytes, where)
    try:
        table = pq.read_table(io.BytesIO(parquet_bytes), page_checksum_verification=True)
        preparation = _preparation(document["preparation"])
        centroids = np.column_stack([numpy_of(table[name]) for name in preparation.feature_names])
        history = tuple(Iteration(**iteration) for iteration in document["history"])
        model = Model(
            np.ascontiguousarray(centroids), numpy_of(table["cluster"]), numpy_of(table["size"]),
            document["inertia"], document["distortion"], document["n_iter"], document["stop"], document["restart"],
            document["seed"], document["init"], history, preparation, document.get("breaths", 0),
        )  # fmt: skip
        _check(model)
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{where}: the model's files are damaged ({error}). Fit the model again.") from error
    if len(model.centroids) != document.get("n_clusters"):
        raise ModelError(f"{where}: {PARQUET_NAME} does not belong to {JSON_NAME}. Fit the model again.")
    return model


def _check(model: Model) -> None:
    """Refuse values of other kinds than `to_bytes` writes."""
    for name, kind in _KINDS.items():
        if not isinstance(getattr(model, name), kind):
            raise TypeError(f"{name} is {getattr(model, name)!r}")
    if model.preparation.dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {model.preparation.dtype!r}")
    if model.preparation.metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric is {model.preparation.metric!r}")
    arrays = [model.centroids, *(getattr(model.preparation, name) for name in _ARRAYS)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("some numbers are not finite")


def _document(json_bytes: bytes, where: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(json_bytes)
    except ValueError as error:
        raise ModelError(f"{where}: {JSON_NAME} is not JSON ({error}). Fit the model again.") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ModelError(f"{where}: format {found!r} is not {FORMAT!r}. Name a model that kmeans-dask wrote.")
    if document.get("version") != VERSION:
        raise ModelError(
            f"{where}: model version {document.get('version')!r}; this kmeans-dask reads version {VERSION}. "
            "Fit the model again, or use the release that wrote it."
        )
    return dict(document)


def _preparation(document: dict[str, Any]) -> Preparation:
    features: Sequence[dict[str, Any]] = document["features"]
    shift, center, scale, fill = (np.array([f[name] for f in features], np.float64) for name in _ARRAYS)
    names = tuple(f["name"] for f in features)
    return Preparation(
        names, document["dtype"], shift, center, scale, fill, document["nulls"], document["scaling"],
        document["metric"],
    )  # fmt: skip
