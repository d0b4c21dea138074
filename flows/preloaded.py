"""As `pipeline.preloaded`, but without scipy: for workers of the command line, which import no script of a user's."""

from importlib import import_module

from kmeans_dask.kernel_cache import spare_scipy

spare_scipy()
import_module("pipeline.preloaded")
