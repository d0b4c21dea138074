"""The gap statistic: how much better rows cluster than rows spread evenly (Tibshirani, Walther and Hastie 2001).

It compares a sample of the rows with reference sets of as many rows, uniform over the sample's box, drawn by a seed
and clustered in this process: the same bits on any engine.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kmeans_dask import randoms, seeding
from kmeans_dask.blocks import Floats
from kmeans_dask.lloyd import FREE, Identity, Limits, Motion, lloyd, unit_centroids
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.packing import block_of_rows
from kmeans_dask.samples import Sample

REFERENCES = 10
_FLOOR = 2.0**-40  # of the largest distortion: less counts as none
_MAX_ITER = 100
_STARTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """values, errors: (n_k,) gap and its error s_k; bends: (n_k,), NaN where not defined; see `gaps`.

    at_one: the gap of a single cluster. noise: the largest bend of a reference set against all others.
    """

    values: Floats
    errors: Floats
    bends: Floats
    at_one: float
    noise: float


def reference_runs(n_ks: int) -> int:
    """Return how often rows of reference sets are clustered for n_ks numbers of clusters."""
    return REFERENCES * _STARTS * (1 + n_ks)


def distortions(sample: Sample, starts: Sequence[Floats], motion: Motion = FREE) -> Floats:
    """Return the sample's distortion with one cluster, and from each start's centroids on, (1 + n_k,)."""
    values, weights = sample.values, sample.weights
    return _distortions(values, weights, [values[:1], *starts], Motion(motion.unit))


def reference(sample: Sample, ks: Sequence[int], seed: int, index: int, motion: Motion = FREE) -> Floats:
    """Return a reference set's distortion with one cluster, and with each of ks, (1 + n_k,)."""
    m = len(sample.values)
    lowest, highest = sample.values.min(axis=0), sample.values.max(axis=0)
    own_seed = randoms.derived(seed, "reference", index) >> 1
    columns = [
        randoms.uniforms(randoms.derived(own_seed, "feature", f), np.arange(m)) for f in range(len(lowest))
    ]
    values = lowest + np.column_stack(columns) * (highest - lowest)
    if motion.unit:
        values = unit_centroids(values)
    starts = _starts(values, [1, *ks], own_seed)
    found = _distortions(values, np.ones(m), starts, Motion(motion.unit))
    lowest_of_each: Floats = found.reshape(_STARTS, 1 + len(ks)).min(axis=0)
    return lowest_of_each


def _starts(values: Floats, ks: Sequence[int], seed: int) -> list[Floats]:
    """Return starts by k-means++, whose first rows for many clusters serve for fewer: all ks, then all again."""
    with LocalBlocks([block_of_rows(values)], n_threads=1) as blocks:
        seeds = [randoms.derived(seed, "start", i) >> 1 for i in range(_STARTS)]
        pools = [seeding.Pool(seeding.plus_plus(blocks, max(ks), own, n_draws=1), None) for own in seeds]
    return [pool.start(k) for pool in pools for k in ks]


def _distortions(values: Floats, weights: Floats, starts: Sequence[Floats], motion: Motion) -> Floats:
    with LocalBlocks([block_of_rows(values, weights)], n_threads=1) as blocks:

        def distortion(i: int) -> float:
            start = unit_centroids(starts[i]) if motion.unit else starts[i]
            return lloyd(blocks, start, Limits(_MAX_ITER), Identity(i), motion=motion).distortion

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
            return np.array(list(workers.map(distortion, range(len(starts)))))


def gaps(ks: Sequence[int], of_sample: Floats, of_references: Floats) -> Gaps:
    """Return the gap statistic of increasing ks, from distortions (1 + n_k,) and (n_references, 1 + n_k).

    The bend at k is by how much the gap rises more before k than after, per cluster: the difference of differences of
    Yan and Ye (Biometrics 63, 2007). noise is the largest bend of a reference set against all others.
    """
    tried = [1, *ks] if ks[0] > 1 else ks
    own = _logs(of_sample)[-len(tried) :]
    even = np.stack([_logs(line)[-len(tried) :] for line in of_references])
    n = len(even)
    mean = np.cumsum(even, axis=0)[-1] / n
    squares = np.cumsum((even - mean) ** 2, axis=0)[-1]
    values, errors = mean - own, np.sqrt(squares / n) * math.sqrt(1 + 1 / n)
    others = (mean - even) * (n / (n - 1))  # each against the mean of the others
    noise = max(float(_bends(tried, line)[1:-1].max(initial=0.0)) for line in others)
    bends, shown = _bends(tried, values), slice(-len(ks), None)
    return Gaps(values[shown], errors[shown], bends[shown], float(values[0]), noise)


def _logs(distortions: Floats) -> Floats:
    """Return logarithms; a distortion of nothing, up to rounding, is a small share of the largest."""
    highest = float(distortions.max())
    if highest == 0:
        return np.zeros(len(distortions))
    return np.array([math.log(max(value, highest * _FLOOR)) for value in distortions.tolist()])


def _bends(ks: Sequence[int], gap: Floats) -> Floats:
    slopes = np.diff(gap) / np.diff(ks)
    bends: Floats = np.full(len(gap), np.nan)
    bends[1:-1] = slopes[:-1] - slopes[1:]
    return bends
