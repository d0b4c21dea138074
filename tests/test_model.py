"""A model's two files: the same bits back, refused when damaged, described by a schema."""

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kmeans_dask import kmeans, predict
from kmeans_dask.errors import ModelError
from kmeans_dask.model import JSON_NAME, PARQUET_NAME, Iteration, Model, from_bytes, to_bytes
from kmeans_dask.packing import Preparation

SCHEMA = json.loads((resources.files("kmeans_dask") / "schemas" / "model.schema.json").read_text())
FIELDS = ("inertia", "distortion", "n_iter", "stop", "restart", "seed", "init", "history", "feature_names")
ARRAYS = ("centroids", "cluster_ids", "sizes")

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
costs = st.floats(0, allow_infinity=False)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Return a model of any finite numbers."""
    k, d = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    names = draw(
        st.lists(texts, min_size=d, max_size=d, unique=True)
        .filter(lambda names: not {"cluster", "size"} & set(names))
    )  # fmt: skip
    numbers = [np.array(draw(st.lists(finite, min_size=d, max_size=d))) for _ in range(4)]
    numbers[2] = np.abs(numbers[2])
    preparation = Preparation(
        tuple(names), draw(st.sampled_from(["float32", "float64"])), *numbers,
        draw(st.sampled_from(["error", "drop", "mean"])), draw(st.sampled_from(["none", "standard"])),
    )  # fmt: skip
    history = tuple(
        Iteration(i + 1, draw(costs), draw(costs), draw(st.integers(0, 2**40)))
        for i in range(draw(st.integers(0, 3)))
    )
    return Model(
        np.array(draw(st.lists(finite, min_size=k * d, max_size=k * d))).reshape(k, d),
        np.array(draw(st.lists(st.integers(0, 2**31 - 1), min_size=k, max_size=k, unique=True)), np.int32),
        np.array(draw(st.lists(st.integers(0, 2**62), min_size=k, max_size=k)), np.int64),
        draw(costs), draw(costs), draw(st.integers(1, 300)), draw(st.sampled_from(["converged", "tol"])),
        draw(st.integers(0, 99)), draw(st.integers(0, 2**63 - 1)), draw(st.sampled_from(["k-means||", "given"])),
        history, preparation,
    )  # fmt: skip


def fitted(seed: int = 0) -> Model:
    """Return a small fitted model."""
    return kmeans(np.random.default_rng(0).normal(size=(200, 3)), 4, n_init=2, seed=seed)


def assert_same(a: Model, b: Model) -> None:
    """Every field has the same bits and types."""
    for name in ARRAYS:
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    for name in FIELDS:
        assert repr(getattr(a, name)) == repr(getattr(b, name))
    for name in ("shift", "center", "scale", "fill"):
        assert getattr(a.preparation, name).tobytes() == getattr(b.preparation, name).tobytes()
    assert a.preparation.equals(b.preparation)
    assert (a.preparation.nulls, a.preparation.scaling) == (b.preparation.nulls, b.preparation.scaling)


@settings(max_examples=100)
@given(models())
def test_a_model_comes_back_to_the_bit(model: Model) -> None:
    """Any finite numbers, -0.0 and subnormals included; and the same files again."""
    files = to_bytes(model)
    again = from_bytes(files[JSON_NAME], files[PARQUET_NAME])
    assert_same(model, again)
    assert to_bytes(again) == files


@settings(max_examples=40)
@given(models())
def test_model_json_fits_its_schema(model: Model) -> None:
    """What is written is what the shipped schema describes."""
    Draft202012Validator(SCHEMA).validate(json.loads(to_bytes(model)[JSON_NAME]))


def test_the_schema_is_one() -> None:
    """It is a valid schema, and refuses a key that no model has."""
    Draft202012Validator.check_schema(SCHEMA)
    document = json.loads(to_bytes(fitted())[JSON_NAME])
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(document)
    assert not validator.is_valid({**document, "created": "2026-11-21"})
    assert not validator.is_valid({key: value for key, value in document.items() if key != "seed"})


def test_equal_fits_have_equal_files() -> None:
    """No time, run id, host or process leaves a trace; another seed does."""
    assert to_bytes(fitted()) == to_bytes(fitted())
    assert to_bytes(fitted()) != to_bytes(fitted(seed=1))


def test_model_parquet_is_plain_parquet() -> None:
    """Any reader finds cluster, size and one float64 column per feature, with page checksums."""
    model = fitted()
    file = pq.ParquetFile(io.BytesIO(to_bytes(model)[PARQUET_NAME]), page_checksum_verification=True)
    table = file.read()
    assert [f"{field.name}: {field.type}" for field in table.schema] == [
        "cluster: int32", "size: int64", "x0: double", "x1: double", "x2: double",
    ]  # fmt: skip
    assert np.array_equal(np.column_stack([table[f"x{f}"].to_numpy() for f in range(3)]), model.centroids)
    assert table["cluster"].to_pylist() == [0, 1, 2, 3]
    assert sum(table["size"].to_pylist()) == 200


def test_a_stored_model_predicts_the_labels_of_its_fit() -> None:
    """Read back, also from a disk, it labels the same rows the same; with its ids, not the places of its rows."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    model = kmeans(X, 4, n_init=2)
    files = to_bytes(model)
    again = from_bytes(files[JSON_NAME], files[PARQUET_NAME])
    labels = predict(again, X)
    assert np.array_equal(labels, predict(model, X))
    assert np.bincount(labels, minlength=4).tolist() == model.sizes.tolist()
    renamed = replace(again, cluster_ids=np.array([7, 3, 11, 0], np.int32))
    assert np.array_equal(predict(renamed, X), renamed.cluster_ids[labels])


# Damage -----------------------------------------------------------------------------------


def edited(change: Callable[[dict[str, Any]], object]) -> tuple[bytes, bytes]:
    """Return the files of a model, its document changed."""
    files = to_bytes(fitted())
    document = json.loads(files[JSON_NAME])
    change(document)
    return json.dumps(document).encode(), files[PARQUET_NAME]


def test_another_format_or_version_is_refused() -> None:
    """The error names the place, what was found and what to do."""
    with pytest.raises(
        ModelError,
        match=r"out/m: model version 2; this kmeans-dask reads version 1\. Fit the model again, or use",
    ):
        from_bytes(*edited(lambda d: d.update(version=2)), "out/m")
    with pytest.raises(ModelError, match=r"out/m: format 'onnx' is not 'kmeans-dask-model'\. Name a model"):
        from_bytes(*edited(lambda d: d.update(format="onnx")), "out/m")
    with pytest.raises(ModelError, match=r"format None is not"):
        from_bytes(b"[1, 2]", b"")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"format": "kmeans-dask-model"'])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """The error says so."""
    with pytest.raises(ModelError, match=r"the model: model\.json is not JSON .* Fit the model again"):
        from_bytes(text, to_bytes(fitted())[PARQUET_NAME])


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no seed": lambda d: d.pop("seed"),
    "no preparation": lambda d: d.pop("preparation"),
    "preparation of nothing": lambda d: d.update(preparation=None),
    "no features": lambda d: d["preparation"].update(features=[]),
    "another feature": lambda d: d["preparation"]["features"][0].update(name="other"),
    "a feature without a shift": lambda d: d["preparation"]["features"][0].pop("shift"),
    "a shift of text": lambda d: d["preparation"]["features"][0].update(shift="far"),
    "a shift of null": lambda d: d["preparation"]["features"][0].update(shift=None),
    "another dtype": lambda d: d["preparation"].update(dtype="float16"),
    "history of nothing": lambda d: d.update(history=3),
    "an iteration with another key": lambda d: d["history"][0].update(loss=1),
    "inertia of text": lambda d: d.update(inertia="low"),
    "inertia of null": lambda d: d.update(inertia=None),
    "a fraction of an iteration": lambda d: d.update(n_iter=2.5),
    "another number of clusters": lambda d: d.update(n_clusters=5),
    "no number of clusters": lambda d: d.pop("n_clusters"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_document_is_refused(damage: str) -> None:
    """Whatever is missing or of another type: a ModelError that names the place, never another error."""
    with pytest.raises(ModelError, match=r"out/m: .*Fit the model again"):
        from_bytes(*edited(DAMAGE[damage]), "out/m")


def test_a_truncated_file_is_refused() -> None:
    """Cut anywhere, model.parquet is refused; so is model.json, but for its last newline."""
    files = to_bytes(fitted())
    text, table = files[JSON_NAME], files[PARQUET_NAME]
    for stop in range(0, len(table), 7):
        with pytest.raises(ModelError):
            from_bytes(text, table[:stop])
    for stop in range(0, len(text) - 2, 7):
        with pytest.raises(ModelError):
            from_bytes(text[:stop], table)


def test_a_flipped_byte_is_refused_or_changes_nothing() -> None:
    """Of each byte of model.parquet: what matters is under a checksum or checked."""
    model = fitted()
    text, table = to_bytes(model)[JSON_NAME], to_bytes(model)[PARQUET_NAME]
    refused = 0
    for at in range(len(table)):
        flipped = bytearray(table)
        flipped[at] ^= 0x10
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = from_bytes(text, bytes(flipped))
        except ModelError:
            refused += 1
        else:
            assert_same(found, model)
    assert refused > len(table) / 3


def test_files_of_two_models_do_not_mix(tmp_path: Path) -> None:
    """A document with the centroids of a model of another k or other features is refused."""
    four = to_bytes(fitted())
    X = np.random.default_rng(0).normal(size=(50, 3))
    five = to_bytes(kmeans(X, 5, n_init=1))
    two_features = to_bytes(kmeans(X[:, :2], 4, n_init=1))
    with pytest.raises(ModelError, match=r"model\.parquet does not belong to model\.json"):
        from_bytes(four[JSON_NAME], five[PARQUET_NAME])
    with pytest.raises(ModelError, match=r"damaged .*x2"):
        from_bytes(four[JSON_NAME], two_features[PARQUET_NAME])
