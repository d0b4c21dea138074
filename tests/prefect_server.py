"""Fixture: a real Prefect server on loopback, a process of its own, asked over plain HTTP."""

import importlib.util
import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.server import embedded


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A running server; `environment` is what a process needs to use it."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a job that runs against this server."""
        return {**os.environ, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home / "client")}

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST a JSON body, or GET without one, and return the JSON answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path,
            data,
            {"Content-Type": "application/json"},
            method="GET" if body is None else "POST",
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def flow_run(self, run_id: str) -> Any:
        """Return the flow run whose name carries a run id."""
        (found,) = self.ask("/flow_runs/filter", {"flow_runs": {"name": {"like_": run_id}}})
        return found

    def of_flow_run(self, kind: str, flow_run: Any) -> list[Any]:
        """Return a flow run's task_runs or artifacts, or its logs in the order of time."""
        if kind == "logs":
            chosen: dict[str, Any] = {
                "logs": {"flow_run_id": {"any_": [flow_run["id"]]}},
                "sort": "TIMESTAMP_ASC",
            }
        else:
            chosen = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
        found: list[Any] = self.ask(f"/{kind}/filter", chosen)
        return found


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One server for the whole session."""
    if importlib.util.find_spec("prefect") is None:
        pytest.skip("Prefect is not installed")
    home = tmp_path_factory.mktemp("prefect")
    with embedded(home) as url:
        yield PrefectServer(url, home)
