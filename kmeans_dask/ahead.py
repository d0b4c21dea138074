"""Kernels read from disk ahead of their first call, while a job waits for something else.

Only those that every job on a cluster calls from Python, and only for rows in float32; a kernel that is missing here
is read, and one that is not on disk compiled, when it is first called.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Final

from kmeans_dask.kernel_cache import read, start

_BOTH: Final = (
    "closer.take_closest", "kernels.add_extremes", "kernels.distances_of_rows", "kernels.total_of",
    "ledgers.sums_of_tiles", "pruning.relabel_rows", "rivals.balls_of", "scans.write_scan",
)  # fmt: skip
_OF_WORKERS: Final = (
    "bounds.widen", "curves.curve_of", "curves.deal_cells", "draw_kernels.add_costs", "draw_kernels.draw_rows",
    "kernels.add_column", "kernels.add_values", "kernels.count_rows", "kernels.pack_column", "kernels.plain_sums",
    "ordering.deal_rows", "ordering.sort_pages", "radii.narrow_radii", "radii.reach_tiles",
    "repeats.first_rows", "rivals.label_rows",
)  # fmt: skip
_OF_CLIENTS: Final = (
    "bounds.add_movements", "cost_kernels.rows_at", "cost_kernels.running_costs", "gain_kernels.take_best",
    "kernels.corner_distance", "kernels.explained", "kernels.means_of", "kernels.round_totals",
)  # fmt: skip


def ready_worker() -> None:
    """Read what a worker calls: to load, seed, iterate and label."""
    _ready((*_BOTH, *_OF_WORKERS))


def ready_client() -> None:
    """Read what a client calls, which clusters the candidates of a seeding and adds up what workers answer."""
    _ready((*_BOTH, *_OF_CLIENTS))


def _ready(names: Iterable[str]) -> None:
    start()
    parts = [name.split(".") for name in names]
    read(getattr(import_module(f"kmeans_dask.{module}"), kernel) for module, kernel in parts)
