"""Kernels on disk: they are read from an install that cannot be written, and missed by none that cannot keep them."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmeans_dask import kernel_cache

ROOT = Path(__file__).parents[1]
WARNING = "compiled kernels cannot be kept"
# Two small kernels, so that this takes seconds; every kernel is decorated alike.
USE = """
import numpy as np
from kmeans_dask import kernels
rows = np.zeros(3, np.int64)
kernels.count_rows(np.array([0, 2, 2], np.int32), rows)
assert rows.tolist() == [1, 0, 2]
assert kernels.count_changed(np.zeros(4, np.int32), np.array([0, 1, 0, 1], np.int32)) == 2
for kernel in (kernels.count_rows, kernels.count_changed):
    print("read" if kernel.stats.cache_hits else "compiled")
"""


@pytest.fixture
def install() -> Iterator[Path]:
    """Give a copy of the package that any user may read; pytest's own directories are closed to others."""
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        shutil.copytree(
            ROOT / "kmeans_dask", Path(home) / "kmeans_dask", ignore=shutil.ignore_patterns("__pycache__")
        )
        yield Path(home)
        _set_writable(Path(home), True)


def _set_writable(install: Path, writable: bool) -> None:
    for path in (install, *install.rglob("*")):
        mode = (0o755 if path.is_dir() else 0o644) if writable else (0o555 if path.is_dir() else 0o444)
        path.chmod(mode)


# For root's sake: another user id, of no account, that may read what root's Python needs and write nothing of it.
STRANGER = (
    "setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", "-all,+dac_read_search", "--ambient-caps",
    "-all,+dac_read_search",
)  # fmt: skip


def used(
    install: Path, *, stranger: bool, code: str = USE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the code on an install; a stranger is another user, without a home."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    home = "/nonexistent" if stranger else str(install / "home")
    return subprocess.run(
        [*(STRANGER if stranger and os.getuid() == 0 else ()), sys.executable, "-B", "-c", code],
        cwd="/",
        env=kept | {"PYTHONPATH": str(install), "HOME": home, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_read_only_install_without_a_home_compiles_with_one_warning(install: Path) -> None:
    """Another user, who may write nowhere, gets the same answers, uncached, and hears of it once."""
    _set_writable(install, False)
    done = used(install, stranger=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compiled", "compiled"]
    assert done.stderr.count(WARNING) == 1


def test_kernels_of_an_image_are_read_by_any_user(install: Path) -> None:
    """What the image's builder compiled beside the source is read where nothing can be written, without a warning."""
    assert used(install, stranger=False).stdout.split() == ["compiled", "compiled"]
    _set_writable(install, False)
    done = used(install, stranger=True)
    assert done.stdout.split() == ["read", "read"], done.stderr
    assert done.stderr == ""


def test_a_directory_of_the_users_own_keeps_kernels(install: Path) -> None:
    """NUMBA_CACHE_DIR takes what a read-only install cannot; the second process reads it."""
    _set_writable(install, False)
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
        found = [used(install, stranger=True, NUMBA_CACHE_DIR=place) for _ in range(2)]
    assert [done.stdout.split() for done in found] == [["compiled"] * 2, ["read"] * 2], found
    assert [done.stderr for done in found] == ["", ""]


CALLER = """
import numpy as np
from kmeans_dask.cost_kernels import running_costs
running = np.zeros((1, 3), np.int64)
costs, stale = np.zeros((1, 3), np.int64), np.ones(1, np.bool_)
running_costs(np.array([0.5, 0.25]), np.empty(0), 8.0, costs, stale, running)
print("read" if running_costs.stats.cache_hits else "compiled", running[0, 0])
"""


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_changes(install: Path) -> None:
    """An upgrade leaves compiled kernels where they were: none may hold what another file said before."""
    found = [used(install, stranger=False, code=CALLER).stdout.split() for _ in range(2)]
    assert found == [["compiled", "6"], ["read", "6"]]
    errors, kernels = install / "kmeans_dask" / "errors.py", install / "kmeans_dask" / "kernels.py"
    errors.write_text(errors.read_text() + "# of no kernel\n")
    assert used(install, stranger=False, code=CALLER).stdout.split() == ["read", "6"]
    before = kernels.read_text()
    after = before.replace(
        "return as_integer(high), as_integer(middle)", "return as_integer(high) + 1, as_integer(middle)"
    )
    assert after != before
    kernels.write_text(after)
    assert used(install, stranger=False, code=CALLER).stdout.split() == ["compiled", "8"]


def test_a_kernel_is_compiled_with_others_that_were_read(install: Path) -> None:
    """Of a kernel on disk its machine code is loaded at once, what others take in of it when they are compiled."""
    assert used(install, stranger=False, code=CALLER).stdout.split() == ["compiled", "6"]
    (called,) = (install / "kmeans_dask" / "__pycache__").glob("kernels.limbs_of_cost-*.nbi")
    for kept in (install / "kmeans_dask" / "__pycache__").glob("cost_kernels.running_costs-*.nbi"):
        kept.unlink()
    before = called.stat().st_mtime_ns
    done = used(install, stranger=False, code=CALLER)
    assert done.stdout.split() == ["compiled", "6"], done.stderr
    assert called.stat().st_mtime_ns == before  # it was not compiled again


def test_the_stamp_of_a_file_is_of_all_that_it_imports(tmp_path: Path) -> None:
    """Of modules that those import too, however an import is written."""
    (tmp_path / "a.py").write_text("from kmeans_dask.b import (\n    one,\n    two,\n)\n")
    (tmp_path / "b.py").write_text("from kmeans_dask import (\n    c,\n    absent,\n)\n")
    (tmp_path / "d.py").write_text("")
    found = set()
    for text in ("", "x = 1\n", "from kmeans_dask import d\n"):
        (tmp_path / "c.py").write_text(text)
        kernel_cache._read.cache_clear()
        kernel_cache.stamp_of.cache_clear()
        found.add(kernel_cache.stamp_of(tmp_path / "a.py"))
    assert len(found) == 3


def test_a_full_disk_costs_a_warning_and_no_answer(install: Path) -> None:
    """A kernel that cannot be saved is used all the same."""
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    quiet = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    done = used(install, stranger=False, code=full + quiet + USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compiled", "compiled"]
    assert done.stderr.count(WARNING) == 1


AHEAD = """
import logging
logging.basicConfig(level=logging.INFO)
from kmeans_dask.kernel_cache import read
from kmeans_dask.kernels import count_changed, count_rows
read([count_rows, count_changed])
"""


def test_a_job_tells_that_kernels_will_be_compiled_before_workers_do(install: Path) -> None:
    """When it looks for kernels to read ahead and finds none, and only then."""
    assert "compiling kernels" in used(install, stranger=False, code=AHEAD).stderr
    assert used(install, stranger=False).returncode == 0
    done = used(install, stranger=False, code=AHEAD)
    assert (done.returncode, done.stderr) == (0, "")
