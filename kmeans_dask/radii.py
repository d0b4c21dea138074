"""How far the rows of each cluster are from its centroid, at most: what a pass has found of them, brought together.

Rows that a pass does not look at keep the bound that they had, widened first by how far their centroid has moved
(`bounds.widen`). Where it has scanned rows of a cluster and left out none, but for those of tiles with an owner, the
bound becomes what it has found of these rows, and how far the balls of those tiles reach. No distance is NaN.
found = (distances (k,): of the rows that were looked at, the largest; counts (2, k) int64: of scanned rows, and of the
rows of tiles that have an owner).
"""

from kmeans_dask.kernels import borrowing
from kmeans_dask.ledgers import count_copies
from kmeans_dask.rivals import apart, reach_of
from kmeans_dask.tiles import TILE


@borrowing()
def count_owned(owners, n_rows, copies, found):  # type: ignore[no-untyped-def]
    """Count the rows of the tiles of a block that have an owner."""
    for t in range(owners.shape[0]):
        if owners[t] >= 0:
            first = t * TILE
            found[1][1, owners[t]] += count_copies(copies, first, min(first + TILE, n_rows))


@borrowing()
def note_rows(found, copies, places, rows_found):  # type: ignore[no-untyped-def]
    """Note how far scanned rows are, and how many they are."""
    distances, counts = found
    labels, far = rows_found[0], rows_found[2]
    n = places.shape[0]
    for r in range(n):
        label = labels[r]
        counts[0, label] += copies[places[r]] if copies.shape[0] > 0 else 1
        if not far[r] <= distances[label]:
            distances[label] = far[r]


@borrowing()
def narrow_radii(radii, found, n_rows, whole):  # type: ignore[no-untyped-def]
    """Bring radii, (k,), from the pass before to this one, in place; return whether to go on with `reach_tiles`.

    n_rows (k,): of each cluster. whole (k,): out, the clusters of which all is known but for tiles that have an owner;
    not those of which no row was scanned, as all of their tiles would have to be asked.
    """
    distances, counts = found
    with_tiles = False
    for j in range(radii.shape[0]):
        whole[j] = counts[0, j] > 0 and counts[0, j] + counts[1, j] == n_rows[j]
        if whole[j] or not distances[j] <= radii[j]:
            radii[j] = distances[j]
        with_tiles = with_tiles or (whole[j] and counts[1, j] > 0)
    return with_tiles


@borrowing()
def reach_tiles(radii, whole, owners, balls, centroids):  # type: ignore[no-untyped-def]
    """Widen the radii of whole clusters, after `narrow_radii`, in place, to the tiles of a block that they own."""
    for t in range(owners.shape[0]):
        owner = owners[t]
        if owner < 0 or not whole[owner]:
            continue
        away = apart(balls[0][t], centroids[owner])
        reach = reach_of(away * away, balls[1][t])
        if not reach <= radii[owner]:
            radii[owner] = reach
