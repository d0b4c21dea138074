"""Fixtures: two independent S3 servers on loopback, each a process of its own, ended by its id."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

ACCESS_KEY = "AKIATESTONLYNOTREAL0"
SECRET_KEY = "not/a/real+secret+key+of+forty+letters00"

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the server saw it; `range` as sent, like `bytes=0-99`."""

    method: str
    path: str
    query: str
    range: str | None
    status: int


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server; `environment` is what a process needs to be let in."""

    name: str
    endpoint: str
    pid: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A boto3 client, which shares no code with the one under test."""
        config = Config(request_checksum_calculation="when_required", retries={"max_attempts": 2})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=config,
        )

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URI."""
        client = self.client()
        with contextlib.closing(client):
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def requests(self) -> list[Request]:
        """Every request since the start, in the order of the answers; moto only."""
        return [Request(**json.loads(line)) for line in self.log.read_text().splitlines()]


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """Run moto_server's S3 with a log of its requests: it enforces conditional puts."""
    port, log = free_port(), folder / "requests.jsonl"
    log.touch()
    script = Path(__file__).with_name("moto_process.py")
    with _running([sys.executable, str(script), str(port), str(log)], port, folder) as pid:
        yield S3Server("moto", f"http://127.0.0.1:{port}", pid, log)


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3`: it checks credentials, and ignores the conditions of conditional puts."""
    port, data = free_port(), folder / "data"
    data.mkdir()
    command = [
        str(Path(sys.executable).with_name("rclone")),
        *("serve", "s3", "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"),
        *("--config", str(folder / "rclone.conf")),
        str(data),
    ]
    with _running(command, port, folder) as pid:
        yield S3Server("rclone", f"http://127.0.0.1:{port}", pid, folder / "server.log")


@contextlib.contextmanager
def _running(command: list[str], port: int, folder: Path) -> Iterator[int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        _await(process, port, folder / "server.log")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A moto server for the whole session; tests make buckets of their own."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An rclone server for the whole session; tests make buckets of their own."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


def admit(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the environment for `server`, and nothing of the user's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
