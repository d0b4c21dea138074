"""Blocks whose tiles lie in a file: written once, and read into buffers that are used again and again.

The files have no names: their room is free again when the last block in them is gone or the process ends, however it
ends. Reading copies into the buffer, so that no page of a file counts as memory of the process.
"""

import ctypes
import errno
import mmap
import os
import resource
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kmeans_dask.blocks import Block
from kmeans_dask.errors import InfrastructureError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SpoolFile:
    """A file without a name in a directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.n_bytes = 0
        _allow_files()
        try:
            with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
                self.fd = os.dup(file.fileno())
        except OSError as error:
            raise InfrastructureError(
                f"{directory}: no scratch file can be made there ({error.strerror}). "
                "Make that directory one that can be written to, or name another."
            ) from error
        weakref.finalize(self, os.close, self.fd)

    def append(self, array: npt.NDArray[Any]) -> int:
        """Write an array at the end and return where; raises InfrastructureError where there is no room."""
        start = self.n_bytes
        view = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], start + done)
        except OSError as error:
            raise self._failed(error, len(view) - done) from error
        self.n_bytes += done
        return start

    def read(self, into: memoryview, offset: int) -> None:
        """Fill a buffer from offset on."""
        done = 0
        while done < len(into):
            try:
                n = os.preadv(self.fd, [into[done:]], offset + done)
            except OSError as error:
                raise InfrastructureError(
                    f"{self.directory}: packed blocks could not be read back ({error.strerror}). Check that disk."
                ) from error
            if n == 0:
                raise InfrastructureError(f"{self.directory}: packed blocks were cut short. Check that disk.")
            done += n

    def _failed(self, error: OSError, left: int) -> InfrastructureError:
        if error.errno not in _FULL:
            return InfrastructureError(
                f"{self.directory}: packed blocks could not be written ({error.strerror}). Check that disk."
            )
        free = -1
        with suppress(OSError):
            free = shutil.disk_usage(self.directory).free
        return InfrastructureError(
            f"{self.directory}: no room for packed blocks ({error.strerror}): {left:,} bytes of this one are left "
            f"to write after {self.n_bytes:,} in its file, {free:,} are free. {ROOM}"
        )


ROOM = (
    "Free some of that disk, name a directory on a larger one (dask.local_directory, or TMPDIR without a local "
    "cluster), or give workers more memory."
)


def _allow_files() -> None:
    """Raise how many files this process may hold open to what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True, slots=True, eq=False)
class SpooledTiles:
    """A block's tiles while they lie in a file; without a file after a journey: files stay where they are."""

    file: SpoolFile | None
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of memory: none."""
        return 0

    @property
    def file_bytes(self) -> int:
        """Bytes in the file."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return SpooledTiles, (None, 0, self.shape, self.dtype)


class Buffer:
    """Room to read tiles into, outside the heap, so that it is given back whole."""

    def __init__(self, n_bytes: int) -> None:
        self._room = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def filled(self, blocks: Sequence[Block]) -> list[Block]:
        """Return the blocks with their tiles in this buffer, good until it is filled again; their caches are shared."""
        found = []
        start = 0
        for block in blocks:
            tiles = tiles_of(block)
            if tiles.file is None:
                raise InfrastructureError("packed blocks stayed on the disk of another worker. Run again.")
            stop = start + tiles.file_bytes
            tiles.file.read(memoryview(self._room)[start:stop], tiles.offset)
            array = np.frombuffer(
                self._room, tiles.dtype, stop // tiles.dtype.itemsize - start // tiles.dtype.itemsize, start
            )
            found.append(replace(block, tiles=array.reshape(tiles.shape)))
            start = stop
        return found


def tiles_of(block: Block) -> SpooledTiles:
    """Return where the tiles of a spooled block lie."""
    return cast("SpooledTiles", block.tiles)


def is_spooled(block: Block) -> bool:
    """Whether a block's tiles lie in a file."""
    return isinstance(block.tiles, SpooledTiles)


def is_absent(block: Block) -> bool:
    """Whether a block's tiles were left behind on a journey."""
    return is_spooled(block) and tiles_of(block).file is None


def spooled(blocks: Iterable[Block], directory: str) -> list[Block]:
    """Write the tiles of blocks to one file as they come, and return the blocks without them."""
    file = SpoolFile(directory)
    found = [_written(block, file) for block in blocks]
    give_back()
    return found


def respooled(blocks: Sequence[Block], fn: Callable[..., Block], args: tuple[object, ...]) -> list[Block]:
    """Return fn(block, *args) of spooled blocks, in a new file beside the old one."""
    source = tiles_of(blocks[0]).file
    if source is None:
        raise InfrastructureError("packed blocks stayed on the disk of another worker. Run again.")
    file = SpoolFile(source.directory)
    buffer = Buffer(max(tiles_of(block).file_bytes for block in blocks))
    return [_written(fn(buffer.filled([block])[0], *args), file) for block in blocks]


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps what lies before anything that lives on, pages of it."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _written(block: Block, file: SpoolFile) -> Block:
    tiles = SpooledTiles(file, file.append(block.tiles), block.tiles.shape, block.tiles.dtype)
    return replace(block, tiles=cast("Any", tiles), cache={})
