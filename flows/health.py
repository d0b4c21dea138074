"""Whether a Prefect API answers, asked without Prefect's own client, which may wait for minutes."""

import subprocess
import time
import urllib.error
import urllib.request

from kmeans_dask.errors import InfrastructureError


def wait_until_healthy(url: str, seconds: float, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Return once the API at `url` answers; raises InfrastructureError when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not healthy(url, min(5.0, max(0.1, deadline - time.monotonic()))):
        if process is not None and process.poll() is not None:
            raise InfrastructureError(
                f"the embedded Prefect server ended with status {process.returncode} while it started. "
                "Set PREFECT_API_URL to a server, or use --no-prefect."
            )
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"the Prefect API at {url} did not answer within {seconds:.0f} s. "
                "Check PREFECT_API_URL and the server, or use --no-prefect."
            )
        time.sleep(0.1)


def healthy(url: str, timeout_seconds: float) -> bool:
    """Return whether the API at `url` answers at all; a refusal by its guard is an answer."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_seconds):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False
