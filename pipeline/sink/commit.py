"""A run's record -> a committed run.

Everything lies under the run's own name, so nothing is ever overwritten that a reader may be using; the
manifest makes a run whole, and the pointer makes it the one that readers see. Number and predecessor stand in
both, and only the pointer decides, so a job

1. reads the pointer,
2. writes its manifest with the next number (the first time only if there is none),
3. replaces the pointer on the condition that it is still the one it read,

and where another job was quicker it starts over from 1. Until 3 succeeds no pointer leads to this run, so its
manifest may still be rewritten; from then on it never is. So the runs that the pointer reaches, through
`previous`, have the numbers 1, 2, 3, ... each once, also among racing jobs. A job killed between 2 and 3
leaves a whole run that the pointer does not reach; one killed before 2 leaves files that no reader looks at.
"""

import logging
import random
import time
from collections.abc import Mapping

from kmeans_dask.errors import InfrastructureError
from pipeline.sink.manifest import MANIFEST, manifest_bytes
from pipeline.sink.pointer import POINTER, Pointer, Tagged, read_pointer
from pipeline.sink.probe import after_probe
from pipeline.sink.records import RunRecord
from pipeline.sink.run_ids import run_prefix
from pipeline.sink.runs import Run, read_manifest
from pipeline.sink.tables import centroids_bytes, restarts_bytes
from pipeline.storage import NoSuchFileError, Store

logger = logging.getLogger(__name__)

_ATTEMPTS = 500
_PAUSE_SECONDS = 0.05


@after_probe()
def commit(store: Store, run: RunRecord) -> Run:
    """Write centroids, model, restarts and scores, then the manifest, then move the pointer to this run."""
    home = store.within(run_prefix(run.run_id))
    _check_parts(home, run)
    files = {
        "centroids.parquet": centroids_bytes(run.centroids),
        **run.model_files,
        "restarts.parquet": restarts_bytes(run.restarts),
        **run.score_files,
    }
    for name, data in files.items():
        home.put(name, data)
    pointer = _publish(store, home, run, files)
    logger.info("run %s is committed as number %d at %s", run.run_id, pointer.sequence, store.uri)
    return Run(run.run_id, read_manifest(home), home)


def discard(store: Store, run_id: str) -> bool:
    """Remove what a failed job wrote; False for a run with a manifest, which is whole and stays.

    (The pointer may name it already, or be about to: a request that failed here can still arrive there.)
    """
    prefix = run_prefix(run_id)
    try:
        store.head(f"{prefix}/{MANIFEST}")
    except NoSuchFileError:
        store.delete_prefix(prefix)
        return True
    return False


def _check_parts(home: Store, run: RunRecord) -> None:
    """Compare the parts that are there with those that workers say they wrote."""
    found = {entry.path: entry.size for entry in home.list("labels")}
    for part in run.parts:
        size = found.pop(part.path, None)
        if size != part.bytes:
            state = "is not there" if size is None else f"has {size} bytes"
            raise InfrastructureError(
                f"{home.uri_of(part.path)}: a worker wrote this part, {part.bytes} bytes, and it {state}. "
                "Check that all workers write to the same place."
            )
    if found:
        raise InfrastructureError(
            f"{home.uri_of(min(found))}: no worker reported this part. Run the job again."
        )


def _publish(store: Store, home: Store, run: RunRecord, files: Mapping[str, bytes]) -> Pointer:
    written: Pointer | None = None
    for _ in range(_ATTEMPTS):
        before = read_pointer(store)
        if written and _reaches(store, before, written):
            return written  # an earlier attempt got through, and only its answer was lost
        pointer = Pointer(run.run_id, before.sequence + 1, before.run_id)
        if pointer != written:
            _write_manifest(
                home, manifest_bytes(run, pointer, files), first=written is None and run.conditional_put
            )
            written = pointer
        if not run.conditional_put:
            store.put(POINTER, pointer.to_bytes())
            return pointer
        if store.replace(POINTER, pointer.to_bytes(), before.tag):
            return pointer
        time.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311
    raise InfrastructureError(
        f"{store.uri_of(POINTER)}: other jobs replaced it {_ATTEMPTS} times in a row. Try again later."
    )


def _write_manifest(home: Store, data: bytes, *, first: bool) -> None:
    # An answer that was lost looks like a manifest that was there before: then it is this very one.
    if first and not home.put_if_absent(MANIFEST, data) and home.read(MANIFEST) != data:
        raise InfrastructureError(
            f"{home.uri}: another job has committed a run of this name. Run the job again."
        )
    if not first:
        home.put(MANIFEST, data)


def _reaches(store: Store, start: Tagged, wanted: Pointer) -> bool:
    """Tell whether the pointer leads to a run, itself or through the runs before it."""
    at = start.pointer
    while at is not None and at.sequence >= wanted.sequence:
        if at.run_id == wanted.run_id:
            return True
        if at.previous is None:
            return False
        try:
            manifest = read_manifest(store.within(run_prefix(at.previous)))
        except NoSuchFileError:
            return False
        at = Pointer(at.previous, manifest["sequence"], manifest["previous"])
    return False
