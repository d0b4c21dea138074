"""What is scanned and read before a step asks for it: the same plan and rows, once, and the same errors."""

import os
from pathlib import Path

import numpy as np
import pytest

from kmeans_dask.errors import DataError, KMeansError
from pipeline import read_ahead
from pipeline.config import Job
from pipeline.loads import HERE_BYTES, Load, shared_loads
from pipeline.read_ahead import Source, begun
from pipeline.source import Plan, Rows
from tests.engine_jobs import job, noise, write_files


def loads_of(plan: Plan) -> list[Load]:
    """Return the loads of a job in this process."""
    return shared_loads(plan, len(os.sched_getaffinity(0)), HERE_BYTES)


def noise_job(folder: Path, **dask: int) -> Job:
    """Return a job on 40,000 rows in row groups of 5,000."""
    return job(folder, write_files(folder / "rows", noise(40_000), group_rows=5_000), dask=dask or None)


def same(a: Rows, b: Rows) -> bool:
    """Whether these are the same rows."""
    return (a.first_row, a.n_source_rows) == (b.first_row, b.n_source_rows) and all(
        map(np.array_equal, a.columns, b.columns)
    )


def test_plan_and_rows_are_those_of_the_steps(tmp_path: Path) -> None:
    """Of every load, the first ones included, and again where it is asked for twice."""
    settings = noise_job(tmp_path)
    plain = Source(settings)
    plan = plain.plan()
    with begun(settings) as source:
        assert source.plan() == plan
        for load in (*loads_of(plan), *loads_of(plan)):
            assert same(source.rows(plan, load.row_groups), plain.rows(plan, load.row_groups))


def test_nothing_is_begun_for_workers_or_from_elsewhere(tmp_path: Path) -> None:
    """Workers read for themselves, and an object store is asked for nothing before the output is probed."""
    for settings in (noise_job(tmp_path, workers=2), job(tmp_path, "s3://nowhere/rows.parquet")):
        with begun(settings) as source:
            assert type(source) is Source


def test_rows_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    """With the file gone they are still given, once."""
    with begun(noise_job(tmp_path)) as source:
        plan = source.plan()
        first = loads_of(plan)[0]
        for future in source._reading.values():  # type: ignore[attr-defined]
            future.result()
        for file in (tmp_path / "rows").iterdir():
            file.unlink()
        assert source.rows(plan, first.row_groups).n_source_rows == first.n_rows
        with pytest.raises(DataError):
            source.rows(plan, first.row_groups)


def test_loads_of_another_length_are_read_as_they_are(tmp_path: Path) -> None:
    """Only the rows that are asked for are given."""
    settings = noise_job(tmp_path)
    with begun(settings) as source:
        plan = source.plan()
        one = plan.row_groups[:1]
        assert same(source.rows(plan, one), Source(settings).rows(plan, one))


def test_errors_come_with_the_step(tmp_path: Path) -> None:
    """Beginning raises nothing; the plan raises what it always does."""
    settings = job(tmp_path, str(tmp_path / "nowhere.parquet"))
    with begun(settings) as source, pytest.raises(KMeansError) as ahead:
        source.plan()
    with pytest.raises(KMeansError) as plain:
        Source(settings).plan()
    assert str(ahead.value) == str(plain.value)


def test_large_row_groups_are_left_until_the_plan_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into memory is refused before it is read."""
    monkeypatch.setattr(read_ahead, "_MOST_BYTES", 1000)
    with begun(noise_job(tmp_path)) as source:
        source.plan()
        assert source._reading == {}  # type: ignore[attr-defined]
