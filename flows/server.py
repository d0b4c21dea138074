"""A Prefect API: the configured one, or a server as our own child, offline and gone when this process is."""

import fcntl
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flows.health import wait_until_healthy
from kmeans_dask.errors import ConfigError, InfrastructureError
from pipeline.processes import die_with_parent

logger = logging.getLogger("flows")

START_SECONDS: Final = 90.0
ANSWER_SECONDS: Final = 20.0
_PORT_TRIES: Final = 3
_UVICORN_NOT_STARTED: Final = 3  # its exit status, among others when the port was taken meanwhile

# Set before Prefect is imported: its background threads read the settings of that moment. A user's own win.
SETTINGS: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # An API that vanishes costs a request 2 + 4 seconds, not the 62 of the default, and is said once, by us.
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_API_REQUEST_TIMEOUT": "20",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
}
_SERVER_ENVIRONMENT: Final = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


@contextmanager
def api() -> Iterator[str]:
    """Yield the address of a Prefect API that answers: the configured one, else of a server of our own.

    Enter it in the main thread: the server ends with the thread that started it. Raises InfrastructureError.
    """
    _site_packages()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import prefect.context
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    configured = PREFECT_API_URL.value()
    if configured:
        wait_until_healthy(configured, ANSWER_SECONDS)
        yield configured
        return
    _bypass_proxies()
    with embedded(Path(PREFECT_HOME.value())) as url:
        os.environ["PREFECT_API_URL"] = url
        prefect.context.refresh_global_settings_context()
        try:
            yield url
        finally:
            del os.environ["PREFECT_API_URL"]


@contextmanager
def embedded(home: Path) -> Iterator[str]:
    """Yield the address of a server whose database lies in `home`; its history outlives it."""
    process, url = _started(home)
    try:
        yield url
    finally:
        _end(process)


def _started(home: Path) -> tuple["subprocess.Popen[bytes]", str]:
    logger.info("starting a Prefect server in %s", home)
    deadline = time.monotonic() + START_SECONDS
    with _first_start(home, deadline):
        for _ in range(_PORT_TRIES):
            process, url = _spawn()
            try:
                wait_until_healthy(url, deadline - time.monotonic(), process)
            except BaseException as error:
                _end(process)
                if not isinstance(error, InfrastructureError) or process.returncode != _UVICORN_NOT_STARTED:
                    raise
            else:
                return process, url
    raise InfrastructureError(
        "no free port for an embedded Prefect server. Set PREFECT_API_URL or use --no-prefect."
    )


def _spawn() -> tuple["subprocess.Popen[bytes]", str]:
    port = _free_port()
    parent = os.getpid()
    # Neither Python nor uvicorn may look for modules in the user's working directory.
    command = [sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--app-dir", str(_site_packages()), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "critical", "--lifespan", "on"]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        command,
        env={**os.environ, **_SERVER_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C reaches every process of the terminal's group; the server must outlive the run's last report.
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - no other thread runs yet
    )
    return process, f"http://127.0.0.1:{port}/api"


@contextmanager
def _first_start(home: Path, deadline: float) -> Iterator[None]:
    """Hold the lock of `home`: two servers that make its database at once would collide."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "kmeans-dask-server.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"PREFECT_HOME={home}: not writable ({error.strerror}). Set PREFECT_HOME or use --no-prefect."
        ) from error
    with lock:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{lock.name}: another job's server has been starting for too long."
                )
            time.sleep(0.1)
        yield


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _site_packages() -> Path:
    spec = importlib.util.find_spec("prefect")
    if spec is None or spec.origin is None:
        raise ConfigError("Prefect is not installed. Install kmeans-dask[prefect], or use --no-prefect.")
    return Path(spec.origin).parents[1]


def _bypass_proxies() -> None:
    """Keep requests to loopback from a proxy of the environment."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name) or os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        os.environ[name] = ",".join(filter(None, [hosts, "127.0.0.1"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
