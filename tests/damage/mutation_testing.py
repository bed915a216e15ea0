"""Mutation testing: small changes to a module, each of which the unit tests must detect.

python -m tests.damage.mutation_testing [MODULE[:LINE]...]

Each mutant runs in a process of its own, and survives if all unit tests of the module's folder
pass. Most are caught by a process that has collected the tests and replaces one function; code that
runs at import needs a process that has imported everything but tetrad, and so do the mutants that
the first one does not catch. Survivors are printed as `file:line`, the old code and the new code.
The source files do not change.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import itertools
import math
import os
import resource
import sys
import time
import types
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import hypothesis
import jsonschema
import msgspec
import pytest
import yaml

from tests.support.mutants import Mutant, mutants
from tests.support.project import ROOT

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Sequence

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
"""How many times the usual CPU time, and a second, the tests of a mutant may take until caught."""

OPTIONS = (
    *("-x", "-q", "--tb=no", "-o", "addopts=", "-o", "tmp_path_retention_policy=failed"),
    *("-p", "no:cacheprovider", f"--confcutdir={UNIT_TESTS}", "--hypothesis-profile=mutants"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
"""Stop at the first failed test. pytest would warn that hypothesis is imported already."""

PRELOADED = (jsonschema, msgspec, yaml)
"""Modules imported once for all mutants."""


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


class Order:
    """A plugin of pytest that begins with a module's own tests, and with those of one example."""

    def __init__(self, name: str) -> None:
        self._own = f"test_{name.partition('.')[2]}"

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        """Sort the tests."""
        items.sort(key=lambda item: (not item.path.name.startswith(self._own), is_random(item)))


def is_random(item: pytest.Function) -> bool:
    """Tell whether a test generates examples."""
    return hasattr(item.function, "hypothesis")


def run_tests(name: str, *plugins: object) -> bool:
    """Run the unit tests of a module's folder, and tell whether they pass."""
    folder = UNIT_TESTS.joinpath(name.partition(".")[0])
    return not pytest.main([*OPTIONS, str(folder)], [Order(name), *plugins])


def trial(run: Callable[[], bool], seconds: float) -> Trial:
    """Run tests in a process of its own, for at most so many seconds of CPU time."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
        discard_output()
        os._exit(not run())
    _, status, used = os.wait4(child, 0)
    return Trial(status == 0, used.ru_utime + used.ru_stime)


def discard_output() -> None:
    """Let the standard streams be the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def passes(name: str, mutant: Mutant | None, tree: ast.Module) -> bool:
    """Import a module with or without a mutant, and tell whether its tests pass."""
    try:
        if mutant is not None:
            mutant.place.put(mutant.other)
        sys.meta_path.insert(0, MutantFinder(f"tetrad.{name}", path_of(name), tree))
        return run_tests(name)
    except BaseException:  # noqa: BLE001 - any exception means that the mutant was caught
        return False


class FunctionTrials:
    """A plugin of pytest that runs the collected tests once for each mutant of a function.

    The process of a trial replaces the code of the function, which is much faster than importing
    the module and collecting the tests again. The indices of caught mutants go to a pipe.
    """

    def __init__(self, name: str, tree: ast.Module, found: list[Mutant], pipe: int) -> None:
        self._name = name
        self._tree = tree
        self._found = found
        self._pipe = pipe

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests for each mutant instead of once."""
        gc.freeze()  # a collection in each process would copy all memory
        unchanged = trial(lambda: self._passes(session, None), 300.0)
        most = CPU_FACTOR * unchanged.seconds + 1
        for index, mutant in enumerate(self._found if unchanged.passed else []):
            if (
                mutant.place.function
                and not trial(partial(self._passes, session, mutant), most).passed
            ):
                os.write(self._pipe, b"%d\n" % index)
        return True

    def _passes(self, session: pytest.Session, mutant: Mutant | None) -> bool:
        if mutant is not None and not self._replace(mutant):
            return True
        for item, following in itertools.zip_longest(session.items, session.items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return False
        return True

    def _replace(self, mutant: Mutant) -> bool:
        """Replace the code of a mutant's function; False if it cannot be replaced."""
        mutant.place.put(mutant.other)
        name = mutant.place.function
        found: object = sys.modules[f"tetrad.{self._name}"]
        for part in name.split("."):
            found = inspect.getattr_static(found, part)
        if hasattr(found, "cache_clear"):
            found.cache_clear()
        for attribute in ("fget", "__func__", "__wrapped__"):
            found = getattr(found, attribute, found)
        try:
            whole = compile(self._tree, str(path_of(self._name)), "exec")
            found.__code__ = code_of(whole, name)  # type: ignore[attr-defined]
        except (AttributeError, SyntaxError, ValueError):
            return False
        return True


def code_of(code: types.CodeType, function: str) -> types.CodeType:
    """Return the code of a function in the code of its module. Raises ValueError."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    for one in inner:
        if one.co_qualname == function:
            return one
    for one in inner:
        if function.startswith(f"{one.co_qualname}."):
            return code_of(one, function)
    raise ValueError(function)


def caught_in_functions(name: str, tree: ast.Module, found: list[Mutant]) -> set[int]:
    """Return the indices of mutants that tests catch where only the code of a function changes."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(reads)
        discard_output()
        run_tests(name, FunctionTrials(name, tree, found, writes))
        os._exit(0)
    os.close(writes)
    with open(reads, encoding="ascii") as lines:
        caught = set(map(int, lines))
    os.waitpid(child, 0)
    return caught


def report_survivors(name: str, line: int = 0) -> None:
    """Test the mutants of a module, or of one line of it, and print the survivors."""
    source = path_of(name).read_text("utf-8")
    tree = ast.parse(source)
    found = [mutant for mutant in mutants(tree) if line in {0, mutant.line}]
    assert found, f"{name} has no code to change in line {line}"
    unchanged = trial(partial(passes, name, None, tree), 300.0)
    assert unchanged.passed, f"the tests of {name} fail without a mutant"
    most = CPU_FACTOR * unchanged.seconds + 1
    began = time.monotonic()
    caught = caught_in_functions(name, tree, found)
    for index, mutant in enumerate(found):
        if index in caught:
            continue
        if trial(partial(passes, name, mutant, tree), most).passed:
            print_line(f"  {path_of(name).relative_to(SOURCE)}:{mutant}")
        else:
            caught.add(index)
    seconds = time.monotonic() - began
    share = 100 * len(caught) / len(found)
    print_line(f"{name}: {len(caught)} of {len(found)} caught, {share:.1f} % ({seconds:.0f} s)")


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
