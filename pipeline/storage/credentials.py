"""The environment -> endpoint, region and credentials, resolved once for every client that is used."""

import configparser
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from kmeans_dask.errors import ConfigError
from pipeline.config import StorageConfig

_ELSEWHERE = ("role_arn", "sso_session", "sso_start_url", "credential_process", "web_identity_token_file")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair; never shown, and never taken out of its process."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials stay in their process; each process resolves its own")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a store; without credentials and not anonymous, the client asks the machine's own role."""

    endpoint: str | None
    region: str
    anonymous: bool
    credentials: Credentials | None = field(repr=False)


def resolve(options: StorageConfig) -> Connection:
    """Settle each value: the job's own, then the environment, then the profile that the environment names."""
    profile = _profile()
    endpoint = options.endpoint or _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = options.region or _variable("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region")
    credentials = None if options.anonymous else _from_environment() or _from_profile(profile)
    endpoint = _checked(endpoint or profile.get("endpoint_url"))
    return Connection(endpoint, region or "us-east-1", options.anonymous, credentials)


def settled(options: StorageConfig) -> StorageConfig:
    """Write endpoint and region of the environment into the options, for every worker to use the same."""
    connection = resolve(options)
    return options.model_copy(update={"endpoint": connection.endpoint, "region": connection.region})


def _variable(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _checked(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        # Not repeated in the message: it may hold a secret.
        raise ConfigError("storage.endpoint: credentials belong in the environment, never in a URL")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"storage.endpoint: {endpoint!r} is not a URL such as https://host:9000")
    return endpoint.rstrip("/")


def _from_environment() -> Credentials | None:
    key, secret = _variable("AWS_ACCESS_KEY_ID"), _variable("AWS_SECRET_ACCESS_KEY")
    if key is None and secret is None:
        return None
    if key is None or secret is None:
        raise ConfigError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: one is set without the other")
    return Credentials(key, secret, _variable("AWS_SESSION_TOKEN"))


def _from_profile(profile: dict[str, str]) -> Credentials | None:
    key, secret = profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
    if key and secret:
        return Credentials(key, secret, profile.get("aws_session_token"))
    elsewhere = [name for name in _ELSEWHERE if name in profile]
    if elsewhere:
        raise ConfigError(
            f"AWS profile: it takes its credentials from {elsewhere[0]}, which is not supported. Run "
            "'aws configure export-credentials --format env' and set the variables it prints."
        )
    return None


def _profile() -> dict[str, str]:
    """Merge what the two files of the AWS tools say of the profile; {} if none is asked for or there."""
    asked = _variable("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    name = asked or "default"
    config = Path(_variable("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    secret = Path(_variable("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    found = _section(config, name if name == "default" else f"profile {name}"), _section(secret, name)
    if asked and found == (None, None):
        raise ConfigError(f"AWS_PROFILE: there is no profile {asked!r} in {secret} or {config}")
    return {**(found[0] or {}), **(found[1] or {})}


def _section(path: Path, name: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        # Nor is the reason shown: it quotes the line, which may hold a secret.
        raise ConfigError(f"{path}: it cannot be read as an AWS configuration file") from None
    return dict(parser[name]) if parser.has_section(name) else None
