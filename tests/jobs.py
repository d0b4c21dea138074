"""Small jobs for tests of the command line: data, a job file, the command as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COMMAND = Path(sys.executable).with_name("kmeans-dask")


def write_job(
    folder: Path, *, n_rows: int = 600, n_features: int = 2, noise: float = 0.5, **kmeans: Any
) -> Path:
    """Write data around three points and its job file, and return the job file."""
    keys = {"n_clusters": 3, "n_init": 3, "seed": 7, **kmeans}
    rng = np.random.default_rng(5)
    points = rng.normal(size=(n_rows, n_features)) * noise + 10.0 * rng.integers(0, 3, size=n_rows)[:, None]
    columns = {f"x{feature}": points[:, feature] for feature in range(n_features)}
    pq.write_table(
        pa.table({"id": np.arange(n_rows), **columns}), folder / "data.parquet", row_group_size=n_rows // 3
    )
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    job = folder / "job.toml"
    job.write_text(
        "\n".join(
            [
                "[source]",
                'path = "data.parquet"',
                'ids = ["id"]',
                "[kmeans]",
                *lines,
                "[output]",
                'path = "out"',
            ]
        )
    )
    return job


def command(
    *arguments: str | Path, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run one command line to its end."""
    return subprocess.run(
        [COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL
    )


def started(*arguments: str | Path, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start one command line in a process group of its own, its stderr in `log`."""
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [COMMAND, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def processes_with(name: str, value: str) -> list[int]:
    """Return the live processes whose environment sets a variable: a job and all it started."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A zombie's environment reads as empty.
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def visible_run(output: Path) -> str | None:
    """Return the run that readers see, after comparing its files with its manifest by plain json; None: no run."""
    pointer = output / "_LATEST.json"
    if not pointer.exists():
        return None
    run_id: str = json.loads(pointer.read_text())["run_id"]
    home = output / "runs" / run_id
    manifest = json.loads((home / "manifest.json").read_text())
    for file in [*manifest["parts"], *manifest["files"]]:
        assert (home / file["path"]).stat().st_size == file["bytes"]
    assert manifest["run_id"] == run_id
    return run_id
