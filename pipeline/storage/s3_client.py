"""Connection -> the object store client of this process."""

import functools
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store as Client

from pipeline.storage.credentials import Connection

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

# Where nobody answers these end a request within half a minute.
_RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=12),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=3), "base": 2},
}
_CONNECT, _SILENCE = timedelta(seconds=5), timedelta(seconds=12)
_UPLOAD, _REQUEST = timedelta(minutes=2), timedelta(minutes=15)


@functools.lru_cache(maxsize=64)
def connect(bucket: str, prefix: str, connection: Connection, patient: bool = False) -> Client:
    """Return the client of a place; made once, as it holds the pool of open connections.

    A patient one is for large uploads: until all is sent the server says nothing, however well it goes.
    """
    http: ClientConfig = {
        "allow_http": (connection.endpoint or "").startswith("http://"),
        "connect_timeout": _CONNECT,
        "read_timeout": _UPLOAD if patient else _SILENCE,
        "timeout": _REQUEST,
    }
    settings = _settings(connection)
    return Client(bucket, prefix=prefix or None, config=settings, client_options=http, retry_config=_RETRY)


def _settings(connection: Connection) -> "S3Config":
    settings: S3Config = {"region": connection.region, "skip_signature": connection.anonymous}
    if connection.endpoint:
        # Both, as the client would else prefer its own reading of AWS_ENDPOINT_URL_S3 to the job's value.
        settings["endpoint"] = settings["aws_endpoint_url_s3"] = connection.endpoint
    if connection.credentials:
        settings["access_key_id"] = connection.credentials.access_key_id
        settings["secret_access_key"] = connection.credentials.secret_access_key
        if connection.credentials.session_token:
            settings["session_token"] = connection.credentials.session_token
    return settings
