"""A TOML file, or sections as dicts -> a Job."""

import glob
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from kmeans_dask.errors import ConfigError
from pipeline.config.keys import INITS, is_uri, redacted
from pipeline.config.problems import as_config_error, listed
from pipeline.config.sections import Job

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")


def load_job(path: str | Path, sets: Sequence[str] = ()) -> Job:
    """Return the job of a TOML file, changed by `sets` like "kmeans.n_clusters=12".

    A set's value is TOML, or else a string; relative paths become absolute. Raises ConfigError with every
    problem found.
    """
    path = Path(path).expanduser()
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such job file. Check the path.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a text in UTF-8 ({error}). Name a TOML file, saved as UTF-8."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Name the job's TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from error
    return job_from_sections(sections, path.absolute().parent, sets, place=str(path))


def job_from_sections(
    sections: Mapping[str, Any],
    base_dir: str | Path,
    sets: Sequence[str] | Mapping[str, Any] = (),
    *,
    place: str = "job",
) -> Job:
    """Return the job of plain or validated sections; a relative path is relative to `base_dir`."""
    merged = {name: _plain(value) for name, value in sections.items()}
    pairs = sets.items() if isinstance(sets, Mapping) else [_pair(text) for text in sets]
    for key, value in pairs:
        _assign(merged, key, value)
    try:
        job = Job.model_validate(merged)
    except ValidationError as error:
        raise as_config_error(error, Job, place) from None
    return _absolute(job, Path(base_dir).expanduser().absolute())


def resolved(job: Job) -> dict[str, Any]:
    """Return the job as JSON values, defaults filled in, without secrets: none are accepted."""
    return job.model_dump(mode="json")


def _plain(value: Any) -> Any:
    """Return a section as nested dicts of what was set in it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise listed("set", [f"{redacted(text)!r} has no value. Write it as SECTION.KEY=VALUE"])
    return key.strip(), _value(value.strip())


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed.get("value")
    return value if len(parsed) == 1 and isinstance(value, str | int | float | list | dict) else text


def _assign(sections: dict[str, Any], key: str, value: Any) -> None:
    if not _KEY.fullmatch(key):
        raise listed("set", [f"{redacted(key)!r} is no dotted key. Write it as SECTION.KEY=VALUE"])
    *parents, leaf = key.split(".")
    table = sections
    for parent in parents:
        inner = table.get(parent)
        inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise listed("set", [f"{key}: {parent} is a value, not a section"])
        table[parent] = dict(inner)
        table = table[parent]
    table[leaf] = value


def _absolute(job: Job, base: Path) -> Job:
    paths = tuple(_anchored(path, base, pattern=True) for path in job.source.path)
    updates: dict[str, Any] = {
        "source": job.source.model_copy(update={"path": paths}),
        "output": job.output.model_copy(update={"path": _anchored(job.output.path, base)}),
    }
    if job.kmeans.init not in INITS:
        updates["kmeans"] = job.kmeans.model_copy(update={"init": _anchored(job.kmeans.init, base)})
    if job.dask is not None and job.dask.local_directory is not None:
        directory = _anchored(job.dask.local_directory, base)
        updates["dask"] = job.dask.model_copy(update={"local_directory": directory})
    return job.model_copy(update=updates)


def _anchored(path: str, base: Path, *, pattern: bool = False) -> str:
    if is_uri(path):
        return path
    # The base is a place, not a pattern: a bracket in its name must not become part of a glob.
    root = glob.escape(str(base)) if pattern and glob.has_magic(path) else str(base)
    return os.path.normpath(Path(root, Path(path).expanduser()))
