"""How the clusters of a search are spread, told by a sample of the rows: centroids in, axes and shares out."""

from dataclasses import dataclass

from kmeans_dask import breaths
from kmeans_dask.blocks import Block, Blocks, Floats, block_of_rows
from kmeans_dask.passes import labels_of, scan_of
from kmeans_dask.samples import sampled

_MOST_ROWS, _LEAST_ROWS = 4096, 64
_NUMBERS = 2**18  # of the sample, between the two

Shapes = tuple[Floats, Floats]  # of clusters: see `breaths.axes_of`


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A sample of the rows, the same on any engine."""

    rows: Floats  # (m, d)
    weights: Floats  # (m,)
    block: Block  # of the same rows

    @classmethod
    def of(cls, blocks: Blocks) -> "Spread":
        """Return a sample of blocks."""
        n_rows = min(_MOST_ROWS, max(_LEAST_ROWS, _NUMBERS // blocks.n_features))
        sample = sampled(blocks, n_rows, 0)
        return cls(sample.values, sample.weights, block_of_rows(sample.values))

    def shapes(self, centroids: Floats) -> Shapes:
        """Return the axes, (k, d), and shares, (k,), of the clusters of centroids, (k, d)."""
        labels = labels_of(self.block, centroids, scan_of(centroids, self.block.tiles.dtype))
        axes, shares = breaths.axes_of(self.rows, self.weights, labels, centroids)
        return axes, shares
