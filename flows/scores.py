"""A sweep's scores as cells of a table, and a clustering's as lines."""

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


def score_lines(scores: dict[str, Any]) -> dict[str, str]:
    """Return the scores of a clustering by name; those that are not of all rows tell of how many."""
    lines = {
        name: "not defined" if scores[key] is None else _short(scores[key])
        for name, key in (
            ("silhouette", "silhouette"),
            ("simplified silhouette", "simplified_silhouette"),
            ("Davies-Bouldin", "davies_bouldin"),
            ("Calinski-Harabasz", "calinski_harabasz"),
        )
    }
    lines["silhouette"] += f" ({scores['sample_rows']:,} rows)"
    groups = scores.get("groups")
    if groups is not None:
        of = f" ({groups['column']}, {groups['rows']:,} rows)"
        lines["adjusted Rand"] = _short(groups["adjusted_rand"]) + of
        lines["mutual information"] = _short(groups["normalised_mutual_information"]) + of
    return lines


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
