"""The estimator, the function and the job file have the same keys and defaults; what differs has its reason here."""

import inspect
from typing import Any

from kmeans_dask import BisectingKMeans, KMeans, MiniBatchKMeans, kmeans
from pipeline.config import KMeansConfig

ALONE = {  # keys of the estimator that the job file lacks
    "random_state": "scikit-learn's name, and it may be a generator; a file holds a number: seed",
    "verbose": "a run logs its iterations anyway",
    "callback": "a file holds no functions; `kmeans` calls it hook",
}
OTHER_DEFAULTS = {
    "n_clusters": "8 as in scikit-learn; a job must say it",
    "dtype": "an estimator keeps float32 and makes the rest float64; a job stores float32 unless told",
}
OF_THE_FUNCTION = {"seed", "weights", "preparation", "hook", "n_threads", "data"}


def of_job() -> dict[str, Any]:
    """Return the keys of [kmeans] and their defaults."""
    return {name: field.default for name, field in KMeansConfig.model_fields.items()}


def test_the_job_file_has_the_estimators_keys() -> None:
    """Both ways: nothing is missing on either side but what is listed."""
    ours, theirs = KMeans().get_params(), of_job()
    assert set(ours) - set(theirs) == set(ALONE)
    assert set(theirs) - set(ours) == {"seed"}


def test_their_defaults_are_equal() -> None:
    """But for those listed."""
    ours, theirs = KMeans().get_params(), of_job()
    shared = set(ours) & set(theirs)
    assert {name for name in shared if ours[name] != theirs[name]} == set(OTHER_DEFAULTS)


def test_the_function_has_them_too() -> None:
    """`kmeans` takes all that is no convention of scikit-learn's, with the same defaults."""
    function = {name: p.default for name, p in inspect.signature(kmeans).parameters.items()}
    ours = KMeans().get_params()
    assert set(function) - set(ours) == OF_THE_FUNCTION
    assert set(ours) - set(function) == set(ALONE)
    shared = set(ours) & set(function) - {"n_clusters"}
    assert {name for name in shared if ours[name] != function[name]} == set()


def test_the_other_estimators_share_them() -> None:
    """What they add is their own; what they lack makes no sense for them."""
    ours = KMeans().get_params()
    for estimator, added, lacking in (
        (BisectingKMeans(), {"bisecting_strategy"}, {"max_seconds", "frozen_centroids", "refine"}),
        (
            MiniBatchKMeans(),
            {"batch_size", "max_no_improvement"},
            {"max_seconds", "frozen_centroids", "refine"},
        ),
    ):
        other = estimator.get_params()
        assert set(other) - set(ours) == added
        assert set(ours) - set(other) == lacking
        differing = {name for name in set(other) & set(ours) if other[name] != ours[name]}
        assert differing == ({"max_iter"} if "batch_size" in added else set())
