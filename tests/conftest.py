"""Fixtures and settings for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# Compilation and other jobs on the machine make single examples slow; pytest-timeout bounds the whole test.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

pytest_plugins = [
    f"tests.{name}" for name in ("s3_servers", "prefect_server") if (ROOT / "tests" / f"{name}.py").exists()
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; where it is not, tests that need it are skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            "the data sets of ../shared/data are not here; the rest of the suite proves the same properties"
        )
    return folder


@pytest.fixture(scope="session")
def weather_data() -> Path:
    """The shipped example's Parquet files."""
    return ROOT / "examples" / "weather" / "data"


@pytest.fixture(scope="session")
def plain_processor(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process whose kernels are compiled for the oldest x86-64, once for all tests.

    That has no fused multiply-add and no wide vectors.
    """
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "plain-kernels"
    plain = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(cache)}
    return {**os.environ, **plain}
