"""Python functions of commands are checked by a process that imports them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import command_problems
from tetrad.config import programs, yaml_reader
from tetrad.config.command_model import Call
from tetrad.config.types import Function

if TYPE_CHECKING:
    from pathlib import Path

LACKING = "ModuleNotFoundError: No module named 'no_such_thing'"
MODULE = """
number = 7
def none(): pass
def one(context): return "x"
def more(context, color): pass
def either(context, color="red"): pass
async def later(context): pass
def bits(context): yield b""
class Kind:
    @staticmethod
    def method(context): return b""
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of the configuration file."""
    return tmp_path / "tetrad.yaml"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of modules that this process and its children can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "answers.py").write_text(MODULE)
    (folder / "broken.py").write_text("raise RuntimeError('not today')")
    (folder / "wrong.py").write_text("def f(:")
    (folder / "lacking.py").write_text("import no_such_thing")
    (folder / "leaving.py").write_text("import os; os._exit(3)")
    (folder / "stopping.py").write_text("raise SystemExit(0)")
    (folder / "talking.py").write_text("print('hello')\ndef f(context): return ''")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return folder


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:f", "no module named no_such"),
        ("os.no_such:f", "no module named os.no_such"),
        ("answers:f", "module answers has no attribute f"),
        ("answers:Kind.f", "module answers has no attribute Kind.f"),
        ("answers:number", "answers:number is not a function"),
        ("answers:none", "answers:none must take one argument, the context"),
        ("answers:more", "answers:more must take one argument, the context"),
        (
            "answers:later",
            "answers:later is a coroutine or generator function; use a plain function",
        ),
        ("answers:bits", "answers:bits is a coroutine or generator function; use a plain function"),
        (
            "broken:f",
            "broken:f cannot be imported: RuntimeError: not today (broken.py:1)",
        ),
        ("stopping:f", "stopping:f cannot be imported: SystemExit: 0 (stopping.py:1)"),
        (
            "lacking:f",
            f"lacking:f cannot be imported: {LACKING} (lacking.py:1)",
        ),
        ("leaving:f", "the Python interpreter exited while importing leaving:f"),
    ],
)
def test_a_function_that_cannot_be_called_is_reported(file: Path, name: str, problem: str) -> None:
    """Every error of a module is one line with a location."""
    assert command_problems(file, f"{{call: {name}}}") == [f"2:16: commands.load.call: {problem}"]


@pytest.mark.usefixtures("modules")
def test_a_module_with_a_syntax_error_is_reported(file: Path) -> None:
    """A syntax error is one line."""
    (found,) = command_problems(file, "{call: wrong:f}")
    assert "wrong:f cannot be imported: SyntaxError: " in found


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    "name", ["answers:one", "answers:either", "answers:Kind.method", "talking:f", "os:fspath"]
)
def test_a_callable_function_is_accepted(file: Path, name: str) -> None:
    """So are static methods and functions that are written in C."""
    assert command_problems(file, f"{{call: {name}}}") == []
    (command,) = (
        c for c in yaml_reader.load(str(file)).config.commands.values() if type(c) is Call
    )
    assert command.call == name


@pytest.mark.usefixtures("modules")
def test_reading_a_configuration_does_not_import_the_functions() -> None:
    """Another process imports the module."""
    Function.parse("answers:one")
    assert "answers" not in sys.modules


def test_a_module_whose_import_hangs_is_reported(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check has a timeout."""
    (modules / "waiting.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr(programs, "IMPORT_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(ValueError, match="importing waiting:f took longer than"):
        Function.parse("waiting:f")
