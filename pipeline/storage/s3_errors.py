"""An object store client's exception -> one of our errors, without the client's own text.

That text quotes requests and answers, which may hold key ids; only status and code are taken from it.
"""

import re

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from kmeans_dask.errors import ConfigError, DataError, InfrastructureError, KMeansError
from pipeline.storage.store import missing

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_MACHINE_ROLE = "169.254.169.254"

FAILURES = (BaseError, OSError, ValueError)


def is_status(error: Exception, status: int) -> bool:
    """Tell whether the server's answer was `status`."""
    found = _STATUS.search(str(error))
    return found is not None and int(found[1]) == status


def translated(error: Exception, uri: str, endpoint: str | None, *, writing: bool) -> KMeansError:
    """Return the error to raise in its place."""
    text = str(error)
    code = _CODE.search(text)
    server = endpoint or "the store"
    if _MACHINE_ROLE in text:
        return InfrastructureError(
            f"{uri}: no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, or storage.anonymous for a public bucket."
        )
    if isinstance(error, FileNotFoundError) or is_status(error, 404):
        return _missing(uri, code[1] if code else "", writing)
    status = _STATUS.search(text)
    answer = " ".join(filter(None, [status[1] if status else "", code[1] if code else ""]))
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or answer[:3] in ("401", "403"):
        return InfrastructureError(
            f"{uri}: {server} refused the credentials or the access ({answer or 'denied'}). "
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and the bucket's permissions."
        )
    if answer:
        return InfrastructureError(f"{uri}: {server} answered {answer}. Check endpoint and region, or retry.")
    return InfrastructureError(f"{uri}: {server} does not answer. Check endpoint and network, or retry.")


def _missing(uri: str, code: str, writing: bool) -> KMeansError:
    if not writing and code != "NoSuchBucket":
        return missing(uri)
    kind = ConfigError if writing else DataError
    return kind(f"{uri}: there is no such bucket. Check the URI, or create the bucket.")
