"""Outputs as their readers see them: by plain json and pyarrow, on a local directory and on S3."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from tests.s3_servers import S3Server


@dataclass(frozen=True)
class Output:
    """An output and a way to its bytes that shares no code with ours."""

    uri: str
    conditional: bool
    read: Callable[[str], bytes]
    names: Callable[[], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def local_output(folder: Path) -> Output:
    """A directory."""
    return Output(
        str(folder),
        True,
        lambda path: (folder / path).read_bytes(),
        lambda: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
    )


def s3_output(server: S3Server) -> Output:
    """A prefix in a new bucket."""
    bucket, prefix = f"b{time.time_ns()}", "results/k means/"
    server.make_bucket(bucket)
    client = server.client()

    def read(path: str) -> bytes:
        data: bytes = client.get_object(Bucket=bucket, Key=prefix + path)["Body"].read()
        return data

    def names() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"][len(prefix) :] for page in pages for item in page.get("Contents", []))

    conditional = server.name == "moto"
    return Output(f"s3://{bucket}/{prefix}", conditional, read, names, server.environment)


def check_run(output: Output, run_id: str) -> dict[str, Any]:
    """Read a run by plain json and pyarrow, and compare every byte with its manifest; returns that."""
    home = f"runs/{run_id}/"
    manifest: dict[str, Any] = json.loads(output.read(home + "manifest.json"))
    assert manifest["run_id"] == run_id
    for file in (*manifest["parts"], *manifest["files"]):
        data = output.read(home + file["path"])
        assert len(data) == file["bytes"]
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
    for part in manifest["parts"]:
        table = pq.read_table(io.BytesIO(output.read(home + part["path"])), page_checksum_verification=True)
        assert table.num_rows == part["rows"]
    return manifest


def chain(output: Output) -> list[dict[str, Any]]:
    """The manifests that the pointer reaches, latest first; pointer and manifests must agree."""
    pointer = json.loads(output.read("_LATEST.json"))
    assert sorted(pointer) == ["previous", "run_id", "sequence"]
    manifests = [check_run(output, pointer["run_id"])]
    assert pointer == {key: manifests[0][key] for key in pointer}
    while manifests[-1]["previous"] is not None:
        manifests.append(check_run(output, manifests[-1]["previous"]))
    return manifests


class Reader(threading.Thread):
    """Follows the pointer again and again while its block runs; keeps what it saw and whatever went wrong."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output, self.stop = output, threading.Event()
        self.seen: list[int] = []
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join(60)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                pointer = json.loads(self.output.read("_LATEST.json"))
                manifest = check_run(self.output, pointer["run_id"])
                assert pointer == {key: manifest[key] for key in pointer}
                self.seen.append(manifest["sequence"])
            except BaseException as failure:
                self.failures.append(failure)
                return
