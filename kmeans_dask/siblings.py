"""The names `pipeline` and `flows` are common: make sure that Python finds ours."""

from importlib.util import find_spec
from pathlib import Path

from kmeans_dask.errors import ConfigError

SIBLINGS = ("pipeline", "flows")


def check_siblings() -> None:
    """Raise ConfigError, naming both paths, where another package hides one of those beside this one."""
    home = Path(__file__).resolve().parents[1]
    for name in SIBLINGS:
        ours = home / name
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
        if found is None:
            raise ConfigError(f"the package {name!r} is missing at {ours}. Install kmeans-dask again.")
        if found.parent != ours:
            raise ConfigError(
                f"{name!r} must be the package of kmeans-dask at {ours}; Python finds {found} first. "
                "Remove or rename that one, or run in an environment and a directory of its own."
            )
