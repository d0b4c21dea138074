"""What a worker needs, imported once by the process whose copies workers are; for no other process."""

from importlib import import_module

from pipeline.processes import die_with_parent

_MODULES = ("kmeans_dask.dask_shards", "kmeans_dask.dask_loads", "pipeline.load", "pipeline.labels")


def preload() -> None:
    """Bind this process to the job's, then import and start everything."""
    die_with_parent()
    for name in _MODULES:
        import_module(name)
    import_module("kmeans_dask.ahead").ready_worker()


preload()
