"""What a scan has found of rows, noted: their labels and slack, the sums of their clusters, and how far these reach.

state = (labels, slack, owners, gaps, found): see `pruning.relabel_rows`; ledger: see `ledgers`.
"""

import numpy as np

from kmeans_dask.kernels import borrowing
from kmeans_dask.ledgers import count_copies, move_rows, move_tile
from kmeans_dask.radii import note_rows


@borrowing()
def lowered(reached, rounded):  # type: ignore[no-untyped-def]
    """Return a slack less what rounding can do to it in float32, of which the last term covers the smallest numbers.

    rounded: at least the magnitudes of what it was made of.
    """
    return reached - rounded * 2.0**-21 - 2.0**-140


@borrowing()
def begin_rows(ledger, lanes, places, t, tile_sums, state, rows_found):  # type: ignore[no-untyped-def]
    """Note the first labels and slack of a tile's rows, and add the rows to the sums."""
    labels, slack, owners, gaps = state[:4]
    first, n = places[0], places.shape[0]
    most, n_most = rows_found[0][n // 2], 0
    for r in range(n):
        n_most += rows_found[0][r] == most
    whole = 2 * n_most > n  # all go to one cluster first, so that only the others have to be moved
    if whole:
        move_tile(t, tile_sums, ledger[2], count_copies(ledger[4], first, first + n), -1, most)
    which, old, new = ledger[3][:3]
    count = 0
    for r in range(n):
        label = rows_found[0][r]
        slack[first + r], labels[first + r] = rows_found[1][r], label
        which[count], old[count], new[count] = r, most if whole else -1, label
        count += not (whole and label == most)
    if count > 0:  # a call costs as much as three rows
        move_rows(ledger, lanes, places, count)
    note_rows(state[4], ledger[4], places, rows_found)
    owners[t], gaps[t] = -1, -np.inf


@borrowing(inline="always")
def count_moves(ledger, places, m):  # type: ignore[no-untyped-def]
    """Return how many rows the first m moves are of."""
    which, copies = ledger[3][0], ledger[4]
    if copies.shape[0] == 0:
        return m
    n = 0
    for i in range(m):
        n += copies[places[which[i]]]
    return n


@borrowing()
def keep_rows(ledger, lanes, state, rows_found, places):  # type: ignore[no-untyped-def]
    """Note the labels and slack of scanned rows, and move those whose label changed; return how many did."""
    labels, slack = state[0], state[1]
    which, old, new = ledger[3][:3]
    changed = 0
    for r in range(places.shape[0]):
        at, label = places[r], rows_found[0][r]
        slack[at] = rows_found[1][r]
        which[changed], old[changed], new[changed] = r, labels[at], label
        changed += labels[at] != label
        labels[at] = label
    note_rows(state[4], ledger[4], places, rows_found)
    if changed == 0:
        return 0
    move_rows(ledger, lanes, places, changed)
    return count_moves(ledger, places, changed)


@borrowing()
def own(ledger, lanes, places, t, label, lead, farthest, tile_sums, step, state):  # type: ignore[no-untyped-def]
    """Give a whole tile to one centroid, nearer by `lead` than any other; return how many labels changed.

    farthest: how far its rows are from that centroid, at most.
    """
    labels, _, owners, gaps, (distances, _) = state
    if not farthest <= distances[label]:
        distances[label] = farthest
    first, stop = places[0], places[0] + places.shape[0]
    old = np.int32(-1) if step[2] else owners[t]
    threshold = np.float64(step[0][label])
    reached = threshold + lead
    owners[t], gaps[t] = label, lowered(reached, reached + threshold)
    if old == label:
        return 0
    if step[2] or old >= 0:
        n = count_copies(ledger[4], first, stop)
        move_tile(t, tile_sums, ledger[2], n, old, label)
        labels[first:stop] = label
        return n
    which, olds, news = ledger[3][:3]
    changed = 0
    for r in range(stop - first):
        which[changed], olds[changed], news[changed] = r, labels[first + r], label
        changed += labels[first + r] != label
    if changed > 0:
        move_rows(ledger, lanes, places, changed)
    labels[first:stop] = label
    return count_moves(ledger, places, changed)
