"""Filters: what they keep, which row groups they rule out, and how a bad one is told."""

import ast
import datetime as dt
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans_dask.errors import ConfigError
from pipeline.filters import Filter, Range, bind

NAN = float("nan")
TABLE = pa.table(
    {
        "year": pa.array([2012, 2013, 2014, None], pa.int32()),
        "origin": pa.array(["JFK", "EWR", None, "LGA"]).dictionary_encode(),
        "temp": pa.array([1.5, None, NAN, 40.0]),
        "single": pa.array([0.1, 0.2, 0.3, NAN], pa.float32()),
        "half": pa.array([0.5, 1.5, 2.5, None], pa.float16()),
        "late": pa.array([True, False, None, True]),
        "big": pa.array([2**53 + 1, -(2**63), 2**63 - 1, 0], pa.int64()),
        "huge": pa.array([2**64 - 1, 0, 1, 2**53 + 1], pa.uint64()),
        "price": pa.array([Decimal("0.10"), Decimal("10.25"), None, Decimal("-3.00")], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(2013, 1, 1), dt.date(2013, 6, 1), None, dt.date(2014, 1, 1)]),
        "time": pa.array([dt.datetime(2013, 1, 1, h) for h in (0, 6, 12, 18)], pa.timestamp("ns")),  # noqa: DTZ001
        "zoned": pa.array(
            [dt.datetime(2013, 1, 1, h, tzinfo=dt.UTC) for h in (0, 6, 12, 18)],
            pa.timestamp("us", tz="America/New_York"),
        ),
        "dep delay": pa.array([1, 2, 3, 4]),
        "größe": pa.array([1, 2, 3, 4]),
        "xs": pa.array([[1], [2], [3], None]),
    }
)
TYPES = dict(zip(TABLE.schema.names, TABLE.schema.types, strict=True))


def kept(text: str) -> list[int]:
    """Return the rows of TABLE that a filter keeps."""
    return [int(i) for i in np.flatnonzero(bind(text, TYPES).mask({c: TABLE[c] for c in TABLE.column_names}))]


def refusal(text: str) -> str:
    """Return the error of a filter that must be refused."""
    with pytest.raises(ConfigError) as caught:
        bind(text, TYPES)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year >= 2013", [1, 2]),
        ("2013 <= year", [1, 2]),
        ("2012 < year < 2014", [1]),
        ("not (2012 < year < 2014)", [0, 2]),
        ("year < 2012.5", [0]),
        ("year >= 2012.5", [1, 2]),
        ("year == 2013.0", [1]),
        ("year < 99999999999", [0, 1, 2]),
        ("year >= 2013 and origin in ['JFK', 'EWR'] and not (late is None)", [1]),
        ("origin in ('JFK', 'EWR') or temp > 30", [0, 1, 3]),
        ("origin not in ['JFK']", [1, 3]),
        ("not origin in ['JFK']", [1, 3]),
        ("origin is None", [2]),
        ("temp is None", [1, 2]),
        ("temp is not None", [0, 3]),
        ("temp < 100", [0, 3]),
        ("not temp > 100", [0, 3]),
        ("temp != 1.5", [3]),
        ("single == 0.1", [0]),
        ("half >= 1.5", [1, 2]),
        ("late", [0, 3]),
        ("not late", [1]),
        ("late == False", [1]),
        ("late or year == 2013", [0, 1, 3]),
        ("big == 9007199254740993", [0]),
        ("big == 9007199254740992", []),
        ("big > 0.5", [0, 2]),
        ("huge == 9007199254740993", [3]),
        ("huge > 18446744073709551614", [0]),
        ("price == 0.1", [0]),
        ("price > -3", [0, 1]),
        ("day >= '2013-06-01'", [1, 3]),
        ("time < '2013-01-01T12:00:00'", [0, 1]),
        ("zoned < '2013-01-01T12:00:00'", [0, 1]),
        ("zoned < '2013-01-01T12:00:00-05:00'", [0, 1, 2]),
        ("`dep delay` >= 3", [2, 3]),
        ("größe >= 3 and `größe` < 4", [2]),
        ("`dep delay` > year", []),
        ("year > `dep delay`", [0, 1, 2]),
        ("  year >= 2013\n  and late == False ", [1]),
        ("origin == 'a`b`c'", []),
        ("xs is None", [3]),
    ],
)
def test_kept_rows(text: str, rows: list[int]) -> None:
    """A filter keeps the rows for which it is true; a null or NaN makes a comparison unknown."""
    assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("yaer > 3", ["no column 'yaer'", "'year'", "character 1:"]),
        ("year > 3 and `dep dely` > 3", ["'dep dely'", "'dep delay'", "character 14:"]),
        ("größe > 3 and zzz9 > 1", ["'zzz9'", "character 15:"]),
        ("origin > 3", ["'origin'", "string", "compared to 3"]),
        ("year == '2013'", ["'year'", "int32", "'2013'"]),
        ("year == True", ["int32", "True"]),
        ("late == 1", ["bool"]),
        ("year", ["int32"]),
        ("year == 2013.5", ["never equal"]),
        ("huge > -1", ["outside its range"]),
        ("big > 99999999999999999999", ["outside its range"]),
        ("origin > year", ["cannot be compared"]),
        ("xs == 3", ["list"]),
        ("day > '01.06.2013'", ["2013-06-01"]),
        ("time > '2013-01-01T00:00:00+01:00'", ["no time zone"]),
        ("year == None", ["is None"]),
        ("origin in ['JFK', None]", ["is None"]),
        ("origin in []", ["needs a list"]),
        ("origin in 'JFK'", ["needs a list"]),
        ("year is 3", ["only None"]),
        ("1 < 2", ["one side must be a column"]),
        ("True", ["not a condition"]),
        ("year + 1 > 2", ["Allowed:", "character 1:"]),
        ("abs(year) > 2", ["Allowed:"]),
        ("year > 1e999", ["not a value"]),
        ("temp > " + "9" * 400, ["outside its range"]),
        ("year > 2 and", ["not an expression"]),
        ("year > (2", ["not an expression"]),
        ("year = 2", ["not an expression"]),
        ("year > 2) or (late", ["unmatched"]),
        ("`` > 2", ["no column name"]),
        ("year > 2 and lambda: 3", ["Allowed"]),
        ("__import__('os').system('true')", ["Allowed"]),
        ("year.x > 2", ["Allowed"]),
        ("year > 2\0", ["not an expression"]),
        ("(" * 300 + "late" + ")" * 300, ["not an expression"]),
        ("not " * 3000 + "late", ["source.filter"]),
        ("late or " * 2000 + "late", ["at most"]),
        ("", ["not an expression"]),
    ],
)
def test_refused(text: str, parts: list[str]) -> None:
    """A filter that cannot be read or does not fit is told with text, position and rule."""
    message = refusal(text)
    assert [part for part in parts if part not in message] == [], message


def test_pickles() -> None:
    """A bound filter travels to workers."""
    bound = bind("year >= 2013 and `dep delay` < 3", TYPES)
    assert pickle.loads(pickle.dumps(bound)) == bound
    assert bound.columns == ("year", "dep delay")


def test_footers_without_statistics_rule_out_nothing() -> None:
    """Unknown ranges keep a row group."""
    bound = bind("year >= 2013 and temp is None", TYPES)
    assert bound.may_keep({})
    assert bound.may_keep({"year": Range(None, None, None, 5), "temp": Range(0.0, 1.0, 0, 5)})
    assert not bind("temp is not None", TYPES).may_keep({"temp": Range(None, None, 5, 5)})
    assert not bind("origin is None", TYPES).may_keep({"origin": Range("a", "b", 0, 5)})


COMPARISONS = st.builds(
    "{} {} {}".format,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in"]),
    st.integers(-3, 3),
).map(lambda text: text.replace("in ", "in [1, ") + "]" if "in " in text else text)
CONDITIONS = st.recursive(
    COMPARISONS | st.sampled_from(["a is None", "b is not None", "a < b", "-2 < b <= 2"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | inner.map("not ({})".format)
    ),
    max_leaves=6,
)
WHOLE = st.lists(st.none() | st.integers(-3, 3), min_size=1, max_size=8)
REAL = st.none() | st.just(NAN) | st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0])


def holds(text: str, row: dict[str, Any]) -> bool | None:
    """Evaluate a filter on one row with three-valued logic."""
    known = {name: None if value != value else value for name, value in row.items()}

    def walk(part: Any) -> bool | None:
        match part:
            case ast.BoolOp(op, values):
                found = [walk(value) for value in values]
                decisive = isinstance(op, ast.Or)
                return decisive if decisive in found else None if None in found else not decisive
            case ast.UnaryOp(ast.Not(), operand):
                inner = walk(operand)
                return None if inner is None else not inner
        names = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
        tests_null = any(isinstance(node, ast.Is | ast.IsNot) for node in ast.walk(part))
        if not tests_null and any(known[name] is None for name in names):
            return None
        return bool(eval(ast.unparse(part), {}, known))

    return walk(ast.parse(text, mode="eval").body)


@given(text=CONDITIONS, data=st.data())
def test_masks_and_ranges_agree_with_three_valued_logic(text: str, data: st.DataObject) -> None:
    """A mask equals plain Python row by row, and a row group with a kept row is never ruled out."""
    a = data.draw(WHOLE)
    b = data.draw(st.lists(REAL, min_size=len(a), max_size=len(a)))
    arrays = {
        "a": pa.chunked_array([pa.array(a, pa.int64())]),
        "b": pa.chunked_array([pa.array(b, pa.float64())]),
    }
    bound: Filter = bind(text, {"a": pa.int64(), "b": pa.float64()})
    mask = bound.mask({name: arrays[name] for name in bound.columns})
    assert mask.tolist() == [holds(text, {"a": x, "b": y}) is True for x, y in zip(a, b, strict=True)]
    whole = [x for x in a if x is not None]
    real = [y for y in b if y is not None and y == y]
    ranges = {
        "a": Range(min(whole, default=None), max(whole, default=None), a.count(None), len(a)),
        "b": Range(min(real, default=None), max(real, default=None), b.count(None), len(b)),
    }
    assert bound.may_keep(ranges) or not mask.any()
