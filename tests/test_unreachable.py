"""Services that do not answer or refuse us: exit code 3 within a time limit, and no secret in the message."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_jobs import arguments, contents, exit_code, write_job
from tests.jobs import command
from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, admit, free_port


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("section", ["source", "output"])
def test_a_store_with_a_closed_port_exits_3(
    tmp_path: Path,
    section: str,
    rclone: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A store that refuses connections is named by its endpoint, in seconds."""
    admit(rclone, monkeypatch)
    endpoint = f"http://127.0.0.1:{free_port()}"
    assert _seconds(tmp_path, section, endpoint, "s3://bucket/x") < 20
    said = capsys.readouterr().err
    assert endpoint in said
    assert "does not answer" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("section", ["source", "output"])
def test_a_mute_store_exits_3(
    tmp_path: Path, section: str, mute: int, rclone: S3Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A store that takes connections and stays silent is given up within a minute."""
    admit(rclone, monkeypatch)
    assert _seconds(tmp_path, section, f"http://127.0.0.1:{mute}", "s3://bucket/x") < 60
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("section", ["source", "output"])
def test_refused_credentials_exit_3(
    tmp_path: Path,
    section: str,
    rclone: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Credentials that the store refuses are told without showing them; a held local output is as it was."""
    admit(rclone, monkeypatch)
    bucket = rclone.make_bucket(f"u{time.time_ns()}")
    wrong = "wrong-" + SECRET_KEY
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    before = contents(out)
    _seconds(tmp_path, section, rclone.endpoint, bucket)
    said = capsys.readouterr().err
    assert "refused the credentials" in said
    assert "Traceback" not in said
    assert wrong not in said
    assert ACCESS_KEY not in said
    assert contents(out) == before


def _seconds(folder: Path, section: str, endpoint: str, uri: str) -> float:
    """Run a job whose source or output lies on a store, check for exit code 3, and return how long it took."""
    sets = {f"{section}.path": uri, f"{section}.storage.endpoint": endpoint}
    argv = arguments(write_job(folder), sets)
    began = time.monotonic()
    assert exit_code(argv) == 3
    return time.monotonic() - began


@pytest.mark.slow
def test_a_prefect_api_with_a_closed_port_exits_3_in_time(tmp_path: Path) -> None:
    """A Prefect API that nobody serves ends the job in half a minute, and no output is made."""
    job = write_job(tmp_path)
    url = f"http://127.0.0.1:{free_port()}/api"
    began = time.monotonic()
    done = command(
        "run", job, env={**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home")}
    )
    assert done.returncode == 3, done.stderr
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 45
    assert not (tmp_path / "out").exists()
