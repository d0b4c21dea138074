"""scikit-learn's own checks, whole and without exceptions."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import check_estimator

from kmeans_dask import BisectingKMeans, KMeans, MiniBatchKMeans

ESTIMATORS = [
    KMeans(),
    KMeans(n_clusters=2, n_init=2, max_iter=5),
    KMeans(init="random"),
    KMeans(init="k-means++"),
    BisectingKMeans(),
    MiniBatchKMeans(),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_check_estimator(estimator: Any) -> None:
    """Every check that scikit-learn has for such an estimator passes; none is expected to fail.

    The one for other array libraries is skipped: it needs a setting of SciPy's, and only NumPy is promised.
    """
    results = check_estimator(estimator, on_skip=None, expected_failed_checks=None)
    passed = [result["check_name"] for result in results if result["status"] == "passed"]
    others = {result["check_name"] for result in results} - set(passed)
    assert others <= {"check_array_api_input"}
    assert "check_sample_weight_equivalence_on_dense_data" in passed
    assert len(passed) > 50
