"""Exact sums: every addend becomes integers, so that no order, grouping or thread changes a bit.

An addend x with |x| < 2**E is y = x * 2**(31 - E), h = trunc(y), l = trunc((y - h) * 2**32): two int64 limbs in units
of 2**(E - 31) and 2**(E - 63). What lies below 2**(E - 63) is dropped, per addend, whatever its neighbours.
Accumulators of up to 2**31 rows cannot overflow; `normalised` then carries them into three limbs of 32 bits and a
sign, which add up without overflow for any number of rows.

Squared distances span twice the exponents of distances, so their totals take a third limb, in units of 2**(E - 95).
"""

import math

import numpy as np
import numpy.typing as npt

from kmeans_dask.errors import DataError

Limbs = npt.NDArray[np.int64]
_LOW = np.int64(0xFFFFFFFF)
_MIN_EXPONENT = -980
BITS, SQUARE_BITS = 63, 95  # of an addend, below its bound


def exponent(bound: float) -> int:
    """Return E with bound < 2**E, for bound >= 0; zero and the smallest numbers share one E."""
    if not math.isfinite(bound):
        raise DataError(
            f"sums of weight * value and weight * squared distance must be finite; a bound of theirs is {bound}. "
            "Scale the weights or the values down."
        )
    return max(math.frexp(bound)[1], _MIN_EXPONENT) if bound else _MIN_EXPONENT


def exponents(bounds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the exponent of each bound, (n,)."""
    if not np.isfinite(bounds).all():
        for bound in bounds.tolist():
            exponent(bound)  # raises the error
    found: npt.NDArray[np.int64] = np.maximum(np.frexp(bounds)[1].astype(np.int64), _MIN_EXPONENT)
    return np.where(bounds > 0, found, _MIN_EXPONENT)


def scale(exponent: int) -> float:
    """Return 2**(31 - exponent), the factor of the high limb."""
    return math.ldexp(1.0, 31 - exponent)


def normalised(high: Limbs, low: Limbs) -> Limbs:
    """Return (3, ...) limbs of the accumulators: signed top, then two of 32 bits."""
    limbs = np.empty((3, *high.shape), np.int64)
    np.right_shift(low, 32, out=limbs[1])
    limbs[1] += high
    np.right_shift(limbs[1], 32, out=limbs[0])
    limbs[1] &= _LOW
    np.bitwise_and(low, _LOW, out=limbs[2])
    return limbs


def added(a: Limbs, b: Limbs) -> Limbs:
    """Return the (3, ...) limbs of a + b."""
    limbs = a + b
    carry = limbs[2] >> 32
    limbs[1] += carry
    limbs[0] += np.right_shift(limbs[1], 32, out=carry)
    limbs[1:] &= _LOW
    return limbs


def integers(limbs: Limbs) -> list[int]:
    """Return the totals of (3, n) limbs as Python integers, in units of 2**(E - 63)."""
    top, middle, low = (part.tolist() for part in limbs)
    return [(t << 64) + (m << 32) + x for t, m, x in zip(top, middle, low, strict=True)]


def joined(high: int, middle: int, low: int) -> int:
    """Return the total of the three accumulators of `kernels.total_of`, in units of 2**(E - 95)."""
    return (int(high) << 64) + (int(middle) << 32) + int(low)


def parted(total: int) -> tuple[int, int, int]:
    """Return the accumulators of a total >= 0, the lower two in [0, 2**32)."""
    return total >> 64, (total >> 32) & 0xFFFFFFFF, total & 0xFFFFFFFF


def value(total: int, exponent: int, bits: int = BITS) -> float:
    """Return total * 2**(E - bits), correctly rounded."""
    return ratio(total, exponent - bits, 1, 0)


def ratio(total: int, shift: int, divisor: int, divisor_shift: int) -> float:
    """Return (total * 2**shift) / (divisor * 2**divisor_shift), correctly rounded; Python divides integers so."""
    power = shift - divisor_shift
    return (total << power) / divisor if power >= 0 else total / (divisor << -power)
