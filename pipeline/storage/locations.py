"""URI -> Store."""

import os
from urllib.parse import unquote, urlsplit

from kmeans_dask.errors import ConfigError
from pipeline.config import StorageConfig
from pipeline.storage.local import LocalStore
from pipeline.storage.store import Store


def open_store(uri: str | os.PathLike[str], options: StorageConfig | None = None) -> Store:
    """Open a directory, a `file://` URI or an `s3://bucket/prefix`; nothing is read or connected yet."""
    text = os.fspath(uri)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStore(os.path.abspath(os.path.expanduser(text)))
    if scheme == "file":
        return LocalStore(os.path.abspath(_file_path(text)))
    if scheme == "s3":
        # Imported here so that jobs on local files do not pay for the object store client.
        from pipeline.storage.credentials import settled
        from pipeline.storage.s3 import S3Store

        bucket, _, prefix = rest.partition("/")
        return S3Store(_bucket(bucket), prefix.strip("/"), settled(options or StorageConfig()))
    raise ConfigError(
        f"{scheme}://: this kind of store is not supported. Use a local path, file:// or s3:// "
        "(most stores offer an S3 interface: set storage.endpoint)."
    )


def split_uri(uri: str) -> tuple[str, str]:
    """Split the address of one file into that of its directory and its name."""
    scheme, separator, rest = uri.partition("://")
    if separator:
        parent, _, name = rest.rstrip("/").rpartition("/")
        return f"{scheme}://{parent}", unquote(name) if scheme == "file" else name
    return os.path.split(os.path.abspath(os.path.expanduser(uri)))


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{uri}: a file:// URI names a file of this machine: file:///absolute/path")
    return unquote(parts.path)


def _bucket(bucket: str) -> str:
    if "@" in bucket:
        # Not repeated in the message: it may hold a secret.
        raise ConfigError("s3://...@...: credentials belong in the environment, never in a URI")
    if not bucket:
        raise ConfigError("s3://: the bucket is missing; write s3://bucket/prefix")
    return bucket
