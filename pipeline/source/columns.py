"""Files' schemas and the source section -> which columns are read, checked in every file."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import pyarrow as pa

from kmeans_dask.errors import ConfigError, DataError
from pipeline.config import SourceConfig
from pipeline.filters import Filter, bind

RESERVED = ("cluster", "distance", "size")


@dataclass(frozen=True, slots=True)
class Schema:
    """A file's columns, partition directories apart."""

    uri: str
    types: Mapping[str, pa.DataType]
    repeated: frozenset[str]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are used."""

    features: tuple[str, ...]
    ids: tuple[str, ...]
    weight: str | None
    filter: Filter | None


def schema_of(uri: str, schema: pa.Schema, partitions: Iterable[str]) -> Schema:
    """Return a file's columns; a partition directory hides a column of its name."""
    hidden = set(partitions)
    types = {field.name: plain(field.type) for field in schema if field.name not in hidden}
    repeated = frozenset(name for name in types if schema.names.count(name) > 1)
    return Schema(uri, types, repeated)


def plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values, however they are encoded."""
    return plain(type_.value_type) if pa.types.is_dictionary(type_) else type_


def is_number(type_: pa.DataType) -> bool:
    """Whether a column of this type can be a feature or a weight."""
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def choose(source: SourceConfig, schemas: Sequence[Schema], partitions: Mapping[str, pa.DataType]) -> Columns:
    """Return the columns to use; they exist, can be used so, and are the same in every file."""
    first = schemas[0]
    every = {**first.types, **partitions}
    _check_named(source, first, every, partitions)
    features = source.columns or _default_features(source, first)
    _check_features(features, first)
    bound = bind(source.filter, every) if source.filter is not None else None
    used = dict.fromkeys((*features, *source.ids, *filter(None, [source.weight])))
    used |= dict.fromkeys(bound.columns if bound else ())
    names = [name for name in used if name not in partitions]
    _check_repeated(names, first)
    for other in schemas[1:]:
        _check_same(names, first, other)
        if source.columns is None:
            _check_same(_default_features(source, other), other, first)
    return Columns(tuple(features), source.ids, source.weight, bound)


def _default_features(source: SourceConfig, schema: Schema) -> tuple[str, ...]:
    taken = {*source.ids, source.weight}
    features = tuple(name for name, type_ in schema.types.items() if is_number(type_) and name not in taken)
    if not features:
        raise DataError(f"{schema.uri}: no numeric column is left to cluster. Name some in source.columns.")
    return features


def _check_named(
    source: SourceConfig,
    first: Schema,
    every: Mapping[str, pa.DataType],
    partitions: Mapping[str, pa.DataType],
) -> None:
    for key, names in (
        ("columns", source.columns or ()),
        ("ids", source.ids),
        ("weight", () if source.weight is None else (source.weight,)),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"source.{key}: {twice!r} is named twice. Name each column once.")
        for name in names:
            if name not in every:
                _missing(key, name, first, list(every))
            if name in partitions and key != "ids":
                raise ConfigError(
                    f"source.{key}: {name!r} is a partition directory; it can be an id or used in the filter."
                )
    for name in source.ids:
        _check_reserved("ids", name, first)
    if source.weight is not None:
        _check_number("weight", source.weight, first)
        if source.weight in (source.columns or ()):
            raise ConfigError(f"source.weight: {source.weight!r} is also a feature. Choose one use of it.")


def _check_features(features: Sequence[str], first: Schema) -> None:
    for name in features:
        _check_reserved("columns", name, first)
        _check_number("columns", name, first)


def _check_reserved(key: str, name: str, schema: Schema) -> None:
    if name in RESERVED:
        raise ConfigError(
            f"source.{key}: {schema.uri} has a column {name!r}, which is a name of the results. "
            f"List in source.{key} the columns you want without it, or rename it."
        )


def _check_number(key: str, name: str, schema: Schema) -> None:
    type_ = schema.types[name]
    if not is_number(type_):
        raise DataError(
            f"{schema.uri}: column {name!r} is {type_}, not a number. Leave it out of source.{key}, "
            "or write it as a number."
        )


def _check_repeated(names: Sequence[str], schema: Schema) -> None:
    for name in names:
        if name in schema.repeated:
            raise DataError(f"{schema.uri}: two columns are named {name!r}. Rename one of them.")


def _check_same(names: Sequence[str], first: Schema, other: Schema) -> None:
    for name in names:
        expected, found = first.types[name], other.types.get(name)
        if found != expected:
            has = "no such column" if found is None else str(found)
            raise DataError(
                f"schemas disagree on column {name!r}: {first.uri} has {expected}, {other.uri} has {has}. "
                "Write the files alike, or list in source.columns only what they share."
            )
    _check_repeated(names, other)


def _missing(key: str, name: str, schema: Schema, known: list[str]) -> NoReturn:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(known)}."
    raise ConfigError(f"source.{key}: {schema.uri} has no column {name!r}. {hint}")
