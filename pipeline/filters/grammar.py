"""A filter's text -> its tree, through Python's own parser and a list of what is allowed."""

import ast
import math
import re
import warnings

from kmeans_dask.errors import ConfigError
from pipeline.filters.tree import (
    MIRRORED,
    OPPOSITE,
    Column,
    Compare,
    Either,
    Every,
    IsNull,
    Literal,
    Node,
    refusal,
)

_MOST_CHARACTERS = 10_000
# A quoted string is skipped, so that a backtick within it stays.
_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`|[\r\n\t]""")
_QUOTED = "column_in_backticks_"
_OPS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def parse(text: str) -> Node:
    """Return the tree of a filter; ConfigError names the position of what is not allowed."""
    if len(text) > _MOST_CHARACTERS:
        raise refusal(
            text[:40] + "...", 0, f"it has {len(text)} characters; at most {_MOST_CHARACTERS} are read"
        )
    return _Parser(text).node()


class _Parser:
    """One text: its names in backticks stand in for by plain ones, and positions are led back to the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.quoted: dict[str, str] = {}
        self.plain = ""
        self.origin: list[int] = []
        end = 0
        for token in _TOKEN.finditer(text):
            self._take(text[end : token.start()], end)
            self._take(self._stand_in(token), token.start(), fixed=token.group(1) is not None)
            end = token.end()
        self._take(text[end:], end)
        indent = len(self.plain) - len(self.plain.lstrip())
        self.plain, self.origin = self.plain[indent:], [*self.origin[indent:], len(text)]

    def node(self) -> Node:
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # a backslash in a string is no concern of Python's
                tree = ast.parse(self.plain, mode="eval").body
        except SyntaxError as error:
            at = self._origin(max((error.offset or 1) - 1, 0))
            raise refusal(self.text, at, f"not an expression ({error.msg})", allowed=True) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise refusal(self.text, 0, f"not an expression ({error})", allowed=True) from None
        try:
            return self._node(tree, negated=False)
        except RecursionError:
            raise refusal(self.text, 0, "it is nested too deeply") from None

    def _take(self, piece: str, start: int, *, fixed: bool = False) -> None:
        self.plain += piece
        self.origin += [start if fixed else start + i for i in range(len(piece))]

    def _stand_in(self, token: re.Match[str]) -> str:
        name = token.group(1)
        if name is None:
            return " " if token.group() in "\r\n\t" else token.group()
        if not name:
            raise refusal(self.text, token.start(), "the backticks hold no column name")
        identifier = f"{_QUOTED}{len(self.quoted)}"
        self.quoted[identifier] = name
        return identifier

    def _origin(self, index: int) -> int:
        return self.origin[min(index, len(self.origin) - 1)]

    def _at(self, node: ast.expr) -> int:
        before = self.plain.encode()[: node.col_offset]  # the parser counts bytes
        return self._origin(len(before.decode()))

    def _refusal(self, node: ast.expr, problem: str, *, allowed: bool = False) -> ConfigError:
        return refusal(self.text, self._at(node), problem, allowed=allowed)

    def _node(self, node: ast.expr, *, negated: bool) -> Node:
        match node:
            case ast.BoolOp(op, values):
                parts = tuple(self._node(value, negated=negated) for value in values)
                return Every(parts) if isinstance(op, ast.And) != negated else Either(parts)
            case ast.UnaryOp(ast.Not(), operand):
                return self._node(operand, negated=not negated)
            case ast.Compare(first, ops, others):
                sides = [first, *others]
                links = zip(sides, ops, others, strict=False)
                parts = tuple(self._link(*link, negated) for link in links)
                return parts[0] if len(parts) == 1 else Either(parts) if negated else Every(parts)
            case ast.Name():
                return Compare(self._column(node), "==", Literal(not negated, self._at(node)))
        raise self._refusal(node, "this is not a condition", allowed=True)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr, negated: bool) -> Node:
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._refusal(right, "only None can follow 'is'; compare with ==")
            return IsNull(self._column(left), isinstance(op, ast.IsNot) != negated)
        if isinstance(op, ast.In | ast.NotIn):
            return self._member(left, right, isinstance(op, ast.NotIn) != negated)
        return self._compare(self._operand(left), _OPS[type(op)], self._operand(right), negated)

    def _compare(self, left: Column | Literal, op: str, right: Column | Literal, negated: bool) -> Node:
        op = OPPOSITE[op] if negated else op
        if isinstance(left, Column):
            return Compare(left, op, right)
        if isinstance(right, Column):
            return Compare(right, MIRRORED[op], left)
        raise refusal(self.text, left.at, "this compares two values; one side must be a column")

    def _member(self, left: ast.expr, right: ast.expr, negated: bool) -> Node:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
            raise self._refusal(right, "'in' needs a list of values like ['JFK', 'EWR']")
        column, op = self._column(left), "!=" if negated else "=="
        parts = tuple(Compare(column, op, self._literal(item)) for item in right.elts)
        return Every(parts) if negated else Either(parts)

    def _operand(self, node: ast.expr) -> Column | Literal:
        return self._column(node) if isinstance(node, ast.Name) else self._literal(node)

    def _column(self, node: ast.expr) -> Column:
        if not isinstance(node, ast.Name):
            raise self._refusal(node, "a column is needed here", allowed=True)
        return Column(self.quoted.get(node.id, node.id), self._at(node))

    def _literal(self, node: ast.expr) -> Literal:
        match node:
            case ast.Constant(None):
                raise self._refusal(node, "None is not a value to compare with; write 'is None'")
            case ast.Constant(bool() | int() | str() as value):
                return Literal(value, self._at(node))
            case ast.Constant(float(value)) if math.isfinite(value):
                return Literal(value, self._at(node))
            case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, ast.Constant(int() | float() as value)):
                if not isinstance(value, bool):
                    size = self._literal(node.operand).value
                    return Literal(-size if isinstance(sign, ast.USub) else size, self._at(node))
        raise self._refusal(node, "this is not a value", allowed=True)
