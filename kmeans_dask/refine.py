"""A search that moves centroids from where they are useless to where they are missing.

Breathing k-means (B. Fritzke, The breathing k-means algorithm, 2020): insert some centroids, run Lloyd's algorithm,
remove as many, run it again, keep the result if it is better. What a centroid is worth is what merging its cluster
would cost, and a run that will hardly become better is given up. Decisions rest on exact sums and on draws by the seed,
so the bits are the same wherever the rows lie.
"""

import logging
import time
from dataclasses import replace

from kmeans_dask.blocks import Blocks, Floats
from kmeans_dask.lloyd import Fit, Hook, Identity, Limits, Motion, Progress, Stop, evaluated, lloyd
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import block_of_rows
from kmeans_dask.samples import sampled
from kmeans_dask.search import Search

logger = logging.getLogger(__name__)

FEW = 2**20  # rows * clusters * features up to which the rows are searched in one place
_ENOUGH: tuple[Stop, ...] = ("converged", "tol")


def refined(blocks: Blocks, fit: Fit, limits: Limits, identity: Identity, hook: Hook, motion: Motion) -> Fit:
    """Return a fit of lower inertia than a finished run's, or that one; a run that met a limit is left as it is.

    The hook sees each iteration, in trials with the lowest inertia so far, and over one block several at once; n_iter
    counts those of all runs, the history holds those of the first and of the last one.
    """
    k = len(fit.centroids)
    if len(motion.frozen) == k or k < 2 or fit.inertia == 0 or fit.stop not in _ENOUGH:
        return fit
    began = time.monotonic()
    search = Search.after(fit, limits, identity, hook, motion)
    last = _ended(blocks, fit, search, _searched(blocks, search))
    logger.debug(
        "restart %d: refined from distortion %.6g to %.6g in %d breaths, %d iterations, %.3f s",
        identity.restart, fit.distortion, last.distortion, search.breaths, last.n_iter - fit.n_iter,
        time.monotonic() - began,
    )  # fmt: skip
    found = last if last.inertia < fit.inertia else replace(fit, n_iter=last.n_iter, stop=last.stop)
    return replace(found, breaths=search.breaths)


def _searched(blocks: Blocks, search: Search) -> Floats:
    """Return the best centroids of a search, where the rows are or, of few, here."""
    n_rows = blocks.summary.n_samples
    if n_rows * search.start.size > FEW:
        return search.by_passes(blocks)
    rows = sampled(blocks, n_rows, 0)  # all of positive weight
    if search.motion.unit or search.motion.frozen or (rows.weights != 1).any():
        with LocalBlocks([block_of_rows(rows.values, rows.weights)], n_threads=1) as one:
            return search.by_passes(one, few=True)
    return search.at_once(rows.values, blocks.summary)


def _ended(blocks: Blocks, fit: Fit, search: Search, centroids: Floats) -> Fit:
    """Return the run from the best centroids to its end, or those as they are where the search was ended."""
    if centroids is search.start:
        return replace(fit, n_iter=search.n_iter, stop=search.stop or fit.stop)
    if search.stop:
        value = evaluated(blocks, centroids)
        return replace(
            fit, centroids=centroids, sizes=value.sizes, inertia=value.inertia, distortion=value.distortion,
            weights=value.weights, n_iter=search.n_iter, stop=search.stop,
        )  # fmt: skip

    def shown(progress: Progress) -> bool | None:
        return search.hook(replace(progress, iteration=search.n_iter + progress.iteration))

    last = lloyd(blocks, centroids, search.limits, search.identity, shown, search.motion)
    history = tuple(replace(p, iteration=search.n_iter + p.iteration) for p in last.history)
    return replace(last, history=fit.history + history, n_iter=search.n_iter + last.n_iter)
