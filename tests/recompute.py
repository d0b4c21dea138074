"""What a run's files say, computed again from the source by plain pyarrow and numpy: imports nothing of ours."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def recomputed(output: Path, sources: list[Path]) -> dict[str, float | int | bool]:
    """Return what can be checked of the run that the output's pointer names.

    inertia: of the raw rows scaled as the manifest's job says, to the centroids in `centroids.parquet`, under the
    labels in `labels/`. from_distances: the sum of the squared distance column. nearest: rows whose label is not the
    nearest centroid by more than rounding.
    """
    run = output / "runs" / json.loads((output / "_LATEST.json").read_text())["run_id"]
    manifest = json.loads((run / "manifest.json").read_text())
    centroids = pq.read_table(run / "centroids.parquet")
    features = centroids.column_names[2:]
    labels = pa.concat_tables([pq.read_table(run / part["path"]) for part in manifest["parts"]])
    rows = pa.concat_tables([pq.read_table(source, columns=features) for source in sources])
    X = np.column_stack([rows[name].to_numpy().astype(np.float64) for name in features])
    C = np.column_stack([centroids[name].to_numpy() for name in features])
    cluster = labels["cluster"].to_numpy(zero_copy_only=False)
    kept = ~np.isnan(X).any(axis=1)
    if manifest["job"]["prepare"]["scale"] == "standard":
        spread = X[kept].std(axis=0)
        spread[spread == 0] = np.inf
        X, C = X / spread, C / spread
    assigned = np.searchsorted(centroids["cluster"].to_numpy(), cluster[kept].astype(np.int64))
    own = ((X[kept] - C[assigned]) ** 2).sum(axis=1)
    distance = labels["distance"].to_numpy(zero_copy_only=False)[kept].astype(np.float64)
    return {
        "rows": labels.num_rows,
        "source_rows": rows.num_rows,
        "nulls_where_nulls": bool((np.isnan(cluster.astype(np.float64)) == ~kept).all()),
        "inertia": float(own.sum()),
        "from_distances": float((distance**2).sum()),
        "stated": manifest["result"]["inertia"],
        "mislabelled": _mislabelled(X[kept], C, own),
        "sizes_agree": bool((np.bincount(assigned, minlength=len(C)) == centroids["size"].to_numpy()).all()),
    }


def _mislabelled(X: np.ndarray, C: np.ndarray, own: np.ndarray) -> int:
    """Count rows with a centroid clearly nearer than their own: by more than 1e-5 of the squared distances at hand."""
    wrong = 0
    norms = (C**2).sum(axis=1)
    for start in range(0, len(X), 10_000):
        some = slice(start, start + 10_000)
        squares = (X[some] ** 2).sum(axis=1)
        best = (norms - 2 * X[some] @ C.T).min(axis=1) + squares
        wrong += int((own[some] > best + 1e-5 * (squares + norms.max())).sum())
    return wrong
