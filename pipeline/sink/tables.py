"""Arrow tables <-> Parquet bytes that depend on the values alone."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmeans_dask.arrow import arrow_of
from kmeans_dask.choice import Score
from pipeline.sink.records import CentroidTable, ClusterScores, RestartRow

_ROW_GROUP_ROWS = 2**20

_RESTARTS = pa.schema(
    [
        ("n_clusters", pa.int32()),
        ("restart", pa.int32()),
        ("seed", pa.int64()),
        ("iteration", pa.int32()),
        ("inertia", pa.float64()),
        ("distortion", pa.float64()),
        ("changed", pa.int64()),
        ("seconds", pa.float64()),
    ]
)

_SWEEP = pa.schema(
    [
        ("n_clusters", pa.int32()),
        ("chosen", pa.bool_()),
        ("chosen_by", pa.string()),
        ("inertia", pa.float64()),
        ("distortion", pa.float64()),
        ("n_iter", pa.int32()),
        ("restart", pa.int32()),
        ("seed", pa.int64()),
        ("smallest", pa.int64()),
        ("largest", pa.int64()),
        ("silhouette", pa.float64()),
        ("simplified_silhouette", pa.float64()),
        ("davies_bouldin", pa.float64()),
        ("calinski_harabasz", pa.float64()),
        ("gap", pa.float64()),
        ("gap_error", pa.float64()),
        ("bend", pa.float64()),
        ("sample_rows", pa.int64()),
    ]
)


def parquet_bytes(table: pa.Table, *, floats: Sequence[str] = ()) -> bytes:
    """Encode a table; `floats` are the columns of measurements, where splitting bytes halves the size.

    Every option that shapes the bytes is given here, and chunks, dictionaries and the source's own
    metadata are taken out first, as they say how the table came to be and not what it holds.
    """
    table = _plain(table)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        version="2.6",
        data_page_version="1.0",
        row_group_size=_ROW_GROUP_ROWS,
        data_page_size=2**20,
        dictionary_pagesize_limit=2**20,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in table.column_names if name not in floats],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        write_statistics=True,
        write_page_checksum=True,
        store_schema=True,
    )
    return bytes(sink.getvalue())


def read_parquet(data: bytes) -> pa.Table:
    """Decode a file, with the checksums of its pages compared."""
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


def centroids_bytes(table: CentroidTable) -> bytes:
    """Encode centroids.parquet: cluster, size, then one column per feature."""
    columns = {
        "cluster": arrow_of(np.asarray(table.cluster_ids, np.int32)),
        "size": arrow_of(np.asarray(table.sizes, np.int64)),
        **{name: arrow_of(table.centroids[:, feature]) for feature, name in enumerate(table.feature_names)},
    }
    return parquet_bytes(pa.table(columns), floats=table.feature_names)


def restarts_bytes(rows: Sequence[RestartRow]) -> bytes:
    """Encode restarts.parquet: one row per iteration of every restart."""
    columns = [
        arrow_of(np.array([getattr(row, field.name) for row in rows], field.type.to_pandas_dtype()))
        for field in _RESTARTS
    ]
    table = pa.Table.from_arrays(columns, schema=_RESTARTS)
    return parquet_bytes(table, floats=("inertia", "distortion", "seconds"))


def sweep_bytes(scores: Sequence[Score], chosen: int, sample_rows: int) -> bytes:
    """Encode sweep.parquet: one row per number of clusters, the chosen one marked."""
    rows = [
        {
            **asdict(score),
            "chosen": score.n_clusters == chosen,
            "chosen_by": ", ".join(score.chosen_by),
            "sample_rows": sample_rows,
        }
        for score in scores
    ]
    table = pa.Table.from_pylist(rows, schema=_SWEEP)
    return parquet_bytes(
        table, floats=[name for name in _SWEEP.names if _SWEEP.field(name).type == pa.float64()]
    )


def scores_bytes(clusters: ClusterScores) -> bytes:
    """Encode scores.parquet: one row per cluster, null where a cluster without rows has no value."""
    measured = {
        "weight": clusters.weights,
        "spread": clusters.spreads,
        "simplified_silhouette": clusters.silhouettes,
        **{
            "distance_max" if q == 1 else f"distance_p{100 * q:g}": distances
            for q, distances in zip(clusters.quantiles, clusters.distance_quantiles.T, strict=True)
        },
    }
    table = pa.table(
        {
            "cluster": arrow_of(clusters.cluster_ids),
            "size": arrow_of(clusters.sizes),
            **{name: arrow_of(values, np.isnan(values)) for name, values in measured.items()},
        }
    )
    return parquet_bytes(table, floats=list(measured))


def _plain(table: pa.Table) -> pa.Table:
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        plain = column.cast(field.type.value_type) if pa.types.is_dictionary(field.type) else column
        columns.append(plain.combine_chunks())
        fields.append(pa.field(field.name, plain.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
