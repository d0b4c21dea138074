"""scikit-learn's own tests of its KMeans, read from its wheel, pass for ours, on NumPy and on Dask input.

Sparse input is refused, so its cases are left out; so are the tests in `LEFT_OUT`, each with its reason.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import sklearn.cluster.tests
import sklearn.utils.fixes

import kmeans_dask
from tests.estimator_data import KINDS, array, as_kind

_THEIR_FUNCTION = "of a function of theirs, not of the estimator"
_ELKAN = "of algorithm='elkan'; ours has one algorithm, of the same results"
_MINIBATCH = "of the insides of their MiniBatchKMeans"
_PRIVATE = "of private methods"
_SPARSE = "of sparse input"
LEFT_OUT = {
    "test_relocate_empty_clusters": _THEIR_FUNCTION,
    "test_k_means_function": _THEIR_FUNCTION,
    "test_euclidean_distance": _THEIR_FUNCTION,
    "test_inertia": _THEIR_FUNCTION,
    "test_is_same_clustering": _THEIR_FUNCTION,
    "test_kmeans_plusplus_wrong_params": _THEIR_FUNCTION,
    "test_kmeans_plusplus_output": _THEIR_FUNCTION,
    "test_kmeans_plusplus_norms": _THEIR_FUNCTION,
    "test_kmeans_plusplus_dataorder": _THEIR_FUNCTION,
    "test_kmeans_elkan_results": _ELKAN,
    "test_warning_elkan_1_cluster": _ELKAN,
    "test_minibatch_update_consistency": _MINIBATCH,
    "test_minibatch_kmeans_warning_init_size": _MINIBATCH,
    "test_minibatch_reassign": _MINIBATCH,
    "test_minibatch_with_many_reassignments": _MINIBATCH,
    "test_minibatch_kmeans_init_size": _MINIBATCH,
    "test_minibatch_declared_convergence": _MINIBATCH,
    "test_minibatch_iter_steps": _MINIBATCH,
    "test_sample_weight_init": _PRIVATE,
    "test_sample_weight_zero": _PRIVATE,
    "test_n_init_auto": _PRIVATE,
    "test_kmeans_init_auto_with_initial_centroids": _PRIVATE,
    "test_dense_sparse": _SPARSE,
    "test_predict_dense_sparse": _SPARSE,
    "test_kmeans_verbose": "of the words printed",
    "test_score_max_iter": "also of MiniBatchKMeans, whose first batch is clustered to the end; see test_estimator",
}


@pytest.fixture
def global_random_seed() -> int:
    """Stand in for scikit-learn's fixture."""
    return 42


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def global_dtype(request: pytest.FixtureRequest) -> Any:
    """Stand in for scikit-learn's fixture."""
    return request.param


def adapted(base: Any, given_as: str) -> Any:
    """Return an estimator that takes scikit-learn's parameters, and arrays as Dask arrays if so asked."""

    class Adapted(base):  # type: ignore[misc]
        def __init__(
            self, n_clusters=8, *, init="k-means++", n_init="auto", max_iter=300, tol=1e-4, verbose=0,
            random_state=None, copy_x=True, algorithm="lloyd", batch_size=1024,
        ):  # fmt: skip
            super().__init__(
                n_clusters, init=init, n_init=n_init, max_iter=max_iter, tol=tol, verbose=verbose,
                random_state=random_state,
            )  # fmt: skip
            self.copy_x, self.algorithm, self.batch_size = copy_x, algorithm, batch_size

        def fit(self, X, y=None, sample_weight=None):
            super().fit(as_kind(given_as, X), sample_weight=sample_weight)
            self.labels_ = array(self.labels_)
            return self

        def predict(self, X):
            return array(super().predict(as_kind(given_as, X)))

        def transform(self, X):
            return array(super().transform(as_kind(given_as, X)))

        def score(self, X):
            return super().score(as_kind(given_as, X))

    Adapted.__name__ = base.__name__
    return Adapted


def loaded(given_as: str) -> ModuleType:
    """Return their module of tests, run with our classes in place of theirs and without sparse matrices."""
    path = Path(sklearn.cluster.tests.__path__[0]) / "test_k_means.py"
    source = path.read_text()
    ids = 'else ["dense", "sparse_matrix"]'
    assert ids in source
    module = ModuleType(f"sklearn.cluster.tests.test_k_means_{given_as}")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("KMeans", "MiniBatchKMeans"):
            patch.setattr(sklearn.cluster, name, adapted(getattr(kmeans_dask, name), given_as))
        patch.setattr(sklearn.utils.fixes, "CSR_CONTAINERS", [])
        exec(compile(source.replace(ids, 'else ["dense"]'), path, "exec"), vars(module))
    return module


MODULES = {kind: loaded(kind) for kind in KINDS}
for kind, module in MODULES.items():
    for name, function in vars(module).items():
        if name.startswith("test_") and name not in LEFT_OUT:
            globals()[f"{name}_{kind}"] = function


def test_each_of_their_tests_is_run_or_left_out() -> None:
    """The list names tests that exist, and most are run."""
    theirs = {name for name in vars(MODULES["numpy"]) if name.startswith("test_")}
    assert set(LEFT_OUT) <= theirs
    assert len(theirs) - len(LEFT_OUT) >= 30
