"""Runs: written whole, committed by one pointer, seen whole by readers that know nothing of our code."""

import dataclasses
import hashlib
import io
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask import model as model_files
from kmeans_dask.api import kmeans
from kmeans_dask.errors import ConfigError, InfrastructureError, ModelError
from pipeline.sink import PartRecord, commit, discard, new_run_id, open_run, part_path, probe, write_part
from pipeline.storage import Store, open_store
from tests import commit_jobs
from tests.outputs import Output, Reader, chain, local_output, s3_output
from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, admit

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["local", "moto", "rclone"])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    """An empty output of each kind."""
    if request.param == "local":
        return local_output(tmp_path / "out")
    server: S3Server = request.getfixturevalue(request.param)
    admit(server, monkeypatch)
    return s3_output(server)


@pytest.fixture(params=["local", "moto"])
def conditional_output(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Output:
    """An empty output of each kind that has conditional puts."""
    if request.param == "local":
        return local_output(tmp_path / "out")
    server: S3Server = request.getfixturevalue(request.param)
    admit(server, monkeypatch)
    return s3_output(server)


def test_a_run_has_exactly_the_documented_files(output: Output) -> None:
    """Two runs leave the layout of the docs and nothing else; manifests follow their schema."""
    store = open_store(output.uri)
    runs = [commit_jobs.write_run(store) for _ in range(2)]
    expected = ["_LATEST.json"]
    for run in runs:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run.run_id)
        home = f"runs/{run.run_id}/"
        expected += [home + name for name in ("centroids.parquet", "manifest.json", "model.json")]
        expected += [home + name for name in ("model.parquet", "restarts.parquet")]
        expected += [f"{home}labels/part-00000-00000000{first:04d}.parquet" for first in (0, 1000, 2000)]
        expected += [f"{home}labels/part-00001-000000000000.parquet"]
    assert output.names() == sorted(expected)

    schema = json.loads((ROOT / "pipeline/schemas/manifest.schema.json").read_text())
    manifests = chain(output)
    for manifest in manifests:
        jsonschema.validate(manifest, schema, cls=jsonschema.Draft202012Validator)
        assert set(manifest) == set(schema["properties"])
    assert [manifest["sequence"] for manifest in manifests] == [2, 1]
    assert manifests[0]["conditional_put"] is output.conditional
    assert [set(source) for source in manifests[0]["source_files"]] == [
        {"uri", "size", "mtime_ns", "rows"},
        {"uri", "size", "etag", "rows"},
    ]


def test_a_run_is_read_back(output: Output) -> None:
    """`open_run` follows the pointer, or takes a run's own directory; labels come in the input's order."""
    store = open_store(output.uri)
    first, second = (commit_jobs.write_run(store, n_parts=4) for _ in range(2))
    latest = open_run(output.uri)
    assert latest == second
    assert open_run(first.uri) == first
    assert latest.uri == open_store(output.uri).uri_of(f"runs/{second.run_id}")
    assert [part.first_row for part in latest.label_parts] == [0, 1000, 2000, 0]
    labels = latest.labels
    assert labels.schema.names == ["id", "origin", "cluster", "distance"]
    assert labels.schema.field("cluster").type == pa.int32()
    assert labels.schema.field("distance").type == pa.float32()
    assert labels["id"].to_pylist() == list(range(4000))
    assert labels["cluster"].null_count == labels["distance"].null_count > 0
    assert latest.model_bytes() == (b'{"format": "test"}', b"PAR1")


def test_a_run_gives_back_its_model(tmp_path: Path) -> None:
    """The two model files of a run are the model: the same bits come out as went in."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    model, store, run_id = kmeans(X, 4, n_init=2, seed=1), open_store(tmp_path), new_run_id()
    parts = (commit_jobs.part(store, run_id, 0),)
    files = model_files.to_bytes(model)
    commit(store, dataclasses.replace(commit_jobs.record(run_id, parts), model_files=files))
    again = open_run(tmp_path).model
    assert model_files.to_bytes(again) == files
    assert np.array_equal(again.centroids, model.centroids)


def test_tables_hold_what_they_were_given(tmp_path: Path) -> None:
    """centroids.parquet and restarts.parquet have the documented columns, types and values."""
    home = Path(commit_jobs.write_run(open_store(tmp_path)).uri)
    centroids = pq.read_table(home / "centroids.parquet")
    assert centroids.schema.names == ["cluster", "size", "temp", "humid"]
    assert centroids.to_pylist()[4] == {"cluster": 4, "size": 2**40, "temp": 8.0, "humid": 9.0}
    assert centroids.schema.field("cluster").type == pa.int32()
    restarts = pq.read_table(home / "restarts.parquet").to_pylist()
    names = ["n_clusters", "restart", "seed", "iteration", "inertia", "distortion", "changed", "seconds"]
    assert list(restarts[0]) == names
    assert list(restarts[1].values()) == [5, 0, 2**62, 2, 3.0, 0.4, 0, 0.5]


def test_parts_have_the_same_bytes_however_their_table_came(tmp_path: Path) -> None:
    """Chunks, dictionaries, slices and the source's metadata leave no trace in a part."""
    store, rows = open_store(tmp_path), 5000
    names = pa.array([f"name {i % 90}" for i in range(rows)])
    ids = pa.table({"id": np.arange(rows), "name": names})
    chunked = pa.concat_tables([ids.slice(0, 17), ids.slice(17)]).replace_schema_metadata({"pandas": "{}"})
    coded = ids.set_column(
        1, "name", pa.chunked_array([names.slice(0, 99), names.slice(99)]).dictionary_encode()
    )
    clusters, distances = np.arange(rows, dtype=np.int32) % 7, np.linspace(0, 1, rows, dtype=np.float32)
    written = [
        write_part(store, "r", 3, 70, ids=table, clusters=clusters, distances=distances)
        for table in (ids, ids, chunked, coded)
    ]
    assert len({part.sha256 for part in written}) == 1
    assert written[0].path == part_path(3, 70) == "labels/part-00003-000000000070.parquet"
    assert os.listdir(tmp_path / "runs/r/labels") == ["part-00003-000000000070.parquet"]
    data = (tmp_path / "runs/r" / written[0].path).read_bytes()
    assert written[0] == PartRecord(
        part_path(3, 70), 3, 70, rows, len(data), hashlib.sha256(data).hexdigest()
    )
    file = pq.ParquetFile(io.BytesIO(data))
    assert "BYTE_STREAM_SPLIT" in file.metadata.row_group(0).column(3).encodings
    assert file.schema_arrow.metadata is None


def test_a_part_without_ids_has_its_rows(tmp_path: Path) -> None:
    """With no id columns a part is clusters and distances; a flipped byte in it is noticed."""
    store = open_store(tmp_path)
    values = np.arange(4, dtype=np.int32), np.arange(4, dtype=np.float32)
    part = write_part(store, "r", 0, 0, ids=pa.table({}), clusters=values[0], distances=values[1])
    assert part.rows == 4
    path = tmp_path / "runs/r" / part.path
    assert pq.read_table(path).column_names == ["cluster", "distance"]
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    with pytest.raises(OSError, match=r"CRC|checksum"):
        pq.read_table(io.BytesIO(bytes(data)), page_checksum_verification=True)


def test_a_probe_leaves_nothing(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    """A probe tells whether conditions are kept, in words where they are not, and cleans up."""
    assert probe(open_store(output.uri)) is output.conditional
    assert output.names() == []
    assert ("no conditional puts" in caplog.text) is not output.conditional
    if not output.uri.startswith("s3://"):
        assert os.listdir(output.uri) == []


def test_a_probe_refuses_an_output_that_cannot_be_used(
    tmp_path: Path, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way, a foreign pointer and refused credentials are told apart before any work is done."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"):
        probe(open_store(tmp_path / "file"))
    (tmp_path / "_LATEST.json").write_text("[]")
    with pytest.raises(ModelError, match="not a pointer of ours"):
        probe(open_store(tmp_path))
    admit(rclone, monkeypatch)
    uri = s3_output(rclone).uri
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InfrastructureError, match="refused the credentials"):
        probe(open_store(uri))


def test_no_secret_reaches_a_file_or_a_log(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither key nor secret is in any byte of a run, in its log or in its values' reprs."""
    admit(moto, monkeypatch)
    output = s3_output(moto)
    caplog.set_level(logging.DEBUG)
    run = commit_jobs.write_run(open_store(output.uri))
    said = caplog.text + repr(run)  # taken now, as boto3 below says everything
    everything = b"".join(output.read(name) for name in output.names()) + said.encode()
    assert ACCESS_KEY.encode() not in everything
    assert SECRET_KEY.encode() not in everything
    assert run.run_id in said


def test_a_failed_job_leaves_nothing(output: Output) -> None:
    """`discard` removes a run without a manifest, and leaves one that is whole."""
    store = open_store(output.uri)
    kept = commit_jobs.write_run(store)
    before, run_id = output.names(), new_run_id()
    commit_jobs.part(store, run_id, 0)
    store.put(f"runs/{run_id}/labels/.part.tmp", b"half")
    assert discard(store, run_id)
    assert discard(store, run_id)
    assert output.names() == before
    assert not discard(store, kept.run_id)
    assert output.names() == before


def test_what_is_not_a_whole_run_is_refused(tmp_path: Path) -> None:
    """No output, no manifest, a missing or damaged file, and another layout each have their words."""
    store = open_store(tmp_path)
    with pytest.raises(ModelError, match="no committed run here"):
        open_run(tmp_path / "nothing")
    run_id = new_run_id()
    commit_jobs.part(store, run_id, 0)
    for path in (tmp_path, tmp_path / "runs" / run_id):
        with pytest.raises(ModelError, match="no committed run here"):
            open_run(path)

    run = commit_jobs.write_run(store)
    home = Path(run.uri)
    part = home / run.label_parts[1].path
    data = part.read_bytes()
    part.write_bytes(bytes(len(data)))
    with pytest.raises(ModelError, match=f"{part.name}: its bytes are not those"):
        _ = open_run(tmp_path).labels
    part.write_bytes(data[:-1])
    with pytest.raises(ModelError, match=rf"{part.name}: it has {len(data) - 1} bytes"):
        open_run(tmp_path)
    part.unlink()
    with pytest.raises(ModelError, match=rf"{part.name}: it is missing"):
        open_run(tmp_path)
    manifest = json.loads((home / "manifest.json").read_text())
    (home / "manifest.json").write_text(json.dumps({**manifest, "layout_version": 99}))
    with pytest.raises(ModelError, match="layout_version is 99"):
        open_run(tmp_path)


def test_a_part_may_have_keys_of_a_later_version(tmp_path: Path) -> None:
    """Keys that we do not know are left alone."""
    run = commit_jobs.write_run(open_store(tmp_path / "out"), n_parts=1)
    manifest = Path(run.uri) / "manifest.json"
    value = json.loads(manifest.read_text())
    value["parts"][0]["codec"] = "zstd"
    manifest.write_text(json.dumps(value))
    assert open_run(run.uri).label_parts == run.label_parts


def test_the_labels_of_a_run_without_parts(tmp_path: Path) -> None:
    """No part is a table without rows."""
    run = commit_jobs.write_run(open_store(tmp_path / "out"), n_parts=0)
    assert run.labels.num_rows == 0
    assert run.labels.column_names == ["cluster", "distance"]


def test_a_commit_checks_that_its_parts_are_there(tmp_path: Path) -> None:
    """A part that a worker wrote elsewhere, or that nobody reported, ends the commit before the manifest."""
    store, run_id = open_store(tmp_path), new_run_id()
    parts = commit_jobs.part(store, run_id, 0), commit_jobs.part(store, run_id, 1)
    with pytest.raises(InfrastructureError, match="no worker reported"):
        commit(store, commit_jobs.record(run_id, parts[:1]))
    store.delete(f"runs/{run_id}/{parts[1].path}")
    with pytest.raises(InfrastructureError, match="it is not there"):
        commit(store, commit_jobs.record(run_id, parts))
    assert discard(store, run_id)
    assert os.listdir(tmp_path) == []


class LostAnswers:
    """A store whose conditional puts arrive while their answers are lost, as after a dropped connection."""

    def __init__(self, store: Store, after: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def within(self, prefix: str) -> Any:
        return LostAnswers(self._store.within(prefix))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._store.put_if_absent(path, data)
        return False

    def replace(self, path: str, data: bytes, tag: str | None) -> bool:
        if self._store.replace(path, data, tag):
            self._after()
        return False


@pytest.mark.parametrize("overtaken", [0, 2])
def test_a_commit_whose_answer_was_lost_counts_once(tmp_path: Path, overtaken: int) -> None:
    """A pointer that moved while its answer was lost is found again, also behind later runs."""
    output, run_id = local_output(tmp_path), new_run_id()
    store = open_store(output.uri)
    commit_jobs.write_run(store)
    parts = (commit_jobs.part(store, run_id, 0),)

    def others() -> None:
        for _ in range(overtaken):
            commit_jobs.write_run(store)

    run = commit(LostAnswers(store, others), commit_jobs.record(run_id, parts))
    assert run.manifest["sequence"] == 2
    assert [manifest["sequence"] for manifest in chain(output)] == list(range(2 + overtaken, 0, -1))
    assert chain(output)[overtaken]["run_id"] == run_id


@pytest.mark.fault
def test_racing_jobs_all_end_as_whole_runs(conditional_output: Output) -> None:
    """Six jobs that commit at once are all whole, all reachable, and numbered 1 to 6, three times over."""
    output = conditional_output
    for round_ in range(3):
        jobs = [commit_jobs.start(commit_jobs.racing, output.uri, output.environment) for _ in range(6)]
        for _, channel in jobs:
            assert channel.recv() == "ready"
        for _, channel in jobs:
            channel.send("go")
        said = dict(channel.recv() for _, channel in jobs)
        for process, channel in jobs:
            process.join(30)
            assert process.exitcode == 0
            channel.close()
        manifests = chain(output)
        assert [manifest["sequence"] for manifest in manifests] == list(range(6 * round_ + 6, 0, -1))
        assert said == {manifest["run_id"]: manifest["sequence"] for manifest in manifests[:6]}
    assert not [name for name in output.names() if "/." in name or name.startswith(".")]


@pytest.mark.fault
def test_a_kill_at_any_moment_leaves_an_unbroken_chain(conditional_output: Output) -> None:
    """Pairs of jobs that commit without pause are killed at random moments: the next ones go on."""
    output, draw = conditional_output, random.Random(1)
    for _ in range(10):
        jobs = [commit_jobs.start(commit_jobs.restless, output.uri, output.environment) for _ in range(2)]
        for _, channel in jobs:
            assert channel.recv() == "begun"
        for process, channel in jobs:
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
            process.join(10)
            assert process.exitcode == -9
            channel.close()
    manifests = chain(output)
    assert [manifest["sequence"] for manifest in manifests] == list(range(len(manifests), 0, -1))
    assert len(manifests) >= 20
    assert commit_jobs.write_run(open_store(output.uri)).manifest["sequence"] == len(manifests) + 1


@pytest.mark.fault
def test_readers_see_whole_runs_while_jobs_are_killed(conditional_output: Output) -> None:
    """Jobs killed by SIGKILL between first part and manifest are never seen; runs between them are."""
    output = conditional_output
    store = open_store(output.uri)
    commit_jobs.write_run(store)
    killed, draw = list[str](), random.Random(0)
    with Reader(output) as reader:
        for number in range(24):
            process, channel = commit_jobs.start(commit_jobs.doomed, output.uri, output.environment)
            killed.append(channel.recv())
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
            process.join(10)
            assert process.exitcode == -9
            channel.close()
            if number % 6 == 0:
                commit_jobs.write_run(store)

    assert reader.failures == []
    assert reader.seen == sorted(reader.seen)
    assert reader.seen[-1] >= 4
    names = output.names()
    for run_id in killed:
        assert f"runs/{run_id}/{part_path(0, 0)}" in names
        assert f"runs/{run_id}/manifest.json" not in names
        with pytest.raises(ModelError, match="no committed run"):
            open_run(store.uri_of(f"runs/{run_id}"))
    assert {manifest["run_id"] for manifest in chain(output)}.isdisjoint(killed)
    assert open_run(output.uri).manifest["sequence"] == 5
