"""Arrays or blocks in, a model out."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from kmeans_dask import passes, repeats
from kmeans_dask.blocks import Block, Blocks, Floats, Labels
from kmeans_dask.errors import ConfigError, DataError, ModelError
from kmeans_dask.lloyd import Fit, Hook, Motion
from kmeans_dask.local_blocks import LocalBlocks
from kmeans_dask.model import Model, model_of
from kmeans_dask.packing import LARGEST, Preparation, RowRange, Wishes, finish, narrowed, pack, provisional
from kmeans_dask.restarts import Settings, best, concurrently, fit_of, refine_of, restarts_of
from kmeans_dask.seeding import METHODS
from kmeans_dask.tiles import TILE, padded

METRICS = ("euclidean", "cosine")
_TILES_PER_BLOCK = 512
_FEW_BYTES = 4 * 2**20  # below, a block is not worth a thread of its own
_BLOCK_BYTES = 64 * 2**20
_CHECKED_ROWS = 4096  # rows checked at once
_WORTH_A_THREAD = 2**20  # numbers to check
_HEAVIEST = 2.0**200  # so that weight * squared distance neither overflows nor vanishes
Array = npt.NDArray[Any]


def kmeans(
    data: npt.ArrayLike | Blocks,
    n_clusters: int,
    *,
    init: str | npt.ArrayLike | Model = "k-means||",
    n_init: int | Literal["auto"] = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    max_seconds: float | None = None,
    seed: int = 0,
    dtype: Literal["float32", "float64"] | None = None,
    metric: str = "euclidean",
    frozen_centroids: Sequence[int] = (),
    refine: bool | Literal["auto"] = "auto",
    weights: npt.ArrayLike | None = None,
    preparation: Preparation | None = None,
    hook: Hook = lambda progress: None,
    n_threads: int | None = None,
) -> Model:
    """Return the model of lowest inertia among n_init restarts.

    data: (n_samples, n_features) of finite numbers, never changed; or blocks with the preparation that made them.
    init: "k-means||", "k-means++", "random", a model, or centroids in the data's units: (n_clusters, n_features), or
    (n_init, n_clusters, n_features), a start for each restart. n_init: "auto" is 1 for one given start or with
    refine, else 10.
    tol: stop when the squared shift of the centroids is within tol times the mean feature variance; 0: when no label
    changes. dtype: by default float32 data stay float32 and all other are float64, whose numbers lie in float32 where
    it holds them exactly, which changes no bit. weights: (n_samples,) >= 0.
    metric: "cosine" is spherical k-means: rows and centroids of unit length. frozen_centroids: indices of a given
    start's centroids that do not move. refine: search on from where each restart ends, by moving centroids from where
    they are useless to where they are missing; "auto": unless n_init or the start is given.
    hook: called with each iteration's `Progress`, of a search that makes several at once with the last one's; returning
    True stops that restart.
    Raises ConfigError, DataError or TooFewSamplesError; warns of fewer distinct rows than clusters.
    """
    check_settings(n_clusters, init, n_init, max_iter, tol, max_seconds)
    check_calls(seed, hook)
    motion = motion_of(metric, frozen_centroids, init, n_clusters)
    threads = threads_of(n_threads)
    with ExitStack() as stack:
        blocks: Blocks
        if hasattr(data, "map_reduce"):
            blocks = cast("Blocks", data)
            known = weights is None and dtype is None
            if preparation is None or not known or metric not in ("euclidean", preparation.metric):
                raise ConfigError(
                    "blocks hold their dtype, weights and metric already, and need the preparation that made them. "
                    "Give `blocks_of` dtype, weights and metric, and pass the preparation it returns."
                )
            motion = replace(motion, unit=preparation.metric == "cosine")
        else:
            check_no_preparation(preparation)
            blocks, preparation = blocks_of(
                data, dtype=dtype, weights=weights, metric=metric, n_threads=threads
            )
            stack.callback(blocks.close)
        start = init if isinstance(init, str) else start_centroids(init, preparation, n_clusters)
        settings = Settings(
            n_clusters,
            start,
            n_init,
            max_iter,
            tol,
            max_seconds,
            seed,
            motion,
            refine_of(refine, init, n_init),
        )
        name = init if isinstance(init, str) else "given"
        model = fitted(blocks, preparation, settings, name, hook, threads)
    warn_of_empty(model, motion.frozen)
    return model


def predict(model: Model, data: npt.ArrayLike, *, n_threads: int | None = None) -> Labels:
    """Return the cluster id of each row, (n_samples,) int32: on the rows of a fit, that fit's labels."""
    with prepared_blocks_of(data, model.preparation, n_threads=n_threads) as blocks:
        return labels_of(model, blocks)


def labels_of(model: Model, blocks: LocalBlocks) -> Labels:
    """Return the cluster id of each row of blocks whose row ids are 0 to n_samples - 1."""
    labels = np.empty(blocks.summary.n_samples, np.int32)

    def write(some: Sequence[Block]) -> int:
        scan = passes.scan_of(model.centroids, blocks.dtype)
        for block in some:
            labels[block.row_ids()] = passes.labels_of(block, model.centroids, scan)
        return 0

    blocks.map_reduce(write, combine=int.__add__)
    found: Labels = model.cluster_ids[labels]
    return found


def blocks_of(
    data: npt.ArrayLike,
    *,
    dtype: str | None = None,
    weights: npt.ArrayLike | None = None,
    metric: str = "euclidean",
    names: Sequence[str] | None = None,
    n_threads: int | None = None,
) -> tuple[LocalBlocks, Preparation]:
    """Return an array's rows as blocks of this process, and how they were prepared; names: of its features."""
    if not (dtype is None or (isinstance(dtype, str) and dtype in LARGEST)):
        raise ConfigError(f"dtype must be 'float32' or 'float64'; found {dtype!r}.")
    check_name("metric", metric, METRICS)
    threads = threads_of(n_threads)
    columns = columns_of(data, None, threads)
    if names is not None and (
        isinstance(names, str) or len(set(names)) < len(names) or len(names) != len(columns)
    ):
        raise ConfigError(
            f"names must be a different one for each of the {len(columns)} features of the data; found {names!r}."
        )
    stored = dtype or ("float32" if columns[0].dtype == np.float32 else "float64")
    named = tuple(names or (f"x{f}" for f in range(len(columns))))
    preparation = provisional(columns, Wishes(named, stored, metric=metric), threads)
    stored_as = preparation if dtype else narrowed(columns, preparation)
    blocks = _packed(columns, stored_as, weights_of(weights, len(columns[0])), n_threads)
    return LocalBlocks(blocks, n_threads), preparation


def threads_of(n_threads: int | None) -> int:
    """Return how many threads shall be used, all cores by default; refuse what is no such number."""
    if n_threads is None:
        return len(os.sched_getaffinity(0))
    check_counts(n_threads=n_threads)
    return n_threads


def fitted(
    blocks: Blocks, preparation: Preparation, settings: Settings, init: str, hook: Hook, n_threads: int
) -> Model:
    """Return the model of lowest inertia among the restarts; init: how the model shall name their start."""
    fit = best(concurrently(hook, n_threads)(fit_of(blocks, settings), restarts_of(settings)))
    return model_of(fit, preparation, init)


def prepared_blocks_of(
    data: npt.ArrayLike,
    preparation: Preparation,
    *,
    weights: npt.ArrayLike | None = None,
    n_threads: int | None = None,
) -> LocalBlocks:
    """Return an array's rows as blocks of this process, prepared as other rows were, for a pass or two."""
    threads = threads_of(n_threads)
    columns = columns_of(data, len(preparation.feature_names), threads)
    blocks = _packed(columns, preparation, weights_of(weights, len(columns[0])), n_threads, order=False)
    return LocalBlocks(blocks, n_threads)


def packed(
    columns: Sequence[Array] | Array,
    preparation: Preparation,
    weights: Floats | None,
    *,
    first_row: int = 0,
    pool: Executor | None = None,
    block_rows: int = _TILES_PER_BLOCK * TILE,
    order: bool = True,
    by_kind: bool = False,
) -> list[Block]:
    """Return columns (n,) as blocks of consecutive rows from first_row on, at least one.

    pool: where they are made. order: rows by nearness, which pays from the second pass on; by_kind: see
    `packing.pack`.
    """

    def block(first: int) -> Block:
        some = slice(first, first + block_rows)
        where = RowRange(first_row + first, min(block_rows, len(columns[0]) - first))
        found = pack(
            columns[:, some] if isinstance(columns, np.ndarray) else [column[some] for column in columns],
            where,
            preparation,
            None if weights is None else weights[some],
            order=order,
            by_kind=by_kind,
        )
        return found if preparation.is_final_when_packed else finish(found, preparation, order=order)

    return list((pool.map if pool else map)(block, range(0, max(1, len(columns[0])), block_rows)))


def _packed(
    columns: Sequence[Array] | Array,
    preparation: Preparation,
    weights: Floats | None,
    n_threads: int | None,
    *,
    order: bool = True,
) -> list[Block]:
    threads = n_threads or len(os.sched_getaffinity(0))
    # Large blocks order their rows better; each thread should have as many as any other.
    row_bytes = padded(len(columns)) * np.dtype(preparation.dtype).itemsize
    rounds = -(-len(columns[0]) * row_bytes // (threads * _BLOCK_BYTES))
    share = -(-len(columns[0]) // (threads * rounds))
    few = max(1, min(_TILES_PER_BLOCK, _FEW_BYTES // (row_bytes * TILE)))
    block_rows = max(-(-share // TILE), few) * TILE
    # Not where threads cut blocks between them, nor where distinct rows are not kept.
    is_whole = threads == 1 or -(-share // TILE) >= few
    by_kind = is_whole and len(columns[0]) * row_bytes <= repeats.MOST_BYTES
    with ThreadPoolExecutor(threads) as pool:
        return packed(
            columns, preparation, weights, pool=pool, block_rows=block_rows, order=order, by_kind=by_kind
        )


def columns_of(data: npt.ArrayLike, n_features: int | None = None, n_threads: int = 1) -> Array:
    """Return the features of (n_samples, n_features) finite numbers as float32 or float64 columns."""
    X = _array(data, "data", None)
    if X.ndim != 2 or 0 in X.shape:
        raise DataError(
            f"data must be (n_samples, n_features), neither zero; found shape {X.shape}. Reshape it."
        )
    if n_features is not None and X.shape[1] != n_features:
        raise DataError(
            f"the model has {n_features} features; the data have {X.shape[1]}. Pass the same columns."
        )
    if X.dtype not in (np.float32, np.float64):
        if X.dtype.kind not in "iuf":
            raise DataError(f"data must be numbers; found dtype {X.dtype}. Encode them as numbers first.")
        X = X.astype(np.float64)
    bad = n_not_finite(X, n_threads)
    if bad:
        raise DataError(f"data must be finite; found {bad} NaN or infinite values. Drop or fill them.")
    return X.T


def n_not_finite(X: Array, n_threads: int = 1) -> int:
    """Return how many numbers are NaN or infinite, looked for on so many threads."""
    if n_threads > 1 and X.size >= _WORTH_A_THREAD:
        share = -(-len(X) // n_threads)
        parts = [X[first : first + share] for first in range(0, len(X), share)]
        with ThreadPoolExecutor(n_threads, thread_name_prefix="finite") as pool:
            return sum(pool.map(n_not_finite, parts))
    chunks = (X[a : a + _CHECKED_ROWS] for a in range(0, len(X), _CHECKED_ROWS))
    return sum(int(chunk.size - np.count_nonzero(np.isfinite(chunk))) for chunk in chunks)


def weights_of(weights: npt.ArrayLike | None, n_samples: int, name: str = "weights") -> Floats | None:
    """Return finite weights >= 0 as (n_samples,) float64; errors call them by their name."""
    if weights is None:
        return None
    found = _array(weights, name)
    if found.shape != (n_samples,):
        raise DataError(
            f"{name} must have shape ({n_samples},); found {found.shape}. Give one weight per row."
        )
    bad = found[~(np.isfinite(found) & (found >= 0))]
    if bad.size:
        raise DataError(f"{name} must be finite and >= 0; found {bad[0]}. Mend or drop those rows.")
    heaviest = float(found.max(initial=0.0))
    if heaviest and not 1 / _HEAVIEST <= heaviest <= _HEAVIEST:
        raise DataError(
            f"the largest of {name} must lie between {1 / _HEAVIEST:.3g} and {_HEAVIEST:.3g}; found {heaviest:.6g}. "
            "Multiply all by one power of two: no label changes."
        )
    return found


def check_settings(
    n_clusters: int, init: object, n_init: object, max_iter: int, tol: float, max_seconds: float | None = None
) -> None:
    """Refuse values outside their bounds."""
    if isinstance(n_init, str) and n_init != "auto":
        raise ConfigError(f"n_init must be 'auto' or an integer of at least 1; found {n_init!r}.")
    check_counts(n_clusters=n_clusters, n_init=1 if isinstance(n_init, str) else n_init, max_iter=max_iter)
    if not _is_at_least_0(tol):
        raise ConfigError(f"tol must be >= 0; found {tol!r}. Use 0 to stop only when no label changes.")
    if isinstance(init, str) and init not in METHODS:
        raise ConfigError(f"init must be one of {', '.join(METHODS)}, or centroids; found {init!r}.")
    if max_seconds is not None and not _is_at_least_0(max_seconds):
        raise ConfigError(f"max_seconds must be >= 0, or None for no limit; found {max_seconds!r}.")


def check_calls(seed: object, hook: object) -> None:
    """Refuse a seed that is no integer, and a hook that cannot be called."""
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ConfigError(f"seed must be an integer; found {seed!r}.")
    if not callable(hook):
        raise ConfigError(f"hook must be a function of a Progress; found {hook!r}.")


def check_no_preparation(preparation: Preparation | None) -> None:
    """Refuse a preparation beside an array, whose own would be made."""
    if preparation is not None:
        raise ConfigError(
            "preparation belongs to blocks, and data is an array. Give the blocks that `blocks_of` returned with it, "
            "or leave it out."
        )


def check_name(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse what is none of the known names."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}; found {value!r}.")


def _is_at_least_0(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0


def check_counts(**counts: object) -> None:
    """Refuse what is no integer of at least 1, by its name."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} must be an integer of at least 1; found {value!r}.")


def motion_of(metric: str, frozen: Sequence[int], init: object, n_clusters: int) -> Motion:
    """Return how centroids may move; refuse unknown metrics, and frozen centroids that no start gives."""
    check_name("metric", metric, METRICS)
    found = np.asarray(frozen)
    if found.size == 0:
        return Motion(metric == "cosine")
    indices = [int(j) for j in found.ravel()] if found.dtype.kind in "iu" and found.ndim == 1 else []
    if not indices or min(indices) < 0 or max(indices) >= n_clusters or len(set(indices)) < len(indices):
        raise ConfigError(
            f"frozen_centroids must be different indices of centroids, from 0 to {n_clusters - 1}; found {frozen!r}."
        )
    if isinstance(init, str):
        raise ConfigError(
            f"frozen_centroids are centroids of a given start; init is {init!r}. Give centroids or a model as init."
        )
    return Motion(metric == "cosine", tuple(indices))


def start_centroids(init: npt.ArrayLike | Model, preparation: Preparation, n_clusters: int) -> Floats:
    """Return given centroids or a stored model's in the prepared space, bit for bit if it is the model's own."""
    if isinstance(init, Model):
        same = init.preparation.equals(preparation)
        start = init.centroids if same else preparation.prepared(_in_order(init, preparation.feature_names))
    else:
        start = _array(init, "init")
    expected = (n_clusters, len(preparation.feature_names))
    if start.shape[-2:] != expected or start.ndim > 3 or not start.size:
        raise ConfigError(f"init must have shape {expected} (n_clusters, n_features); found {start.shape}.")
    if not np.isfinite(start).all():
        raise ConfigError("init must be finite; found NaN or infinity. Mend those centroids.")
    start = start if isinstance(init, Model) else preparation.prepared(start)
    if np.abs(start).max() > LARGEST["float64"]:
        raise ConfigError(
            f"init must lie within {LARGEST['float64']:.6g} of the data; found {np.abs(start).max():.6g}. "
            "Mend those centroids."
        )
    if preparation.metric == "cosine" and not start.any(axis=-1).all():
        raise ConfigError(
            "init must hold no centroid of length 0 under metric='cosine'. Mend those centroids."
        )
    return np.ascontiguousarray(start)


def check_start(model: Model, names: Sequence[str], n_clusters: int) -> None:
    """Refuse a stored model as the start of other features or another number of clusters."""
    _check_features(model, names)
    if model.n_clusters != n_clusters:
        raise ModelError(
            f"init: the model has {model.n_clusters} clusters, and n_clusters is {n_clusters}. "
            "Set n_clusters to the model's, or choose another model."
        )


def _check_features(model: Model, names: Sequence[str]) -> None:
    if set(model.feature_names) != set(names):
        raise ModelError(
            f"init: the model has features {', '.join(model.feature_names)}; the data have {', '.join(names)}. "
            "Choose the same columns, or another model."
        )


def _array(values: npt.ArrayLike, name: str, dtype: npt.DTypeLike | None = np.float64) -> Array:
    try:
        found = np.asarray(values)
        if dtype is not None and found.dtype.kind == "c":
            raise TypeError(f"found dtype {found.dtype}")
        return found if dtype is None else found.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} must be an array of numbers ({error}). Give rows of equal length."
        ) from error


def _in_order(model: Model, names: tuple[str, ...]) -> Floats:
    """Return a model's centroids in the user's units, its features in the order of names."""
    _check_features(model, names)
    return model.centroids_in_units()[:, [model.feature_names.index(name) for name in names]]


def warn_of_empty(
    fit: Fit | Model, frozen: Sequence[int] = (), category: type[Warning] = UserWarning, stacklevel: int = 3
) -> None:
    """Warn when clusters stayed empty: a run to the end leaves some only for want of distinct rows, or frozen ones."""
    found = sum(size > 0 or j in frozen for j, size in enumerate(fit.sizes))
    if found < len(fit.sizes):
        ended = (
            "" if fit.stop == "converged" else f", or the run ended ({fit.stop}) before they were refilled"
        )
        # In scikit-learn's words, so that filters of warnings go on working.
        warnings.warn(
            f"Number of distinct clusters ({found}) found smaller than n_clusters ({len(fit.sizes)}). "
            f"Possibly due to duplicate points in X{ended}.",
            category, stacklevel=stacklevel,
        )  # fmt: skip
