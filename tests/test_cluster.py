"""Clusters that cannot be used: an error that says what to do, in time."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmeans_dask.errors import ConfigError, InfrastructureError
from pipeline import cluster
from pipeline.config import DaskConfig
from tests.worker_faults import processes, signal_to


def test_a_missing_scratch_directory_is_refused(tmp_path: Path) -> None:
    """dask.local_directory is named with its value and what to do."""
    settings = DaskConfig(local_directory=str(tmp_path / "absent"))
    with (
        pytest.raises(ConfigError, match=r"^dask\.local_directory: .*/absent .*Make that directory"),
        cluster.connected(settings),
    ):
        pass


@pytest.mark.slow
def test_a_script_on_stdin_is_told_of_it() -> None:
    """Workers cannot import a script that was piped in; the error says so."""
    script = (
        "from pipeline.cluster import connected\nfrom pipeline.config import DaskConfig\n"
        "if __name__ == '__main__':\n    with connected(DaskConfig(workers=1)): pass\n"
    )
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True, timeout=120)
    assert "InfrastructureError" in done.stderr.splitlines()[-1]
    assert "cannot read it from stdin" in done.stderr.splitlines()[-1]


@pytest.mark.fault
def test_a_stopped_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of another cluster that does not answer ends the job instead of holding it for ever."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 4)
    with processes(tmp_path / "cluster", 2) as foreign:
        signal_to(foreign.workers[0].pid, signal.SIGSTOP)
        began = time.monotonic()
        with (
            pytest.raises(InfrastructureError, match="not every worker answers within 4 s"),
            cluster.connected(DaskConfig(address=foreign.address)),
        ):
            pass
        assert time.monotonic() - began < 30
