"""K-means as the textbook has it: plain numpy, for reading and teaching.

X holds one sample in each row, (m, n); centroids are (K, n); `idx` holds each sample's cluster, (m,), from 0.
The engine computes the same labels and, up to rounding, the same means, on data of any size.

    >>> X = [[0, 0], [0.5, 0], [0.5, 1], [1, 1]]
    >>> centroids, idx = run_kmeans(X, initial_centroids=[[0, 0], [1, 1]], max_iters=10)
    >>> idx
    array([0, 0, 1, 1])
    >>> centroids
    array([[0.25, 0.  ],
           [0.75, 1.  ]])
    >>> distortion(X, idx, centroids)
    0.0625
"""

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kmeans_dask.errors import ConfigError, DataError, TooFewSamplesError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def find_closest_centroids(X: ArrayLike, centroids: ArrayLike) -> IntArray:
    """Return the index of each sample's nearest centroid by L2 norm, (m,); the lowest index wins a tie."""
    samples, means = _samples_and_centroids(X, centroids)
    sq_distances = np.zeros((len(samples), len(means)))
    for feature in range(samples.shape[1]):  # one by one: np.sum's order of additions would break exact ties
        sq_distances += (samples[:, feature, None] - means[:, feature]) ** 2
    nearest: IntArray = np.argmin(sq_distances, axis=1)
    return nearest


def compute_centroids(X: ArrayLike, idx: ArrayLike, K: int) -> FloatArray:
    """Return the mean of each cluster's samples, (K, n).

    Raises DataError where a cluster is empty: its mean does not exist.
    """
    samples = _matrix("X", X)
    _check_count("K", K, lowest=1)
    labels = _labels(idx, len(samples), K)
    sizes = np.bincount(labels, minlength=K)
    if not sizes.all():
        raise DataError(
            f"compute_centroids: cluster {np.argmin(sizes)} of K={K} has no samples, so it has no mean. "
            "Lower K or start from other centroids."
        )
    return np.stack([samples[labels == k].mean(axis=0) for k in range(K)])


def kmeans_init_centroids(X: ArrayLike, K: int, seed: int) -> FloatArray:
    """Return K random samples that differ from one another, (K, n); the same seed gives the same samples."""
    samples = _matrix("X", X)
    _check_count("K", K, lowest=1)
    shuffled = np.random.default_rng(seed).permutation(samples)
    _, first = np.unique(shuffled, axis=0, return_index=True)
    if len(first) < K:
        raise TooFewSamplesError(
            f"K={K} needs at least {K} distinct rows; X holds {len(first)} among {len(samples)}. Lower K."
        )
    return shuffled[np.sort(first)[:K]]


@overload
def run_kmeans(
    X: ArrayLike, initial_centroids: ArrayLike, max_iters: int, return_path: Literal[False] = False
) -> tuple[FloatArray, IntArray]: ...
@overload
def run_kmeans(
    X: ArrayLike, initial_centroids: ArrayLike, max_iters: int, return_path: Literal[True]
) -> tuple[FloatArray, IntArray, FloatArray]: ...
def run_kmeans(
    X: ArrayLike, initial_centroids: ArrayLike, max_iters: int, return_path: bool = False
) -> tuple[FloatArray, IntArray] | tuple[FloatArray, IntArray, FloatArray]:
    """Return (centroids, idx) once no assignment changes, or after `max_iters` moves of the centroids.

    `idx` always belongs to the returned centroids. A third array, with `return_path`, holds the centroids
    before the first move and after each, (moves + 1, K, n).
    """
    _check_count("max_iters", max_iters, lowest=0)
    samples, centroids = _samples_and_centroids(X, initial_centroids)
    idx = find_closest_centroids(samples, centroids)
    path = [centroids]
    for _ in range(max_iters):
        centroids = compute_centroids(samples, idx, len(centroids))
        path.append(centroids)
        previous, idx = idx, find_closest_centroids(samples, centroids)
        if np.array_equal(idx, previous):
            break
    return (centroids, idx, np.stack(path)) if return_path else (centroids, idx)


def distortion(X: ArrayLike, idx: ArrayLike, centroids: ArrayLike) -> float:
    """Return the cost function: the mean squared distance of the samples to their centroids."""
    samples, means = _samples_and_centroids(X, centroids)
    labels = _labels(idx, len(samples), len(means))
    return float(((samples - means[labels]) ** 2).sum() / len(samples))


def _matrix(name: str, values: ArrayLike) -> FloatArray:
    raw: NDArray[Any] = np.asarray(values)
    if raw.ndim != 2 or raw.size == 0:
        raise DataError(f"{name} must be a table of rows and columns, none empty; its shape is {raw.shape}.")
    if raw.dtype.kind not in "iuf":
        raise DataError(f"{name} must hold integers or floats; its type is {raw.dtype}.")
    matrix = raw.astype(np.float64)
    if not np.isfinite(matrix).all():
        n_bad = np.count_nonzero(~np.isfinite(matrix))
        raise DataError(
            f"{name} must be finite; {n_bad} of its values are NaN or infinite. Drop or fill them."
        )
    return matrix


def _samples_and_centroids(X: ArrayLike, centroids: ArrayLike) -> tuple[FloatArray, FloatArray]:
    samples, means = _matrix("X", X), _matrix("centroids", centroids)
    if samples.shape[1] != means.shape[1]:
        raise DataError(
            f"X has {samples.shape[1]} features, the centroids {means.shape[1]}; they must agree."
        )
    return samples, means


def _labels(idx: ArrayLike, n_samples: int, n_clusters: int) -> IntArray:
    labels: NDArray[Any] = np.asarray(idx)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"idx must hold one integer for each of the {n_samples} samples; "
            f"its shape is {labels.shape}, its type {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= n_clusters:
        raise DataError(f"idx must lie in 0..{n_clusters - 1}; it holds {labels.min()}..{labels.max()}.")
    return labels.astype(np.int64)


def _check_count(name: str, value: int, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ConfigError(f"{name} must be an integer of at least {lowest}; it is {value!r}.")
