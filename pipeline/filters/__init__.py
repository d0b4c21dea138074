"""A filter's text -> which rows it keeps, and which row groups it can keep rows of."""

from pipeline.filters.bound import Filter, Range, bind
from pipeline.filters.grammar import parse

__all__ = ["Filter", "Range", "bind", "parse"]
