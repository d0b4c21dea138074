"""How the clusters of a search are spread, told by a sample of the rows: centroids in, axes and shares out."""

from dataclasses import dataclass

from kmeans_dask import breaths
from kmeans_dask.blocks import Block, Blocks, Floats
from kmeans_dask.packing import block_of_rows
from kmeans_dask.passes import labels_of, scan_of
from kmeans_dask.samples import sampled

_ROWS, _ROWS_EACH, _LEAST_ROWS = (
    4096,
    16,
    64,
)  # of the sample: at most, but so many for each cluster; at least
_NUMBERS = 2**21  # of the sample, at most

Shapes = tuple[Floats, Floats]  # of clusters: see `breaths.axes_of`


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A sample of the rows, the same on any engine."""

    rows: Floats  # (m, d)
    weights: Floats  # (m,)
    block: Block  # of the same rows
    around_means: bool  # since centroids are not the means of their rows

    @classmethod
    def of(cls, blocks: Blocks, n_clusters: int, *, around_means: bool) -> "Spread":
        """Return a sample of blocks."""
        n_rows = min(max(_ROWS, _ROWS_EACH * n_clusters), _NUMBERS // blocks.n_features)
        sample = sampled(blocks, max(_LEAST_ROWS, n_rows), 0)
        return cls(sample.values, sample.weights, block_of_rows(sample.values), around_means)

    def shapes(self, centroids: Floats) -> Shapes:
        """Return the axes, (k, d), and shares, (k,), of the clusters of centroids, (k, d)."""
        labels = labels_of(self.block, centroids, scan_of(centroids, self.block.tiles.dtype))
        centres = centroids
        if self.around_means:
            centres = breaths.means_of(self.rows, self.weights, labels, centroids)
        axes, shares = breaths.axes_of(self.rows, self.weights, labels, centres)
        return axes, shares
