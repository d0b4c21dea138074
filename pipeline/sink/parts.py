"""A part's ids, clusters and distances -> one file; runs where the rows are."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kmeans_dask.arrow import arrow_of
from pipeline.sink.probe import after_probe
from pipeline.sink.records import PartRecord
from pipeline.sink.run_ids import run_prefix
from pipeline.sink.tables import parquet_bytes
from pipeline.storage import Store


def part_path(source_file: int, first_row: int) -> str:
    """Name a part within its run by its source file's number and its first row."""
    return f"labels/part-{source_file:05d}-{first_row:012d}.parquet"


@after_probe()
def write_part(
    store: Store,
    run_id: str,
    source_file: int,
    first_row: int,
    *,
    ids: pa.Table,
    clusters: "NDArray[np.int32] | pa.Array",
    distances: "NDArray[np.float32] | pa.Array",
) -> PartRecord:
    """Write a part whole or not at all; writing it again writes the same bytes.

    Clusters and distances are null for rows that were dropped; `ids` may have no columns.
    """
    table = pa.table(
        {
            **dict(zip(ids.column_names, ids.columns, strict=True)),
            "cluster": _column(clusters, pa.int32()),
            "distance": _column(distances, pa.float32()),
        }
    )
    data = parquet_bytes(table, floats=("distance",))
    path = part_path(source_file, first_row)
    store.put(f"{run_prefix(run_id)}/{path}", data)
    return PartRecord(
        path, source_file, first_row, table.num_rows, len(data), hashlib.sha256(data).hexdigest()
    )


def _column(values: "NDArray[Any] | pa.Array", type_: pa.DataType) -> pa.Array:
    return (values if isinstance(values, pa.Array) else arrow_of(values)).cast(type_)
