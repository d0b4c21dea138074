"""Sources for tests: real Parquet files, scanned and read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask.errors import KMeansError
from pipeline.config import SourceConfig
from pipeline.source import Plan, Rows, read_rows, scan

NAN = float("nan")


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """Write a Parquet file with page checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, write_page_checksum=True, **options)
    return path


def planned(path: Path | str | Sequence[str], dtype: str = "float32", **keys: Any) -> Plan:
    """Scan a source."""
    return scan(
        SourceConfig.model_validate({"path": path if isinstance(path, list) else str(path), **keys}), dtype
    )


def read(plan: Plan) -> Rows:
    """Read the whole plan."""
    return read_rows(plan, plan.row_groups)


def positions(rows: Rows) -> list[int]:
    """Return the row ids of what was read."""
    listed = np.arange(rows.n_source_rows) if rows.listed is None else rows.listed
    return [int(offset) + rows.first_row for offset in listed]


def refusal(act: Callable[[], Any], kind: type[KMeansError] = KMeansError) -> str:
    """Return the error of something that must be refused."""
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


def names(plan: Plan) -> list[str]:
    """Return the files' names in order."""
    return [Path(file.uri).name for file in plan.files]


def write_years(folder: Path) -> Path:
    """Write three files, the second without rows, of row groups of 4 rows with one year each."""
    for name, start, n in (("a", 0, 10), ("b", 0, 0), ("c", 10, 9)):
        x = np.arange(start, start + n, dtype=np.float64)
        columns = {"x": x, "year": pa.array(2010 + x // 4, pa.int32()), "id": [f"r{int(v)}" for v in x]}
        write(
            folder / f"{name}.parquet",
            {**columns, "id": pa.array(columns["id"], pa.string())},
            row_group_size=4,
        )
    return folder
