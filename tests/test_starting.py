"""What our own processes do to start sooner, each in a process of its own."""

import subprocess
import sys


def printed(code: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_garbage_is_collected_again_after_imports() -> None:
    """And not looked for among what they left, also where one of them failed."""
    code = """
import gc
from kmeans_dask.starting import importing
try:
    with importing():
        before = gc.isenabled()
        raise ImportError
except ImportError:
    print(before, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    assert printed(code) == "False True True\n"


def test_numba_works_without_what_it_is_spared() -> None:
    """It has not loaded it, nor is anything left that would keep others from doing so."""
    code = """
import sys
from kmeans_dask.starting import import_numba
import_numba()
import numpy as np
from kmeans_dask import kmeans
rows = np.array([[0.0], [1.0], [10.0], [11.0]])
print(kmeans(rows, 2, init=rows[1:3]).inertia)
print(sorted({"cffi", "scipy.linalg"} & set(sys.modules)))
"""
    assert printed(code) == "1.0\n[]\n"
