"""`_LATEST.json`: the one file that decides which run readers see."""

import json
from dataclasses import asdict, dataclass

from kmeans_dask.errors import ModelError
from pipeline.storage import NoSuchFileError, Store

POINTER = "_LATEST.json"


@dataclass(frozen=True, slots=True)
class Pointer:
    """The latest run, its number, and the run before it."""

    run_id: str
    sequence: int
    previous: str | None

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Tagged:
    """A pointer as it was read, with the tag that a replacement must still find."""

    pointer: Pointer | None
    tag: str | None

    @property
    def sequence(self) -> int:
        return self.pointer.sequence if self.pointer else 0

    @property
    def run_id(self) -> str | None:
        return self.pointer.run_id if self.pointer else None


def read_pointer(store: Store) -> Tagged:
    """Read an output's pointer; an output without one has had no run."""
    try:
        entry, data = store.fetch(POINTER)
    except NoSuchFileError:
        return Tagged(None, None)
    try:
        value = json.loads(data)
        pointer = Pointer(str(value["run_id"]), int(value["sequence"]), value["previous"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(
            f"{store.uri_of(POINTER)}: this is not a pointer of ours. Choose another path."
        ) from None
    return Tagged(pointer, entry.tag)
