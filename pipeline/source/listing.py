"""Paths as a user writes them -> an explicit list of files."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from kmeans_dask.errors import ConfigError, DataError
from pipeline.config import StorageConfig
from pipeline.storage import Entry, Store, open_store, split_uri

_ESCAPED = re.compile(r"\[([*?\[])\]")
_GLOB_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_SPECIAL = re.compile(r"[\[\]\\&~|^]")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file; `below` is its path below the directory that was given, for partition directories."""

    store: Store
    entry: Entry
    below: str

    @property
    def uri(self) -> str:
        """The file's address."""
        return self.store.uri_of(self.entry.path)


def list_files(paths: Sequence[str], storage: StorageConfig) -> list[Listed]:
    """Return the files of each path in turn, those of one path sorted; DataError if there are none."""
    found = [(path, listed) for path in paths for listed in _expand(path, storage)]
    first: dict[str, str] = {}
    for path, listed in found:
        if listed.uri in first:
            raise DataError(
                f"{listed.uri}: listed twice in source.path, by {first[listed.uri]!r} and {path!r}. "
                "Name it once."
            )
        first[listed.uri] = path
    return [listed for _, listed in found]


def _expand(path: str, storage: StorageConfig) -> list[Listed]:
    found = list(_literal(path, storage))
    if not found and glob.has_magic(path):
        pattern = glob.has_magic(_ESCAPED.sub("", path))
        found = list(_matching(path, storage) if pattern else _literal(_ESCAPED.sub(r"\1", path), storage))
    if not found:
        raise DataError(
            f"{path}: there is no such file, no directory of *.parquet files and no match of a pattern. "
            "Check source.path."
        )
    return found


def _literal(path: str, storage: StorageConfig) -> Iterator[Listed]:
    """Yield a file as it is named, or a directory's Parquet files."""
    bucket = re.fullmatch(r"[A-Za-z0-9+.-]+://[^/]*/?", path) is not None
    parent, name = (path, "") if bucket else split_uri(path)
    store = open_store(parent, storage)
    for entry in store.list(name):
        below = entry.path[len(name) :].lstrip("/")
        if not below:
            yield Listed(store, entry, "")
        elif _is_data(below):
            yield Listed(store, entry, below)


def _matching(path: str, storage: StorageConfig) -> Iterator[Listed]:
    """Yield the files that match a pattern, and the Parquet files of the directories that do."""
    root, pattern = _split_pattern(path)
    store = open_store(root, storage)
    regex = _regex(pattern)
    shown = tuple({part[0] for part in pattern if part[:1] in ("_", ".")})
    for entry in store.list():
        names = entry.path.split("/")
        if any(name.startswith(("_", ".")) and not (shown and name.startswith(shown)) for name in names):
            continue
        above = ["/".join(names[:i]) for i in range(1, len(names))]
        inside = entry.path.endswith(".parquet") and any(regex.fullmatch(directory) for directory in above)
        if inside or regex.fullmatch(entry.path):
            yield Listed(store, entry, entry.path)


def _split_pattern(path: str) -> tuple[str, list[str]]:
    """Split a pattern into the directory before its first wildcard and the names after it."""
    match = _SCHEME.match(path)
    scheme, rest = match.groups() if match else ("", path)
    names = rest.split("/")
    n = next(i for i, name in enumerate(names) if glob.has_magic(_ESCAPED.sub("", name)))
    root = scheme + _ESCAPED.sub(r"\1", "/".join(names[:n]))
    pattern = [name for name in names[n:] if name]
    return root or "/", [unquote(name) for name in pattern] if scheme == "file://" else pattern


def _regex(pattern: list[str]) -> re.Pattern[str]:
    """Return the pattern's meaning: a wildcard stays within one name, ** spans any number of directories."""
    if pattern[-1] == "**":
        pattern = [*pattern, "*.parquet"]
    directories = ["(?:[^/]+/)*" if name == "**" else f"{_translated(name)}/" for name in pattern[:-1]]
    try:
        return re.compile("".join([*directories, _translated(pattern[-1])]))
    except re.error as error:
        raise ConfigError(f"source.path: {'/'.join(pattern)!r} is not a pattern ({error}).") from None


def _translated(name: str) -> str:
    def piece(token: str) -> str:
        if token in ("*", "**", "?"):
            return "[^/]" + token[0].replace("?", "")
        if len(token) > 1:
            inner = _SPECIAL.sub(r"\\\g<0>", token[1:-1])
            return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        return re.escape(token)

    return "".join(piece(token) for token in _GLOB_TOKEN.findall(name))


def _is_data(below: str) -> bool:
    hidden = any(name.startswith(("_", ".")) for name in below.split("/"))
    return below.endswith(".parquet") and not hidden
