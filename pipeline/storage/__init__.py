"""URI -> Store: the one place that knows where files are and how to be let in."""

from pipeline.storage.directories import no_empty_directories
from pipeline.storage.locations import open_store, split_uri
from pipeline.storage.store import ConditionalPutError, Entry, NoSuchFileError, Store

__all__ = [
    "ConditionalPutError",
    "Entry",
    "NoSuchFileError",
    "Store",
    "no_empty_directories",
    "open_store",
    "split_uri",
]
