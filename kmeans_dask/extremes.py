"""The lowest and highest value of each feature, lane by lane while rows are looked at."""

from typing import Any

import numpy as np
import numpy.typing as npt

from kmeans_dask.tiles import TILE

EXTREMES = "extremes"  # in the cache of a block, by packing
Floats = npt.NDArray[np.float64]
Lanes = npt.NDArray[Any]


def no_extremes(n_features: int, dtype: npt.DTypeLike) -> Lanes:
    """Return the extremes of no rows by lane, (2, n_features, 128)."""
    lanes = np.full((2, n_features, TILE), np.inf, dtype)
    lanes[1] = -np.inf
    return lanes


def room_to_widen(dtype: npt.DTypeLike) -> Lanes:
    """Return the work array of `kernels.widen`."""
    return np.empty((2, TILE), dtype)


def of_lanes(lanes: Lanes) -> tuple[Floats, Floats]:
    """Return each feature's extremes, (n_features,), of those of its lanes; NaN without a value."""
    lowest, highest = lanes[0].min(axis=1) + 0.0, lanes[1].max(axis=1) + 0.0  # + 0.0: there is one zero
    lowest, highest = lowest.astype(np.float64), highest.astype(np.float64)
    some = lowest <= highest
    return np.where(some, lowest, np.nan), np.where(some, highest, np.nan)
