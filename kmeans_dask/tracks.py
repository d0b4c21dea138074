"""Where the centroids of a run are, where they were, and how far they have come: what each of its passes is told."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from kmeans_dask import passes, sums
from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.bounds import Bounds
from kmeans_dask.resume import End, Origin, place_pairs
from kmeans_dask.steps import Step


@dataclass(slots=True)
class Track:
    """The way of a run's centroids, (k, d), over n_rows rows from its start; after an end: see `resume`."""

    run: str
    centroids: Floats
    n_rows: int = 0
    origin: Origin | None = None
    before: Floats | None = None
    name: str = field(init=False)
    name_before: str = ""
    bounds: Bounds = field(init=False)

    def __post_init__(self) -> None:
        self.name = passes.digest(self.centroids, self.origin.end.name if self.origin else "")
        self.bounds = Bounds.of(len(self.centroids), self.n_rows)

    @classmethod
    def after(cls, run: str, start: Floats, n_rows: int, end: End, places: npt.NDArray[np.int32]) -> "Track":
        """Return the track from start centroids, (k, d), among which those of an end, (K, d), have these places, (K,).

        One that is not where it was goes, and is added.
        """
        placed, added, owed = place_pairs(start, end.centroids, places, end.owed)
        origin = Origin(replace(end, owed=owed[:0]), placed, added)  # owed is of no use to a pass
        track = cls(run, start, n_rows, origin)
        if owed.size:
            track.bounds.owed = owed
        return track

    def step(self, blocks: Blocks, *, exact: bool) -> Step:
        """Return the next pass over these blocks."""
        scales = passes.exponents(blocks.summary, self.centroids)
        return Step(
            run=self.run,
            names=(self.name_before, self.name),
            before=self.before,
            centroids=self.centroids,
            scan=passes.scan_of(self.centroids, blocks.dtype),
            thresholds=self.bounds.thresholds,
            drift=self.bounds.drift,
            scales=scales,
            factors=blocks.summary.factors,
            inertia_factor=sums.scale(scales.inertia),
            exact=exact,
            origin=self.origin if self.before is None else None,
        )

    def move(self, centroids: Floats, radii: Floats) -> float:
        """Go on to these centroids; return the sum of the squares of how far each feature of each moved.

        radii: see `Partials`, of the last pass.
        """
        self.bounds, sq_shift = self.bounds.after(self.centroids, centroids, radii)
        self.before, self.centroids = self.centroids, centroids
        self.name_before, self.name = self.name, name_after(self.name, self.bounds, centroids)
        return sq_shift


def name_after(name: str, bounds: Bounds, centroids: Floats) -> str:
    """Return the name of where centroids, (k, d), came from that of where they were.

    Of the way too: what blocks remember holds by how far centroids have moved.
    """
    way = np.append(bounds.thresholds.astype(np.float64), bounds.drift)
    return passes.digest(centroids, passes.digest(way, name))


def end_of(step: Step, owed: Floats) -> End:
    """Return where a run ended whose last pass this was; owed: see `Bounds`."""
    return End(step.run, step.names[1], step.centroids, step.thresholds, step.drift, owed)
