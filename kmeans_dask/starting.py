"""What lets processes of our own start sooner; for no process of a user's, who may want what is spared here."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Final, cast

_SPARED: Final = ("cffi", "scipy.linalg.cython_blas")


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage within the block: imports make hardly any, and looking for it takes a tenth of them.

    What is there afterwards is never looked at again, and so not copied to a process that was forked from this one.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_numba() -> None:
    """Import numba without what it asks for only if it is there, a third of a second: cffi, and scipy for its BLAS.

    numba then compiles no `np.dot` and calls no function of cffi's; nor does it look for other packages' extensions.
    """
    spared = [name for name in _SPARED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(spared, cast("ModuleType", None)))  # an import of them fails at once
    try:
        for module in ("numba.np.arraymath", "numba.core.typing.cffi_utils"):
            import_module(module)
        entry_points: Any = import_module("numba.core.entrypoints")
        entry_points._already_initialized = True
    finally:
        for name in spared:
            del sys.modules[name]
