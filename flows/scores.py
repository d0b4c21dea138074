"""A sweep's scores as cells of a table."""

from typing import Any


def sweep_cells(sweep: dict[str, Any]) -> list[list[str]]:
    """Return the scores of a sweep as cells, the names of the columns first."""
    names = ["k", "distortion", "silhouette", "Davies-Bouldin", "Calinski-Harabasz", "gap", "±", "chosen by"]
    keys = ("distortion", "silhouette", "davies_bouldin", "calinski_harabasz", "gap", "gap_error")
    return [
        names,
        *(
            [str(score["n_clusters"]), *(_short(score[key]) for key in keys), ", ".join(score["chosen_by"])]
            for score in sweep["scores"]
        ),
    ]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
