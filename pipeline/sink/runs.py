"""A path -> a committed run."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kmeans_dask.errors import DataError, ModelError
from pipeline.config import StorageConfig
from pipeline.sink.manifest import LAYOUT_VERSION, MANIFEST
from pipeline.sink.pointer import read_pointer
from pipeline.sink.records import PartRecord
from pipeline.sink.run_ids import run_prefix
from pipeline.sink.shape import faults
from pipeline.sink.tables import read_parquet
from pipeline.storage import NoSuchFileError, Store, open_store

if TYPE_CHECKING:
    from kmeans_dask.agreement import Agreement
    from kmeans_dask.model import Model

_PART_KEYS = tuple(field.name for field in fields(PartRecord))


@dataclass(frozen=True, slots=True)
class Run:
    """A committed run; `manifest` is its parsed manifest.json. Models and labels are read when asked for."""

    run_id: str
    manifest: dict[str, Any]
    store: Store

    @property
    def uri(self) -> str:
        """The run's own directory."""
        return self.store.uri

    @property
    def model(self) -> "Model":
        """The run's model."""
        from kmeans_dask.model import from_bytes

        return from_bytes(*self.model_bytes(), where=self.uri)

    def model_bytes(self) -> tuple[bytes, bytes]:
        """The bytes of model.json and model.parquet, as they were committed."""
        json_file, parquet_file = (self._file(name) for name in ("model.json", "model.parquet"))
        return self._verified(json_file), self._verified(parquet_file)

    @property
    def label_parts(self) -> tuple[PartRecord, ...]:
        """The label files, in the order of the input's rows."""
        return tuple(
            PartRecord(**{name: part[name] for name in _PART_KEYS}) for part in self.manifest["parts"]
        )

    @property
    def labels(self) -> pa.Table:
        """Every row's ids, cluster and distance, in the order of the input's rows."""
        parts = [self.read_part(part) for part in self.label_parts]
        return pa.concat_tables(parts) if parts else self._no_labels()

    @property
    def sweep(self) -> pa.Table | None:
        """The scores of every number of clusters, of a job that named several."""
        return self._table("sweep.parquet")

    @property
    def scores(self) -> pa.Table | None:
        """Sizes, spreads, silhouettes and distances of every cluster, of a job with a section [scores]."""
        return self._table("scores.parquet")

    def agreement(self, column: str) -> "Agreement":
        """Return how well the clusters agree with an id column that holds known groups."""
        from kmeans_dask.agreement import agreement, pairs

        counts: Counter[tuple[Hashable, Hashable]] = Counter()
        for part in self.label_parts:
            table = self.read_part(part)
            if column not in table.column_names:
                ids = ", ".join(name for name in table.column_names if name not in ("cluster", "distance"))
                raise DataError(
                    f"{self.uri}: its labels have no column {column!r}; their ids are {ids or 'none'}. "
                    "Name the column in source.ids and run the job again."
                )
            counts += pairs(table["cluster"], table[column])
        return agreement(counts)

    def read_part(self, part: PartRecord) -> pa.Table:
        """Read one label file, compared with the checksum of the manifest."""
        return read_parquet(self._verified(asdict(part)))

    def _no_labels(self) -> pa.Table:
        """The table of a run without parts, where no file tells the types of the ids."""
        ids = (self.manifest["job"].get("source") or {}).get("ids", ())
        columns = [*((name, pa.null()) for name in ids), ("cluster", pa.int32()), ("distance", pa.float32())]
        return pa.schema(columns).empty_table()

    def _table(self, path: str) -> pa.Table | None:
        listed = any(file["path"] == path for file in self.manifest["files"])
        return read_parquet(self._verified(self._file(path))) if listed else None

    def _file(self, path: str) -> dict[str, Any]:
        return next(file for file in self.manifest["files"] if file["path"] == path)

    def _verified(self, file: Mapping[str, Any]) -> bytes:
        data = self.store.read(file["path"])
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            uri = self.store.uri_of(file["path"])
            raise ModelError(f"{uri}: its bytes are not those that were committed. Restore it.")
        return data


def open_run(path: str | os.PathLike[str], options: StorageConfig | None = None) -> Run:
    """Open an output's latest run, or the run whose own directory is given; without a manifest it is none."""
    store = open_store(path, options)
    latest = read_pointer(store)
    home = store if latest.pointer is None else store.within(run_prefix(latest.pointer.run_id))
    try:
        manifest = read_manifest(home)
    except NoSuchFileError:
        raise ModelError(
            f"{store.uri}: there is no committed run here. Give the path of an output or of a run in it."
        ) from None
    _check_whole(home, manifest)
    return Run(manifest["run_id"], manifest, home)


def read_manifest(home: Store) -> dict[str, Any]:
    """Read a run's manifest; one that is damaged or of another layout is a ModelError."""
    data = home.read(MANIFEST)
    try:
        manifest = json.loads(data)
        version = manifest["layout_version"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{home.uri_of(MANIFEST)}: this is not the manifest of a run") from None
    if version != LAYOUT_VERSION:
        raise ModelError(
            f"{home.uri_of(MANIFEST)}: its layout_version is {version!r}, ours is {LAYOUT_VERSION}. "
            "Open it with the version that wrote it, or run the job again."
        )
    damage = faults(manifest)
    if damage:
        raise ModelError(
            f"{home.uri_of(MANIFEST)}: it is damaged ({damage}). Restore it, or run the job again."
        )
    return dict(manifest)


def _check_whole(home: Store, manifest: dict[str, Any]) -> None:
    found = {entry.path: entry.size for entry in home.list()}
    for file in (*manifest["parts"], *manifest["files"]):
        size = found.get(file["path"])
        if size != file["bytes"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise ModelError(
                f"{home.uri_of(file['path'])}: it {state}; the manifest says {file['bytes']} bytes. "
                "The run is damaged: restore it, or run the job again."
            )
