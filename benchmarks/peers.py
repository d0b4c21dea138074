"""Ours and others' Lloyd runs, from the same rows, start and number of iterations, float32, packing included."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.workloads import Rows


@dataclass(frozen=True, slots=True)
class Result:
    """What a run reached: passes over the data, and inertia as the peer itself states it."""

    iterations: int
    inertia: float


Fit = Callable[[Rows, Rows, int], Result]


def ours(X: Rows, start: Rows, max_iter: int) -> Result:
    """Run our engine in process."""
    from kmeans_dask import kmeans

    model = kmeans(X, len(start), init=start.astype(np.float64), max_iter=max_iter, tol=0)
    return Result(model.n_iter, model.inertia)


def scikit_learn(X: Rows, start: Rows, max_iter: int, algorithm: str = "lloyd") -> Result:
    """Run scikit-learn."""
    from sklearn.cluster import KMeans

    model = KMeans(len(start), init=start, n_init=1, max_iter=max_iter, tol=0, algorithm=algorithm).fit(X)
    return Result(model.n_iter_, float(model.inertia_))


def scikit_learn_elkan(X: Rows, start: Rows, max_iter: int) -> Result:
    """Run scikit-learn with Elkan's bounds."""
    return scikit_learn(X, start, max_iter, "elkan")


def intelex(X: Rows, start: Rows, max_iter: int) -> Result:
    """Run scikit-learn-intelex (oneDAL)."""
    from sklearnex.cluster import KMeans

    model = KMeans(len(start), init=start, n_init=1, max_iter=max_iter, tol=0).fit(X)
    return Result(int(model.n_iter_), float(model.inertia_))


def faiss(X: Rows, start: Rows, max_iter: int) -> Result:
    """Run FAISS on all rows; it has no other end than its number of iterations, so it is given scikit-learn's."""
    import faiss as library

    clustering = library.Clustering(X.shape[1], len(start))
    clustering.niter, clustering.max_points_per_centroid, clustering.min_points_per_centroid = (
        max_iter,
        len(X),
        1,
    )
    library.copy_array_to_vector(start.ravel(), clustering.centroids)
    index = library.IndexFlatL2(X.shape[1])
    clustering.train(X, index)
    statistics = clustering.iteration_stats
    return Result(statistics.size(), float(statistics.at(statistics.size() - 1).obj))


PEERS: dict[str, Fit] = {
    "ours": ours,
    "scikit-learn": scikit_learn,
    "scikit-learn elkan": scikit_learn_elkan,
    "scikit-learn-intelex": intelex,
    "FAISS": faiss,
}
