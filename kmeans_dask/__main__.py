"""The command: `kmeans-dask`, or `python -m kmeans_dask`.

It starts here, under a name that is ours alone, and looks at the other names before it imports them.
"""

import sys
from importlib import import_module

from kmeans_dask.errors import KMeansError
from kmeans_dask.siblings import check_siblings
from kmeans_dask.starting import importing


def main() -> None:
    """Hand over to the command line of the top layer; exit code 2 where a foreign package hides it."""
    try:
        check_siblings()
    except KMeansError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    with importing():
        command_line = import_module("flows.cli")  # by name, since nothing below may import a layer above
    command_line.main()


if __name__ == "__main__":
    main()
