"""A store -> whether it takes our files, and whether it keeps conditions; asked before any row is read."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from kmeans_dask.errors import ConfigError, InfrastructureError
from pipeline.sink.pointer import read_pointer
from pipeline.storage import ConditionalPutError, Store

logger = logging.getLogger(__name__)


def probe(store: Store) -> bool:
    """Write, conditionally replace and remove an object; True where the store enforces conditional puts.

    An output that cannot be written, or that holds a foreign pointer, is an error here and not hours later.
    """
    read_pointer(store)
    path = f".probe-{secrets.token_hex(6)}"
    try:
        store.put(path, b"probe")
        conditional = _keeps_conditions(store, path)
    finally:
        store.delete(path)
    if not conditional:
        logger.warning("%s has no conditional puts: of two jobs at once the last writer wins", store.uri)
    return conditional


@contextmanager
def after_probe() -> Iterator[None]:
    """Turn a place that cannot be written into the store's failure: it could be when the job began."""
    try:
        yield
    except ConfigError as error:
        raise InfrastructureError(f"{error} It could be written when the job began.") from None


def _keeps_conditions(store: Store, path: str) -> bool:
    try:
        refuses = not store.put_if_absent(path, b"another") and not store.replace(
            path, b"another", "no-such-tag"
        )
        return refuses and store.replace(path, b"replaced", store.head(path).tag)
    except ConditionalPutError:
        return False
