"""As `pipeline.preloaded`, but sooner: for workers of the command line, which import no script of a user's."""

from importlib import import_module

from kmeans_dask.starting import import_numba, importing

with importing():
    import_numba()
    import_module("pipeline.preloaded")
