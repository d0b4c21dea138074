"""Rules for single values of the job that a type cannot state."""

import difflib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

LARGEST_SWEEP = 200
INITS = ("k-means||", "k-means++", "random")

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?\s*$")
_SIGNED = re.compile(r"[?&](sig|token|x-amz-\w+|awsaccesskeyid|signature)=", re.IGNORECASE)
_SCHEDULER = re.compile(r"^(tcp|tls|ws|wss|ucx|inproc)://\S+$")
_USERINFO = re.compile(r"//[^/\s]*@")


def is_uri(text: str) -> bool:
    """Whether `text` is a URI, not a path of this machine."""
    return _URI.match(text) is not None


def redacted(text: str) -> str:
    """Return `text` without the user information of any URI in it."""
    return _USERINFO.sub("//***@", text)


def location(text: str) -> str:
    """Refuse a path or URI that holds credentials: the job is written to the manifest and to logs."""
    parts = urlsplit(text) if is_uri(text) else None
    if parts is None:
        return text
    container = parts.scheme in ("abfs", "abfss")  # abfs://container@account is no credential
    secret = ":" in parts.netloc.rpartition("@")[0] if container else "@" in parts.netloc
    if secret or _SIGNED.search(text):
        rule = "holds credentials. Remove them from the URI and set them in the environment"
        raise PydanticCustomError("secret", rule)
    return text


def init_name(text: str) -> str:
    """Refuse a misspelt method that would be taken for the path of a model."""
    close = difflib.get_close_matches(text.lower(), INITS, n=1, cutoff=0.7)
    if text in INITS or not close:
        return text
    rule = f'is not a known method. Did you mean "{close[0]}"? For a stored model write "./{text}"'
    raise PydanticCustomError("init", "{rule}", {"rule": rule})


def scheduler_address(text: str) -> str:
    """Refuse what is not a scheduler's address."""
    if not _SCHEDULER.match(text):
        raise ValueError('must be the address of a scheduler like "tcp://scheduler:8786"')
    return text


def byte_count(value: object) -> object:
    """Return a size like "64MiB" or "2 GB" as bytes; leave other types to the type check."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None:
        raise ValueError('must be a number of bytes or a size like "64MiB"')
    number, unit = match.group(1), match.group(2) or ""
    base = 1024 if unit.endswith("i") else 1000
    return int(float(number) * base ** (" kMGT".index(unit[0].replace("K", "k")) if unit else 0))


def restarts(value: object) -> object:
    """Refuse what is neither "auto" nor a number of restarts."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
    if value != "auto" and not is_count:
        raise ValueError('must be "auto" or a whole number from 1 to 10000')
    return value


def cluster_numbers(value: object) -> int | tuple[int, ...]:
    """Return one number of clusters, or the increasing numbers of a list or of a table of min, max and step."""
    if isinstance(value, Mapping):
        value = _range_of(value)
    if not isinstance(value, (list, tuple)):
        return _cluster_number(value, "")
    numbers = tuple(sorted(_cluster_number(number, " in a list") for number in value))
    if not 2 <= len(numbers) <= LARGEST_SWEEP:
        raise ValueError(
            f"must hold 2 to {LARGEST_SWEEP} numbers of clusters and holds {len(numbers)}; a single one needs no list"
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError("must not name a number of clusters twice")
    return numbers


def _cluster_number(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        forms = "" if where else ", a list of them, or a table of min, max and step"
        raise ValueError(f"must be a whole number{where}{forms}")
    if not 1 <= value < 2**31:
        raise ValueError(f"must be greater than or equal to 1{where} and less than 2147483648")
    return value


def _range_of(value: Mapping[str, object]) -> list[int]:
    keys = {"min", "max", "step"}
    if not {"min", "max"} <= value.keys() <= keys:
        raise ValueError(
            "must be a whole number, a list of them, or a table of min, max and step, of which step may miss"
        )
    first, last = (_cluster_number(value[key], f" in {key}") for key in ("min", "max"))
    step = _cluster_number(value.get("step", 1), " in step")
    if last <= first or step > last - first:
        raise ValueError("must have a max above min, by at least one step")
    if (last - first) // step >= LARGEST_SWEEP:
        raise ValueError(f"must name at most {LARGEST_SWEEP} numbers of clusters. Raise step")
    return list(range(first, last + 1, step))


def one_or_many(value: object) -> object:
    """Return a single path as a list of one."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise ValueError("must be a path or a list of paths")
    return value
