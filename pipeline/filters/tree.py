"""A filter as a tree in which `not` has been moved into the comparisons.

That is sound as in SQL: a comparison with a null is neither true nor false, and only true keeps a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kmeans_dask.errors import ConfigError

OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}

_ALLOWED = (
    "Allowed: columns (in backticks if they are not plain names), numbers, strings, True, False, "
    "< <= > >= == !=, in [...], is None, and, or, not, parentheses"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `at` is its position in the text."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A value: int, float, str or bool as written; once bound, the value the column is compared to."""

    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class Compare:
    """`left op right`; null where either is."""

    left: Column
    op: str
    right: Column | Literal


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column is None`, or `is not None` where negated; NaN counts as null."""

    column: Column
    negated: bool


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds."""

    parts: "tuple[Node, ...]"


Node = Compare | IsNull | Every | Either


def columns(node: Node) -> Iterator[Column]:
    """Yield every use of a column, in the order of the text."""
    match node:
        case Compare(left, _, right):
            yield left
            if isinstance(right, Column):
                yield right
        case IsNull(column, _):
            yield column
        case Every(parts) | Either(parts):
            for part in parts:
                yield from columns(part)


def refusal(text: str, at: int, problem: str, *, allowed: bool = False) -> ConfigError:
    """Return the error of a filter; `at` counts from 0."""
    hint = f" {_ALLOWED}." if allowed else ""
    return ConfigError(f"source.filter: {text!r}, at character {at + 1}: {problem}.{hint}")
