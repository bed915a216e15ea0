"""Mutation testing: small changes to a module, each of which the unit tests must detect.

python -m tests.damage.mutation_testing [MODULE[:LINE]...]

Each mutant runs in a process of its own, forked from one that has imported everything but tetrad.
It survives if all unit tests of the module's folder pass. Survivors are printed as
`file:line`, the old code and the new code. The source files do not change.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import math
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis
import jsonschema
import msgspec
import pytest
import yaml

from tests.support.project import ROOT

if TYPE_CHECKING:
    import pathlib
    import types
    from collections.abc import Iterator, Sequence

UNIT_TESTS = ROOT / "tests" / "unit"
SOURCE = ROOT / "src" / "tetrad"

MODULES = (
    "protocol.commands",
    "master.handler_table",
    "master.admission",
    "config.diagnostics",
    "config.types",
    "config.model",
    "config.yaml_reader",
)
"""The modules whose mutants the unit tests of the same folder must detect."""

CPU_FACTOR = 3
"""How many times the usual CPU time the tests of a mutant may take; beyond it counts as caught."""

OPTIONS = (
    *("-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", f"--confcutdir={UNIT_TESTS}"),
    *("--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
"""Stop at the first failed test. pytest would warn that hypothesis is imported already."""

PRELOADED = (jsonschema, msgspec, yaml)
"""Modules imported once for all mutants."""

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
    """The place of a node in the syntax tree."""

    parent: ast.AST
    field: str
    at: int | None
    node: ast.AST

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


def _places(node: ast.AST) -> Iterator[Place]:
    """Yield all executed nodes: no docstrings, imports or type annotations."""
    for field, value in ast.iter_fields(node):
        if field in {"returns", "type_comment"}:
            continue
        if field == "annotation" and not _is_used_at_run_time(value):
            continue
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            if isinstance(item, ast.AST) and not _has_no_effect(item):
                yield Place(node, field, index, item)
                yield from _places(item)


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


class MutantFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a syntax tree."""

    def __init__(self, name: str, path: pathlib.Path, tree: ast.Module) -> None:
        self._name = name
        self._path = path
        self._code = compile(tree, str(path), "exec")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module before any other finder does."""
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: types.ModuleType) -> None:
        """Execute the module."""
        exec(self._code, module.__dict__)  # noqa: S102 - that is what importing is


class Trial(NamedTuple):
    """The result of the tests: whether all passed, and the CPU seconds used."""

    passed: bool
    seconds: float


def path_of(name: str) -> pathlib.Path:
    """Return the file of a module, such as `config.model`."""
    return SOURCE.joinpath(*name.split(".")).with_suffix(".py")


def tests_of(name: str) -> list[list[str]]:
    """Return the tests of a module's own name, then the others of its folder, if there are any."""
    folder, _, module = name.partition(".")
    own = sorted(map(str, UNIT_TESTS.glob(f"{folder}/test_{module}*.py")))
    others = sorted({*map(str, UNIT_TESTS.glob(f"{folder}/test_*.py"))} - {*own})
    return [tests for tests in (own, others) if tests]


def trial(name: str, tree: ast.Module, mutant: Mutant | None, seconds: float) -> Trial:
    """Run a module's tests with or without a mutant, in a process of its own."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
        os._exit(_run(name, mutant, tree))
    _, status, used = os.wait4(child, 0)
    return Trial(status == 0, used.ru_utime + used.ru_stime)


def _run(name: str, mutant: Mutant | None, tree: ast.Module) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    try:
        if mutant is not None:
            mutant.place.put(mutant.other)
        sys.meta_path.insert(0, MutantFinder(f"tetrad.{name}", path_of(name), tree))
        return int(any(pytest.main([*OPTIONS, *tests]) for tests in tests_of(name)))
    except BaseException:  # noqa: BLE001 - any exception means that the mutant was caught
        return 1


def report_survivors(name: str, line: int = 0) -> None:
    """Test the mutants of a module, or of one line of it, and print the survivors."""
    source = path_of(name).read_text("utf-8")
    tree = ast.parse(source)
    found = [mutant for mutant in mutants(tree) if line in {0, mutant.line}]
    unchanged = trial(name, tree, None, 300.0)
    assert unchanged.passed, f"the tests of {name} fail without a mutant"
    most = CPU_FACTOR * (unchanged.seconds + 1)
    began = time.monotonic()
    caught = 0
    for mutant in found:
        if trial(name, tree, mutant, most).passed:
            print_line(f"  {path_of(name).relative_to(SOURCE)}:{mutant}")
        else:
            caught += 1
    seconds = time.monotonic() - began
    share = 100 * caught / len(found)
    print_line(f"{name}: {caught} of {len(found)} caught, {share:.1f} % ({seconds:.0f} s)")


def print_line(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def register_profile() -> None:
    """Use as many random examples as the first set, the same for all mutants, and shrink none."""
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=20,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
    )


def main() -> None:
    """Test the modules that are named, or all in MODULES."""
    register_profile()
    os.chdir(ROOT)
    for argument in sys.argv[1:] or MODULES:
        name, _, line = argument.partition(":")
        report_survivors(name, int(line or 0))


if __name__ == "__main__":
    main()
