"""What the ways of scanning rows cost, in ns, about: they decide which is taken, never what is found."""

from kmeans_dask.kernels import borrowing
from kmeans_dask.scans import FEW
from kmeans_dask.tiles import TILE

RIVALS_WHOLE, RIVALS_FEW, ALL_WHOLE, ALL_LATER, GROUPED = range(5)
_SURE = 0.75  # of the time without groups, from which they are taken: not all rows can be scanned in groups


@borrowing()
def cost_of_gathering(d4):  # type: ignore[no-untyped-def]
    """Return what it costs to gather a row; much of it waits for memory."""
    return 8.0 + 1.3 * d4


@borrowing()
def cost_of_scan(d4, k):  # type: ignore[no-untyped-def]
    """Return what a row of a tile costs to scan against k centroids."""
    return 7.0 + (0.1 + 0.025 * d4) * k


@borrowing()
def cost_of_rivals(d4, k):  # type: ignore[no-untyped-def]
    """Return what it costs to look for the rivals of a tile."""
    return (6.0 + 0.22 * d4) * k


@borrowing()
def cost_in_groups(d4, k):  # type: ignore[no-untyped-def]
    """Return what a row costs in a group."""
    return 60.0 + 1.5 * cost_of_gathering(d4) + 0.3 * cost_of_scan(d4, k)


@borrowing()
def groups_pay_off(d4, k):  # type: ignore[no-untyped-def]
    """Whether groups are worth their time where many centroids are in question."""
    return cost_in_groups(d4, k) < _SURE * (cost_of_gathering(d4) + cost_of_scan(d4, k))


@borrowing()
def way_of(n, count, k, d4, fresh, grouping):  # type: ignore[no-untyped-def]
    """Return the way to scan `count` rows of a tile that costs least, n being its rivals, or 0 where they are too many.

    All its rows against the rivals or all centroids; those rows, gathered, against the rivals, or against all of them
    later, in tiles shared with others' rows; or in groups, see `grouping`. When fresh, all rows are scanned at once.
    """
    gathered = count * cost_of_gathering(d4)
    least, way = TILE * cost_of_scan(d4, k), ALL_WHOLE
    if n > 0:
        narrowed = (4.0 + 0.05 * d4) * n
        cost = narrowed + TILE * cost_of_scan(d4, n)
        if cost < least:
            least, way = cost, RIVALS_WHOLE
        few = -(-count // FEW) * (250.0 + 25.0 * min(d4, 128) + (4.0 + 1.25 * d4) * n)
        if not fresh and narrowed + few + gathered < least:
            least, way = narrowed + few + gathered, RIVALS_FEW
    if not fresh and gathered + count * cost_of_scan(d4, k) < least:
        least, way = gathered + count * cost_of_scan(d4, k), ALL_LATER
    if grouping and count * cost_in_groups(d4, k) < least:
        way = GROUPED
    return way
