"""A run's record -> the bytes of its manifest; their layout is in `pipeline/schemas/manifest.schema.json`."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pipeline.sink.pointer import Pointer
from pipeline.sink.records import RunRecord, SourceRecord

MANIFEST = "manifest.json"
LAYOUT_VERSION = 1

_LIBRARIES = ("kmeans-dask", "numpy", "numba", "llvmlite", "pyarrow", "dask", "distributed", "obstore")


def manifest_bytes(run: RunRecord, pointer: Pointer, files: Mapping[str, bytes]) -> bytes:
    """Encode the manifest of a run under the number that `pointer` gives it."""
    value = {
        "layout_version": LAYOUT_VERSION,
        "run_id": run.run_id,
        "sequence": pointer.sequence,
        "previous": pointer.previous,
        "committed_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "conditional_put": run.conditional_put,
        "job": dict(run.job),
        "versions": _versions(),
        "source_files": [_source(source) for source in run.sources],
        "parts": [asdict(part) for part in run.parts],
        "files": [
            {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
        "result": dict(run.result),
        "workers_lost": run.workers_lost,
    }
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _source(source: SourceRecord) -> dict[str, Any]:
    version = {"etag": source.tag} if "://" in source.uri else {"mtime_ns": int(source.tag)}
    return {"uri": source.uri, "size": source.size, **version, "rows": source.rows}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
