"""Small jobs that write and commit runs, for tests to race and to kill; each is a process of its own."""

import multiprocessing
import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.sink import (
    CentroidTable,
    PartRecord,
    RestartRow,
    Run,
    RunRecord,
    SourceRecord,
    commit,
    new_run_id,
    probe,
    write_part,
)
from pipeline.storage import Store, open_store

# Children start from a process that has imported everything and holds no client and no threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.commit_jobs"])

PART_ROWS = 1000


def part(store: Store, run_id: str, number: int, rows: int = PART_ROWS) -> PartRecord:
    """Write the part that follows from its number; every 7th row was dropped."""
    draw = np.random.default_rng(number)
    dropped = np.arange(rows) % 7 == 3
    return write_part(
        store,
        run_id,
        number // 3,
        number % 3 * rows,
        ids=pa.table(
            {"id": np.arange(rows) + number * rows, "origin": pa.array(["JFK", "LGA"] * (rows // 2))}
        ),
        clusters=pa.array(draw.integers(0, 5, rows).astype(np.int32), mask=dropped),
        distances=pa.array(draw.random(rows, dtype=np.float32), mask=dropped),
    )


def record(run_id: str, parts: tuple[PartRecord, ...], conditional_put: bool = True) -> RunRecord:
    """A run of five clusters and two features."""
    return RunRecord(
        run_id,
        conditional_put,
        job={"kmeans": {"n_clusters": 5, "tol": 1e-4}, "output": {"path": "out"}},
        sources=(
            SourceRecord("/data/ü.parquet", 100, "1700000000000000000", 3000),
            SourceRecord("s3://b/x", 7, "a1", 9),
        ),
        parts=parts,
        centroids=CentroidTable(
            ("temp", "humid"),
            np.arange(5, dtype=np.int32),
            np.array([1, 2, 3, 4, 2**40]),
            np.arange(10, dtype=np.float64).reshape(5, 2),
        ),
        model_files={"model.json": b'{"format": "test"}', "model.parquet": b"PAR1"},
        restarts=(
            RestartRow(5, 0, 2**62, 1, 3.5, 0.5, 10, 0.25),
            RestartRow(5, 0, 2**62, 2, 3.0, 0.4, 0, 0.5),
        ),
        result={"inertia": 3.0, "n_iter": 2},
        workers_lost=1,
    )


def write_run(store: Store, n_parts: int = 4) -> Run:
    """A whole job's writing, from probe to pointer."""
    run_id = new_run_id()
    conditional_put = probe(store)
    parts = tuple(part(store, run_id, number) for number in range(n_parts))
    return commit(store, record(run_id, parts, conditional_put))


def racing(uri: str, environment: Mapping[str, str], channel: Connection) -> None:
    """Write a run's parts, say so, wait for the word, commit, and say under which name and number."""
    os.environ.update(environment)
    store, run_id = open_store(uri), new_run_id()
    probe(store)
    ready = record(run_id, (part(store, run_id, 0), part(store, run_id, 1)))
    channel.send("ready")
    channel.recv()
    run = commit(store, ready)
    channel.send((run.run_id, run.manifest["sequence"]))


def doomed(uri: str, environment: Mapping[str, str], channel: Connection) -> None:
    """Write a first part, say so, and go on writing until killed."""
    os.environ.update(environment)
    store, run_id = open_store(uri), new_run_id()
    for number in range(10_000):
        part(store, run_id, number)
        if number == 0:
            channel.send(run_id)
        time.sleep(0.001)


def restless(uri: str, environment: Mapping[str, str], channel: Connection) -> None:
    """Write and commit one small run after another until killed."""
    os.environ.update(environment)
    store = open_store(uri)
    for number in range(10_000):
        write_run(store, n_parts=1)
        if number == 0:
            channel.send("begun")


def start(target: Any, uri: str, environment: Mapping[str, str]) -> tuple[Any, Connection]:
    """Start one of the above; returns the process and our end of its channel."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(uri, dict(environment), theirs))
    process.start()
    theirs.close()
    return process, ours
