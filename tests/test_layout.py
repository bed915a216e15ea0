"""The architecture, as far as it can be read from the code: who imports whom, and who may fork."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

import tetrad

FOLDER = Path(tetrad.__file__).parent

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "etc", "systemd", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for one in FOLDERS for page in ROOT.glob(f"{one}/**/*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

LEAN_MAY_IMPORT = {
    "__future__",
    "_signal",
    "_socket",
    "errno",
    "gc",
    "marshal",
    "os",
    "select",
    "stat",
    "sys",
    "time",
}
"""What the forking process may have of the standard library: every page of it costs every fork."""


def name_of(path: Path) -> str:
    """Return the name of the module in a file."""
    parts = ("tetrad", *path.relative_to(FOLDER).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FOLDER.rglob("*.py")}

TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in MODULES.items()}


def is_for_types(node: ast.AST) -> bool:
    """Tell whether this is `if TYPE_CHECKING:`, which never runs."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def running(node: ast.AST, *, functions: bool) -> list[ast.AST]:
    """Return the nodes of what runs: at import, or in the end, with the bodies of functions."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if is_for_types(child):
            assert isinstance(child, ast.If)
            found += running(ast.Module(child.orelse, []), functions=functions)
        elif functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found += [child, *running(child, functions=functions)]
    return found


def imported(name: str, *, functions: bool) -> set[str]:
    """Return the modules that a module imports."""
    names: set[str] = set()
    for node in running(TREES[name], functions=functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0
            candidates = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in MODULES else node.module for name in candidates}
    return names


def reachable(start: str) -> set[str]:
    """Return our modules that are imported when one of them is."""
    found, new = {"tetrad"}, {start}
    while new:
        found |= new
        new = {name for one in new for name in imported(one, functions=False)} & MODULES.keys()
        new -= found
    return found


LEAN = reachable("tetrad.master.process")


def importers(library: str) -> set[str]:
    """Return our modules that ever import a library, for types or in earnest."""
    return {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and library in {a.name.split(".")[0] for a in node.names})
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
    }


def test_imports_run_one_way() -> None:
    """No module imports, by whatever way round, what imports it."""
    graph = {name: imported(name, functions=True) & MODULES.keys() for name in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == MODULES.keys()


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("yaml", {"tetrad.config"}),
        ("structlog", {"tetrad.logger"}),
        ("daemon", {"tetrad.launch"}),
        ("argparse", {"tetrad.cli"}),
    ],
)
def test_a_library_has_few_importers(library: str, owners: set[str]) -> None:
    """What depends on a library stands in one place."""
    assert {".".join(name.split(".")[:2]) for name in importers(library)} == owners


def test_only_two_modules_fork() -> None:
    """The front forks once to be a daemon, and every other fork goes through one function."""
    forks = {"fork", "forkpty", "posix_spawn"}
    forking = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute)
            and node.attr in forks
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in {"os", "posix"}
            and forks & {alias.name for alias in node.names}
        )
    }
    assert forking == {"tetrad.system.fork", "tetrad.launch.launcher"}


def test_the_forking_process_has_the_modules_it_needs() -> None:
    """The walk through the imports finds what it is to guard."""
    assert {"tetrad.master.process", "tetrad.master.handler_pool", "tetrad.system.fork"} <= LEAN
    assert not LEAN & {"tetrad.config.yaml_reader", "tetrad.logger.process", "tetrad.cli"}


@pytest.mark.parametrize("name", sorted(LEAN))
def test_a_lean_module_imports_next_to_nothing(name: str) -> None:
    """Whatever the forking process imports, all its children pay for."""
    assert imported(name, functions=True) - MODULES.keys() <= LEAN_MAY_IMPORT


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_is_public_is_explained(name: str) -> None:
    """Every module, class and function that others may use says what it is for."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in running(TREES[name], functions=False) if isinstance(node, kinds)]
    nodes += [node for node in TREES[name].body if isinstance(node, kinds)]
    silent = [n.name for n in nodes if n.name[0] != "_" and not ast.get_docstring(n)]
    assert not silent
    if MODULES[name].name != "__init__.py":
        assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("page", sorted(str(page.relative_to(ROOT)) for page in PAGES))
def test_what_a_page_points_to_is_there(page: str) -> None:
    """A link within the tree leads to a file or folder of it."""
    links = LINK.findall((ROOT / page).read_text("utf-8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
