"""The architecture as the imports show it: layers, owners of libraries, what the master may load.

Every rule is a function that takes modules and returns violations, so that each rule is also run
on a planted violation.
"""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import tetrad
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.quick

SOURCE = Path(tetrad.__file__).parent

FOLDERS = ("benchmarks", "etc", "systemd", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for one in FOLDERS for page in ROOT.glob(f"{one}/**/*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

LAYERS = (
    "cli",
    "helpers",
    "launch",
    "config",
    "master",
    "handler",
    "logger",
    "tls",
    "ipc",
    "protocol",
    "system",
)
"""The folders, from the top down: a folder imports only from itself and from folders below it."""

FORBIDDEN = {
    ("cli", "master"),
    ("cli", "handler"),
    ("launch", "master"),
    ("launch", "handler"),
    ("config", "master"),
    ("config", "handler"),
    ("config", "logger"),
    ("master", "logger"),
}
"""Importing and imported folder: what a process must not know of, although it is further down."""

PUBLIC = {"tetrad", "tetrad.extension"}
"""Modules outside the folders that every folder may import: the version, and the API of jobs."""

LIBRARIES = {
    "argparse": {"cli"},
    "daemon": {"launch"},
    "msgspec": {"cli", "config", "ipc", "launch", "logger"},
    "structlog": {"logger"},
    "yaml": {"config"},
}
"""Libraries, and the only folders that may import them."""

MASTER_MAY_IMPORT = {
    "__future__",
    "_signal",
    "_socket",
    "errno",
    "fcntl",
    "gc",
    "marshal",
    "os",
    "select",
    "stat",
    "sys",
    "time",
}
"""The standard library of the forking process: each page of memory costs every fork."""

FORKING = {"tetrad.system.fork", "tetrad.launch.launcher"}
"""The modules that fork: the launcher to become a daemon, and every other fork in one module."""


class Module(NamedTuple):
    """A module of the package, parsed."""

    name: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The folder under `tetrad`, empty for a module that lies in no folder."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or parts[-1] in LAYERS else ""


class Import(NamedTuple):
    """One imported module, and whether the import statement stands inside a function."""

    name: str
    is_in_function: bool


Modules = dict[str, Module]


def parse(name: str, source: str) -> Module:
    """Parse the source of a module."""
    return Module(name, ast.parse(source, name))


def read_package() -> Modules:
    """Parse every module of the package."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("tetrad", *path.relative_to(SOURCE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = parse(name, path.read_text("utf-8"))
    return found


def is_for_types(node: ast.AST) -> bool:
    """Tell whether a node is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(
    node: ast.AST, *, types: bool, inside: bool = False
) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the nodes below a node, and whether each is inside a function.

    Bodies of `if TYPE_CHECKING:` are left out unless `types`.
    """
    for child in ast.iter_child_nodes(node):
        if is_for_types(child) and not types:
            assert isinstance(child, ast.If)
            yield from statements(ast.Module(child.orelse, []), types=types, inside=inside)
            continue
        yield child, inside
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from statements(child, types=types, inside=inside or is_function)


def imports(module: Module, modules: Modules, *, types: bool) -> set[Import]:
    """Return what a module imports; `types` counts imports for the type checker too."""
    found: set[Import] = set()
    for node, inside in statements(module.tree, types=types):
        if isinstance(node, ast.Import):
            found |= {Import(alias.name, inside) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, "relative imports hide the folder"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(Import(name if name in modules else node.module, inside))
    return found


def names(module: Module, modules: Modules, *, types: bool = True) -> set[str]:
    """Return the names of what a module imports, in functions and for types too."""
    return {one.name for one in imports(module, modules, types=types)}


def folder_of(name: str, modules: Modules) -> str:
    """Return the folder of a module of the package; empty for a library's."""
    return modules[name].folder if name in modules else ""


def rank(folder: str) -> int:
    """Return how far down a folder lies; a folder that is no layer counts as the highest."""
    return LAYERS.index(folder) if folder in LAYERS else -1


# The rules: each returns its violations, one line each


def upward_imports(modules: Modules) -> list[str]:
    """Return imports from a folder that lies higher, whether for types or at run time."""
    return [
        f"{module.name} imports {name}"
        for module in modules.values()
        for name in names(module, modules) & modules.keys()
        if module.folder
        and name not in PUBLIC
        and (not folder_of(name, modules) or rank(folder_of(name, modules)) < rank(module.folder))
    ]


def forbidden_imports(modules: Modules) -> list[str]:
    """Return imports between folders that must not know of each other."""
    return [
        f"{module.name} imports {name}"
        for module in modules.values()
        for name in names(module, modules) & modules.keys()
        if (module.folder, folder_of(name, modules)) in FORBIDDEN
    ]


def cycles(modules: Modules) -> list[str]:
    """Return a cycle of imports, those for the type checker included, if there is one."""
    graph = {name: names(module, modules) & modules.keys() for name, module in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def unlisted_folders(modules: Modules) -> list[str]:
    """Return modules in a folder that is no layer, or outside of all folders."""
    return [
        name
        for name, module in modules.items()
        if module.folder not in LAYERS and name not in PUBLIC | {"tetrad.__main__"}
    ]


def full_packages(modules: Modules) -> list[str]:
    """Return folders whose `__init__.py` is not empty; that of the command line may hold main."""
    return [
        name
        for name, module in modules.items()
        if module.folder and name == f"tetrad.{module.folder}" and module.tree.body
        if module.folder != "cli"
    ]


def foreign_libraries(modules: Modules) -> list[str]:
    """Return imports of a library outside the folders that own it."""
    return [
        f"{module.name} imports {library}"
        for module in modules.values()
        for library in {name.partition(".")[0] for name in names(module, modules, types=False)}
        if library in LIBRARIES and module.folder not in LIBRARIES[library]
    ]


def loaded_by_master(modules: Modules) -> set[str]:
    """Return the modules of the package that importing the master loads."""
    found: set[str] = set()
    new = {"tetrad.master.process"}
    while new:
        found |= new
        packages = {name.rpartition(".")[0] for name in new} & modules.keys()
        new = packages | {
            one.name
            for name in new
            for one in imports(modules[name], modules, types=False)
            if not one.is_in_function and one.name in modules
        }
        new -= found
    return found


def heavy_imports(modules: Modules) -> list[str]:
    """Return what the modules that the master loads import beyond a few C modules."""
    return [
        f"{name} imports {library}"
        for name in loaded_by_master(modules)
        for library in names(modules[name], modules, types=False) - modules.keys()
        if library not in MASTER_MAY_IMPORT
    ]


LATE_IMPORTS = {
    "tetrad.handler.commands": {"tetrad.handler.jobs"},
    "tetrad.handler.process": {"tetrad.handler.tls_session"},
    "tetrad.master.tls_contexts": {"tetrad.tls.context"},
    "tetrad.handler.job_supervisor": {"ctypes"},
    "tetrad.system.landlock": {"ctypes"},
}
"""What a module of the master or its handlers imports later, only where the configuration asks."""


def late_imports(modules: Modules) -> list[str]:
    """Return imports inside functions of the master's and handlers' modules that are not listed."""
    loaded = loaded_by_master(modules)
    return [
        f"{name} imports {one.name}"
        for name, module in modules.items()
        if module.folder in {"master", "handler", "tls", "protocol", "system"} or name in loaded
        for one in imports(module, modules, types=False)
        if one.is_in_function and one.name not in LATE_IMPORTS.get(name, set())
    ]


def hidden_imports(modules: Modules) -> list[str]:
    """Return calls that import by a name at run time; only a function of the operator's may be."""
    hidden = {"__import__", "import_module"}
    return [
        name
        for name, module in modules.items()
        if name != "tetrad.handler.python_call"
        for node, _ in statements(module.tree, types=False)
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", "") in hidden or getattr(node.func, "attr", "") in hidden)
    ]


def forks(modules: Modules) -> list[str]:
    """Return modules that fork and are not listed."""
    calls = {"fork", "forkpty", "posix_spawn"}
    return [
        name
        for name, module in modules.items()
        if name not in FORKING
        for node, _ in statements(module.tree, types=False)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in {f"os.{c}" for c in calls})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in {"os", "posix"}
            and calls & {alias.name for alias in node.names}
        )
    ]


def undocumented(modules: Modules) -> list[str]:
    """Return public modules, classes and functions without a docstring."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [
        f"{name}.{node.name}"
        for name, module in modules.items()
        for node, inside in statements(module.tree, types=False)
        if isinstance(node, kinds) and not inside
        if not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    return found + [
        name
        for name, module in modules.items()
        if module.tree.body and not ast.get_docstring(module.tree)
    ]


MODULES = read_package()


def module_of(test: str, modules: Modules) -> str:
    """Return the module that a file such as `config/test_types_dates.py` is named after.

    The name of the file may go on after that of the module, to tell what part it tests. The result
    is empty if there is no such module.
    """
    name = f"tetrad.{test.removesuffix('.py').replace('/', '.').replace('test_', '', 1)}"
    while name not in modules and "_" in name:
        name = name.rpartition("_")[0]
    return name if name in modules else ""


@pytest.mark.parametrize(
    "rule",
    [
        upward_imports,
        forbidden_imports,
        cycles,
        unlisted_folders,
        full_packages,
        foreign_libraries,
        heavy_imports,
        late_imports,
        hidden_imports,
        forks,
        undocumented,
    ],
)
def test_the_package_keeps_the_rule(rule: Callable[[Modules], list[str]]) -> None:
    """No module of the package violates it."""
    assert rule(MODULES) == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (upward_imports, "system.text", "from tetrad.ipc import fds"),
        (upward_imports, "ipc.fds", "if TYPE_CHECKING:\n    from tetrad.master import admission"),
        (upward_imports, "handler.wait", "def f():\n    import tetrad.launch.pidfile"),
        (upward_imports, "config.paths", "from tetrad import __main__"),
        (forbidden_imports, "cli.parser", "from tetrad.master.process import Master"),
        (forbidden_imports, "launch.pidfile", "from tetrad.handler import jobs"),
        (forbidden_imports, "config.model", "if TYPE_CHECKING:\n    import tetrad.logger.file"),
        (forbidden_imports, "master.signals", "from tetrad.logger import process"),
        (cycles, "system.timers", "if TYPE_CHECKING:\n    from tetrad.system import event_loop"),
        (unlisted_folders, "helper", "import os"),
        (full_packages, "ipc", "from tetrad.ipc import fds"),
        (foreign_libraries, "launch.pidfile", "import yaml.nodes"),
        (foreign_libraries, "cli.status", "def f():\n    import structlog"),
        (heavy_imports, "system.event_loop", "import threading"),
        (late_imports, "system.event_loop", "def f():\n    import _socket"),
        (late_imports, "master.admission", "f = lambda: __import__('os')\ndef g(): import os"),
        (hidden_imports, "handler.commands", "__import__('tetrad.handler.jobs')"),
        (hidden_imports, "config.paths", "import importlib\nimportlib.import_module('os')"),
        (forks, "master.handler_pool", "import os\nos.fork()"),
        (forks, "handler.jobs", "from os import fork"),
        (undocumented, "system.text", '"""Text."""\ndef public(): pass'),
        (undocumented, "system.text", "import os"),
    ],
)
def test_a_planted_violation_is_found(
    rule: Callable[[Modules], list[str]], name: str, source: str
) -> None:
    """Each rule reports a module that violates it."""
    name = f"tetrad.{name}"
    planted = parse(name, source)
    assert any(name in line for line in rule({**MODULES, name: planted}))


@pytest.mark.parametrize("kind", ["unit", "integration"])
def test_tests_mirror_the_source(kind: str) -> None:
    """The tests of a module are in the folder of the same name, in files with its name."""
    folder = ROOT / "tests" / kind
    tests = [str(path.relative_to(folder)) for path in folder.rglob("test_*.py")]
    assert tests
    assert [test for test in tests if not module_of(test, MODULES)] == []


@pytest.mark.parametrize(
    ("test", "module"),
    [
        ("config/test_types.py", "tetrad.config.types"),
        ("config/test_yaml_reader_limits.py", "tetrad.config.yaml_reader"),
        ("config/test_typesetting.py", ""),
        ("config/test_reader.py", ""),
        ("config/test_admission.py", ""),
        ("test_types.py", ""),
        ("test_extension.py", "tetrad.extension"),
    ],
)
def test_a_test_file_is_named_after_its_module(test: str, module: str) -> None:
    """The longest name of a module counts."""
    assert module_of(test, MODULES) == module


def test_the_walk_finds_what_the_master_loads() -> None:
    """The set of modules that the rules guard is neither empty nor everything."""
    loaded = loaded_by_master(MODULES)
    assert {"tetrad.master.handler_pool", "tetrad.system.fork", "tetrad.handler.process"} <= loaded
    assert not {name.split(".")[1] for name in loaded if "." in name} & {"cli", "config", "launch"}
    assert not loaded & {"tetrad.ipc.runtime_config", "tetrad.tls.context", "tetrad.handler.jobs"}


@pytest.mark.parametrize("page", sorted(str(page.relative_to(ROOT)) for page in PAGES))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """A link within the tree names a file or folder that exists."""
    links = LINK.findall((ROOT / page).read_text("utf-8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
