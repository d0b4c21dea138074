"""Compiled kernels on disk: where numba may write, and where it may only read.

numba gives up when it can write neither beside the source nor in the user's home. Then kernels that were compiled
beside the source when an image was made are still read from there, and the others are compiled in every process.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, cast

from llvmlite.binding import parse_assembly, parse_bitcode
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, NullCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.types import Array, BaseTuple, float64

logger = logging.getLogger(__name__)

_TILES_NDIM = 3
_IMPORTED = re.compile(r"^from kmeans_dask(?:\.(\w+))? import (\([^)]*\)|.*)$", re.MULTILINE)


def start() -> None:
    """Load what numba needs before its first kernel, some tenths of a second, while others read."""
    with global_compiler_lock:  # as the first kernel would
        for context in (cpu_target.typing_context, cpu_target.target_context):
            context.refresh()


def read(kernels: Iterable[Any]) -> None:
    """Read what lies on disk of kernels, for this processor and rows in float32; nothing is compiled.

    Where nothing lies there, tell that kernels will be compiled: workers, which do it first, do not.
    """
    caches = [(kernel, getattr(kernel, "_cache", None)) for kernel in kernels]
    known = [(kernel, cache) for kernel, cache in caches if isinstance(cache, KernelCache)]
    found = [(kernel, sig) for kernel, cache in known for sig in cache.signatures(kernel.targetctx)]
    if known and not found:  # with NUMBA_DISABLE_JIT none is known
        _tell_of_compiling()
    for kernel, sig in found:
        if not any(map(_has_float64_tiles, sig)):
            kernel.compile(sig)


def _has_float64_tiles(kind: Any) -> bool:
    """Whether a kernel's argument is an array of tiles in float64, or a tuple with one."""
    if isinstance(kind, Array):
        return bool(kind.ndim == _TILES_NDIM and kind.dtype == float64)
    return isinstance(kind, BaseTuple) and any(map(_has_float64_tiles, cast("Any", kind)))


@cache
def _read(source: Path) -> tuple[str, tuple[Path, ...]]:
    """Return a name for the content of a file, and the modules beside it that it imports; of no file, nothing."""
    try:
        text = source.read_text(encoding="utf-8")
    except OSError:
        return "", ()
    names = [[module] if module else re.findall(r"\w+", some) for module, some in _IMPORTED.findall(text)]
    beside = tuple(source.with_name(f"{name}.py") for some in names for name in some)
    return hashlib.sha256(text.encode()).hexdigest(), beside


@cache
def stamp_of(source: Path) -> str:
    """Return a name for the content of a kernel's file and of all modules beside it that it imports, and they do.

    Kernels hold those that they call, from other files too, and numba itself looks at the file of the kernel alone.
    """
    left, seen = [source], {source}
    while left:
        new = set(_read(left.pop())[1]) - seen
        seen |= new
        left += new
    return hashlib.sha256("".join(_read(one)[0] for one in sorted(seen)).encode()).hexdigest()


class _Impl(CompileResultCacheImpl):
    """numba's, but for a kernel's code as others take it in: that is parsed when one of them is compiled.

    It is most of what lies on disk, and parsing it took three quarters of the time.
    """

    def reduce(self, cres: Any) -> Any:
        """Return what is kept of a compiled kernel."""
        (name, kind, (machine_code, code)), *rest = super().reduce(cres)  # type: ignore[no-untyped-call]
        module = parse_bitcode(code)
        parts = (*module.functions, *module.global_variables)
        names = [part.name for part in parts if not part.is_declaration]
        return code, names, ((name, kind, (machine_code, parse_assembly("").as_bitcode())), *rest)

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """Return the compiled kernel of what was kept."""
        code, names, kernel = payload
        target_context.codegen()._engine._defined_symbols.update(names)
        rebuilt = super().rebuild(target_context, kernel)  # type: ignore[no-untyped-call]
        rebuilt.library._get_module_for_linking = cache(partial(parse_bitcode, code))
        return rebuilt


class _Cache(FunctionCache):
    """numba's, but for the stamp."""

    _impl_class = _Impl

    def __init__(self, kernel: Callable[..., Any]) -> None:
        super().__init__(kernel)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = stamp_of(Path(kernel.__code__.co_filename))


class _BesideSource(InTreeCacheLocator):
    """The folder beside the source, whether or not it can be written."""

    def ensure_cache_path(self) -> None:
        """Ask for nothing: this folder is only read."""


class _BesideSourceImpl(_Impl):
    _locator_classes = [_BesideSource]  # noqa: RUF012 - as in the base class


class _ReadOnlyCache(_Cache):
    _impl_class = _BesideSourceImpl


class KernelCache(NullCache):
    """One kernel's cache: what numba would use if it can write anywhere, then what lies beside the source."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self._source = kernel.__code__.co_filename
        self._places: list[FunctionCache] = [_ReadOnlyCache(kernel)]
        self._own: FunctionCache | None = None
        try:
            self._own = _Cache(kernel)
        except RuntimeError:  # no place that can be written
            return
        if self._own.cache_path == self._places[0].cache_path:
            self._places = []
        self._places.insert(0, self._own)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel compiled for these types and this processor, or None."""
        for place in self._places:
            try:
                found = place.load_overload(sig, target_context)
            except OSError:  # another user's files
                continue
            if found is not None:
                return found
        _tell_of_compiling()
        return None

    def signatures(self, target_context: Any) -> list[Any]:
        """Return the types that the kernel was compiled for on disk, for this processor."""
        codegen = target_context.codegen()
        found: dict[Any, None] = {}
        for place in self._places:
            with suppress(OSError):
                index = place._cache_file._load_index()
                found |= {key[0]: None for key in index if key == place._index_key(key[0], codegen)}
        return list(found)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel that was just compiled; warn once where that cannot be done."""
        try:
            if self._own is None:
                raise PermissionError("neither there nor in the home directory may this user write")
            self._own.save_overload(sig, data)
        except OSError as error:
            _warn(str(Path(self._source).parent), str(error))


@cache
def _tell_of_compiling() -> None:
    if parent_process() is None:  # a worker's client does the same
        logger.info("compiling kernels for this processor and these types, once: a minute or more")


@cache
def _warn(home: str, reason: str) -> None:
    # A worker's client has said so already.
    level = logging.WARNING if parent_process() is None else logging.INFO
    logger.log(
        level,
        "compiled kernels cannot be kept beside %s (%s), so each new process compiles them again, a minute or more. "
        "Set NUMBA_CACHE_DIR to a directory that can be written",
        home,
        reason,
    )
