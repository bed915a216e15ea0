"""Mutants: small changes to the syntax tree of a module.

A comparison, an operator, a constant by one, a string, an argument, a condition, or a removed
statement, decorator, branch, slice or filter.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Place(NamedTuple):
    """The place of a node in the syntax tree, and the function whose body it is in.

    That is the outermost one, such as `Class.method`; it is empty for code that runs at import.
    """

    parent: ast.AST
    field: str
    at: int | None
    node: ast.AST
    function: str

    def put(self, other: ast.AST) -> None:
        """Replace the node."""
        if self.at is None:
            setattr(self.parent, self.field, other)
        else:
            getattr(self.parent, self.field)[self.at] = other


class Mutant(NamedTuple):
    """One change to a module."""

    place: Place
    other: ast.AST

    @property
    def line(self) -> int:
        """The line of the old code."""
        return getattr(self.place.node, "lineno", 0)

    def __str__(self) -> str:
        """Return the line, the old code and the new code."""
        before, after = (_text(node) for node in (self.place.node, self.other))
        return f"{self.line}: {before}  ->  {after}"


def mutants(tree: ast.Module) -> list[Mutant]:
    """Return all mutants of a module."""
    found = [Mutant(place, other) for place in _places(tree) for other in _others(place)]
    for mutant in found:
        ast.fix_missing_locations(ast.copy_location(mutant.other, mutant.place.node))
    return found


def _places(node: ast.AST, prefix: str = "", function: str = "") -> Iterator[Place]:
    """Yield all executed nodes: no docstrings, imports or type annotations."""
    if isinstance(node, ast.ClassDef):
        prefix += f"{node.name}."
    for field, value in ast.iter_fields(node):
        if field in {"returns", "type_comment"}:
            continue
        if field == "annotation" and not _is_used_at_run_time(value):
            continue
        inside = function
        if isinstance(node, ast.FunctionDef) and field == "body" and not function:
            inside = f"{prefix}{node.name}"
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            if isinstance(item, ast.AST) and not _has_no_effect(item):
                yield Place(node, field, index, item, inside)
                yield from _places(item, prefix, inside)


def _has_no_effect(node: ast.AST) -> bool:
    """Tell whether a change of the node cannot be observed."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "TYPE_CHECKING")]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(value=ast.Subscript(value=ast.Name(id="tuple"))):
            return True
    return False


def _is_used_at_run_time(annotation: ast.AST | None) -> bool:
    """Tell whether an annotation is evaluated at run time."""
    return annotation is not None and ast.unparse(annotation).startswith("Annotated")


def _others(place: Place) -> Iterator[ast.AST]:
    node = place.node
    if isinstance(node, ast.stmt):
        yield from _other_statements(node)
    elif isinstance(node, ast.Constant):
        yield from _other_constants(place)
    elif isinstance(node, ast.expr):
        yield from _other_expressions(node)
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            rest = [*node.ifs[:index], *node.ifs[index + 1 :]]
            yield ast.comprehension(node.target, node.iter, rest, node.is_async)


def _other_statements(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.Return(value=value) if value is not None:
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield ast.Return(ast.Constant(None))
        case ast.Assign() | ast.AugAssign() | ast.Expr() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.If() | ast.While():
            kind = type(node)
            if not isinstance(node.test, ast.Constant):
                yield kind(ast.Constant(value=True), node.body, node.orelse)
                yield kind(ast.Constant(value=False), node.body, node.orelse)
        case ast.For():
            yield ast.For(node.target, ast.Tuple([], ast.Load()), node.body, node.orelse)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.FunctionDef() if node.decorator_list:
            fields = {**dict(ast.iter_fields(node)), "decorator_list": []}
            yield ast.FunctionDef(**fields)


def _other_constants(place: Place) -> Iterator[ast.Constant]:
    value: Any = place.node.value  # type: ignore[attr-defined]
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, str) and not isinstance(place.parent, ast.FormattedValue):
        yield ast.Constant(value + "X")
        if value and not isinstance(place.parent, ast.JoinedStr):
            yield ast.Constant("")
    elif isinstance(value, bytes):
        yield ast.Constant(value + b"X")
        if value:
            yield ast.Constant(b"")
    elif value is None and not isinstance(place.parent, ast.Compare | ast.Subscript | ast.BinOp):
        yield ast.Constant("X")


def _other_expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                for other in COMPARISONS[type(op)]:
                    ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
                    yield ast.Compare(node.left, ops, node.comparators)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp():
            yield node.operand
        case ast.BinOp(op=op) if type(op) in OPERATORS and not _is_type(node):
            yield ast.BinOp(node.left, OPERATORS[type(op)](), node.right)
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.Slice():
            yield from _other_slices(node)
        case ast.Call():
            yield from _other_calls(node)


def _other_slices(node: ast.Slice) -> Iterator[ast.expr]:
    if node.lower is not None:
        yield ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield ast.Slice(node.lower, None, node.step)


def _is_type(node: ast.BinOp) -> bool:
    """Tell whether an expression is a type such as `str | None`."""
    ends = (node.left, node.right)
    return isinstance(node.op, ast.BitOr) and any(
        isinstance(end, ast.Constant) or (isinstance(end, ast.Name) and end.id[0].isupper())
        for end in ends
    )


def _other_calls(node: ast.Call) -> Iterator[ast.expr]:
    arguments = node.args
    for index in range(len(arguments) - 1):
        swapped = [*arguments]
        swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
        yield ast.Call(node.func, swapped, node.keywords)
    for index in range(len(node.keywords)):
        rest = [*node.keywords[:index], *node.keywords[index + 1 :]]
        yield ast.Call(node.func, arguments, rest)
    if len(arguments) > 1:
        yield ast.Call(node.func, arguments[:-1], node.keywords)
    if len(arguments) == 1 and not node.keywords:
        yield arguments[0]


def _text(node: ast.AST) -> str:
    """Return the first line of a node's source."""
    if isinstance(node, ast.Slice | ast.comprehension):
        node = ast.Subscript(ast.Name("_"), node) if isinstance(node, ast.Slice) else node
    text = ast.unparse(node).strip()
    return text if len(text) <= 100 and "\n" not in text else f"{text.splitlines()[0][:100]} ..."
