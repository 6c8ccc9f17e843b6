"""Conditions on catalog rows as people write them: ``split == 'train' and scores['noise/ct/sd'] < 20``.

Column names, numbers, quoted text; ``== != < <= > >=``, ``in [...]``, ``not in [...]``, ``is None``, ``and``, ``or``, ``not``.
``scores['<check>/<score>']`` is a score. A comparison with something a case does not have is false. Nothing is executed: the text
is parsed and turned into a filter of Arrow.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.errors import StoreError
from ctmr_core.store.catalog import SCHEMA

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
COLUMNS = tuple(field.name for field in SCHEMA if not pa.types.is_nested(field.type))


def parse_where(text: str) -> pc.Expression:
    """The filter that ``text`` stands for; ``StoreError`` names what can't be understood."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise StoreError(
            "the condition can't be read", where=f"column {error.offset}", found=text, allowed="split == 'train' and bytes < 1e8"
        ) from error
    return _condition(tree.body, text)


def _condition(node: ast.AST, text: str) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        parts = [_condition(value, text) for value in node.values]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined & part if isinstance(node.op, ast.And) else joined | part
        return joined
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_condition(node.operand, text)
    if isinstance(node, ast.Compare):
        return _comparison(node, text)
    raise _refused(node, text, "a comparison, joined by and, or, not")


def _comparison(node: ast.Compare, text: str) -> pc.Expression:
    joined: pc.Expression | None = None
    left = node.left
    for operation, right in zip(node.ops, node.comparators, strict=True):
        part = _compared(left, operation, right, text)
        joined = part if joined is None else joined & part
        left = right
    assert joined is not None  # noqa: S101 - a comparison has an operator
    return joined


def _compared(left: ast.expr, operation: ast.cmpop, right: ast.expr, text: str) -> pc.Expression:
    if isinstance(operation, (ast.In, ast.NotIn)):
        if not isinstance(right, (ast.List, ast.Tuple)):
            raise _refused(right, text, "a list, as in split in ['train', 'val']")
        within = _value(left, text).isin([_constant(item, text) for item in right.elts])
        return ~within if isinstance(operation, ast.NotIn) else within
    if isinstance(operation, (ast.Is, ast.IsNot)):
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise _refused(right, text, "None after is")
        missing = _value(left, text).is_null()
        return ~missing if isinstance(operation, ast.IsNot) else missing
    compare = _COMPARED[type(operation)]
    found: pc.Expression = compare(_value(left, text), _value(right, text))
    # a score that a case does not have makes a comparison null; it is false, and its opposite true
    return pc.coalesce(found, pc.scalar(False))


def _value(node: ast.AST, text: str) -> pc.Expression:
    if isinstance(node, ast.Name):
        if node.id not in COLUMNS:
            raise StoreError("the catalog has no such plain column", where=text, found=node.id, allowed=[*COLUMNS, "scores[...]"])
        return pc.field(node.id)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "scores":
        name = _constant(node.slice, text)
        if not isinstance(name, str):
            raise _refused(node, text, "the name of a score, as in scores['noise/ct/sd']")
        return pc.map_lookup(pc.field("scores"), pa.scalar(name), "first")
    return pc.scalar(_constant(node, text))


def _constant(node: ast.AST, text: str) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand, text)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float)):
        return node.value
    raise _refused(node, text, "a column, a number or text in quotes")


def _refused(node: ast.AST, text: str, allowed: str) -> StoreError:
    return StoreError("the condition can't be understood", where=text, found=ast.unparse(node), allowed=allowed)
