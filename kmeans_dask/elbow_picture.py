"""The elbow picture: a sweep's scores over the number of clusters, as an SVG of a few kilobytes without links."""

import textwrap
from typing import Final
from xml.etree import ElementTree as ET

from kmeans_dask.axes import BAND, FONT, INK, MARK, MUTED, Box, Panel, Series, circle, rect, text
from kmeans_dask.choice import CALINSKI_HARABASZ, DAVIES_BOULDIN, ELBOW, GAP, SILHOUETTE
from kmeans_dask.sweep import Sweep

_WIDTH: Final = 900
_HEIGHT: Final = 860
_COLUMNS: Final = (70, 505)
_LINE_LETTERS: Final = 126


def elbow_svg(sweep: Sweep) -> bytes:
    """Return the picture of a sweep; equal sweeps give equal bytes."""
    picture = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "width": str(_WIDTH),
            "height": str(_HEIGHT), "font-family": FONT, "role": "img",
        },
    )  # fmt: skip
    ET.SubElement(picture, "title").text = f"Choosing the number of clusters: {sweep.choice.why}"
    rect(picture, 0, 0, _WIDTH, _HEIGHT, "white")
    _heading(picture, sweep)
    ks = [score.n_clusters for score in sweep.scores]
    for box, series, n_ticks in zip(_boxes(), _series(sweep), (6, 5, 5, 5, 5), strict=True):
        Panel(picture, box, ks, series, sweep.choice.n_clusters, n_ticks).draw()
    text(picture, _WIDTH / 2, _HEIGHT - 14, "number of clusters k", 12, MUTED, "middle")
    found: bytes = ET.tostring(picture, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _heading(picture: ET.Element, sweep: Sweep) -> None:
    choice = sweep.choice
    elbow = "a clear elbow" if choice.elbow == choice.n_clusters else f"elbow at {choice.elbow}"
    said = elbow if choice.elbow is not None else "no clear elbow"
    text(picture, 28, 38, f"k = {choice.n_clusters}, {said}", 20, INK, weight="bold")
    for i, words in enumerate(textwrap.wrap(choice.why, _LINE_LETTERS, break_on_hyphens=False)[:3]):
        text(picture, 28, 62 + 18 * i, words, 13, MUTED)
    circle(picture, 664, 32, 5.5, MARK)
    text(picture, 675, 36, "this score's choice", 11, MUTED)
    rect(picture, 786, 24, 14, 16, BAND)
    text(picture, 806, 36, "the choice", 11, MUTED)


def _boxes() -> list[Box]:
    first = Box(_COLUMNS[0], 142, 805, 220)
    return [first, *(Box(left, top, 370, 148) for top in (426, 646) for left in _COLUMNS)]


def _series(sweep: Sweep) -> list[Series]:
    scores = sweep.scores

    def taken_by(rule: str) -> int | None:
        return next((score.n_clusters for score in scores if rule in score.chosen_by), None)

    return [
        Series("Distortion", tuple(s.distortion for s in scores), taken_by(ELBOW), from_zero=True),
        Series(
            f"Silhouette of {sweep.sample_rows:,} rows, higher is better",
            tuple(s.silhouette for s in scores),
            taken_by(SILHOUETTE),
        ),
        Series(
            "Gap statistic with error bars",
            tuple(s.gap for s in scores),
            taken_by(GAP),
            tuple(s.gap_error for s in scores),
        ),
        Series(
            "Davies-Bouldin, lower is better",
            tuple(s.davies_bouldin for s in scores),
            taken_by(DAVIES_BOULDIN),
        ),
        Series(
            "Calinski-Harabasz, higher is better",
            tuple(s.calinski_harabasz for s in scores),
            taken_by(CALINSKI_HARABASZ),
        ),
    ]
