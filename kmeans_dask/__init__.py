"""K-means clustering that gives the same bits on one thread and on a hundred workers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmeans_dask.api import blocks_of, kmeans, predict
    from kmeans_dask.bisecting import BisectingKMeans as BisectingKMeans
    from kmeans_dask.choosing import choose_k
    from kmeans_dask.errors import KMeansError
    from kmeans_dask.estimator import KMeans as KMeans
    from kmeans_dask.minibatch import MiniBatchKMeans as MiniBatchKMeans
    from kmeans_dask.model import Model

__all__ = ["KMeansError", "Model", "blocks_of", "choose_k", "kmeans", "predict"]
_HOMES = {
    "blocks_of": "api",
    "choose_k": "choosing",
    "kmeans": "api",
    "predict": "api",
    "KMeansError": "errors",
    "Model": "model",
}
_ESTIMATORS = {
    "BisectingKMeans": "bisecting",
    "KMeans": "estimator",
    "MiniBatchKMeans": "minibatch",
}  # not in __all__, as `import *` must work without the extra


def __getattr__(name: str) -> Any:
    """Import a public name on first use: numba and pyarrow cost half a second, scikit-learn more than one."""
    if name in _ESTIMATORS:
        return _estimator(name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _estimator(name: str) -> Any:
    try:
        return getattr(import_module(f"{__name__}.{_ESTIMATORS[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sklearn":
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs scikit-learn: pip install 'kmeans-dask[sklearn]'. "
            f"Without it there are {__name__}.kmeans and {__name__}.predict.",
            name="sklearn",
        ) from error
