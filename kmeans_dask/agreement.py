"""How well clusters agree with known groups: adjusted Rand index, normalised mutual information."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kmeans_dask.errors import DataError

Pairs = Mapping[tuple[Hashable, Hashable], int]


def pairs(clusters: Any, groups: Any) -> Counter[tuple[Hashable, Hashable]]:
    """Count how often each cluster meets each group; counts of parts of the rows add up.

    clusters, groups: (n,) arrays of anything that pyarrow takes; rows with a null or NaN in either are left out.
    """
    columns = {"cluster": _column(clusters, "clusters"), "group": _column(groups, "groups")}
    lengths = [len(column) for column in columns.values()]
    if lengths[0] != lengths[1]:
        raise DataError(
            f"clusters has {lengths[0]} rows and groups {lengths[1]}. Give one group for each clustered row."
        )
    counted = pa.table(columns).drop_null().group_by(["cluster", "group"]).aggregate([([], "count_all")])
    names = zip(counted["cluster"].to_pylist(), counted["group"].to_pylist(), strict=True)
    return Counter(dict(zip(names, counted["count_all"].to_pylist(), strict=True)))


def _column(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    try:
        column = (
            values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, from_pandas=True)
        )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{name} must be a column of one type ({error}). Convert it first.") from error
    return pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both indices over the rows that have a cluster and a group."""

    rows: int
    adjusted_rand: float
    normalised_mutual_information: float


def agreement(counts: Pairs) -> Agreement:
    """Return how well clusters agree with groups."""
    return Agreement(sum(counts.values()), adjusted_rand(counts), normalised_mutual_information(counts))


def adjusted_rand(counts: Pairs) -> float:
    """Return the adjusted Rand index (Hubert and Arabie 1985): 1 for equal partitions, about 0 for random ones."""
    n = sum(counts.values())
    by_cluster, by_group = _margins(counts)
    together = sum(count * count for count in counts.values())
    same_cluster = sum(count * count for count in by_cluster.values())
    same_group = sum(count * count for count in by_group.values())
    # Ordered pairs of rows: together in both, in one of the two, in neither.
    both, only_cluster, only_group = together - n, same_cluster - together, same_group - together
    neither = n * n - n - both - only_cluster - only_group
    if only_cluster == 0 and only_group == 0:
        return 1.0
    chance = (both + only_group) * (only_group + neither) + (both + only_cluster) * (only_cluster + neither)
    return 2 * (both * neither - only_group * only_cluster) / chance


def normalised_mutual_information(counts: Pairs) -> float:
    """Return the mutual information over the mean of the entropies: 1 for equal partitions, 0 for independent ones."""
    n = sum(counts.values())
    by_cluster, by_group = _margins(counts)
    if len(by_cluster) == len(by_group) and len(by_cluster) <= 1:
        return 1.0
    shared = math.fsum(
        count / n * math.log(count * n / (by_cluster[cluster] * by_group[group]))
        for (cluster, group), count in counts.items()
    )
    mean_entropy = (_entropy(by_cluster, n) + _entropy(by_group, n)) / 2
    return min(1.0, max(0.0, shared / mean_entropy))


def _margins(counts: Pairs) -> tuple[Counter[Hashable], Counter[Hashable]]:
    by_cluster, by_group = Counter[Hashable](), Counter[Hashable]()
    for (cluster, group), count in counts.items():
        by_cluster[cluster] += count
        by_group[group] += count
    return by_cluster, by_group


def _entropy(counts: Mapping[Hashable, int], n: int) -> float:
    return -math.fsum(count / n * math.log(count / n) for count in counts.values())
