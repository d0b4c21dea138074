"""Names of runs."""

import re
import secrets
from datetime import UTC, datetime

RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def new_run_id() -> str:
    """Return the UTC start and six random hex digits, as in 20261121T101500Z-1a2b3c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run_prefix(run_id: str) -> str:
    """Where a run lies within its output."""
    return f"runs/{run_id}"
