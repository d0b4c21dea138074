"""A model's two files in a local folder; the pipeline writes and reads the same bytes, also in object stores."""

import os
from pathlib import Path

from kmeans_dask.errors import ModelError
from kmeans_dask.model import JSON_NAME, PARQUET_NAME, Model, from_bytes, to_bytes

_TAKEN = ("cluster", "size")  # columns of model.parquet beside the features


def write(model: Model, folder: Path) -> None:
    """Write both files, each replaced whole; the folder is made if need be."""
    clash = [name for name in model.feature_names if name in _TAKEN]
    if clash:
        raise ModelError(
            f"{folder}: a feature is named {clash[0]!r}, as a column of {PARQUET_NAME} is. Rename it."
        )
    contents = to_bytes(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (PARQUET_NAME, JSON_NAME):
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_bytes(contents[name])
            temporary.replace(folder / name)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror}). Choose another folder.") from error


def read(folder: Path) -> Model:
    """Return the model of a folder."""
    try:
        contents = [(folder / name).read_bytes() for name in (JSON_NAME, PARQUET_NAME)]
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be read ({error.strerror}: {error.filename}). Name a folder that holds {JSON_NAME} and "
            f"{PARQUET_NAME}."
        ) from error
    return from_bytes(contents[0], contents[1], str(folder))
