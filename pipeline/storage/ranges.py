"""A seekable binary file over a function that fetches byte ranges."""

import io
import os
from collections.abc import Callable


class RangeFile(io.RawIOBase):
    """Reads exactly the ranges it is asked for: no read-ahead, no splitting, one fetch for each read."""

    def __init__(
        self, size: int, fetch: Callable[[int, int], bytes], close: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._close = close
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}: a position must not be negative")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(self._size - self._position, 0)
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted == 0:
            return b""
        data = self._fetch(self._position, self._position + wanted)
        self._position += len(data)
        return data

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and self._close is not None:
            self._close()
        super().close()
