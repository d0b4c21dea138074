"""Randomness that depends on (seed, purpose, row) alone, never on blocks, workers or the order of calls.

The mixer is splitmix64's finaliser (Steele, Lea, Flood 2014).
"""

import hashlib

import numpy as np
import numpy.typing as npt


def derived(seed: int, purpose: str, index: int = 0) -> int:
    """Return 64 random bits for (seed, purpose, index)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def below(bound: int, seed: int, purpose: str) -> int:
    """Return a uniform integer in [0, bound), by rejection; bound may have any size."""
    bits = bound.bit_length()
    for attempt in range(10_000):
        raw = hashlib.shake_128(f"{seed}/{purpose}/{attempt}".encode()).digest((bits + 7) // 8)
        drawn = int.from_bytes(raw, "little") >> (-bits % 8)
        if drawn < bound:
            return drawn
    raise AssertionError("unreachable: each attempt succeeds with probability over one half")


def row_hashes(key: int, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return 64 random bits per row id, (n,) uint64."""
    z = np.uint64(key) + row_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(key: int, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return one float64 in [0, 1) per row id, multiples of 2**-53."""
    return (row_hashes(key, row_ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53
