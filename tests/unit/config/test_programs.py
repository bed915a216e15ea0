"""Programs and functions of commands are checked when the configuration is read."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tetrad.config import programs, yaml_reader
from tetrad.config.command_model import Call, Run
from tetrad.config.types import CommandName, Function
from tetrad.handler import python_call
from tetrad.helpers import function_check

if TYPE_CHECKING:
    from pathlib import Path

DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
FUNCTION = "expected a Python function, written as package.module:function"
VARIABLE = "expected the name of an environment variable, such as LC_ALL"
NEITHER = "write an absolute path, or a name without / to search in PATH"
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


def problems(file: Path, command: str) -> list[str]:
    """Return the errors of a command, without the file's name."""
    file.write_text(f"commands:\n  load: {command}\n", "utf-8")
    return [problem.removeprefix(f"{file}:") for problem in yaml_reader.load(str(file)).problems]


def test_a_program_is_an_absolute_path_or_is_searched(file: Path) -> None:
    """The search uses the command's own PATH if it sets one."""
    shell = os.path.realpath("/bin/sh")
    assert programs.find_program(shell, "") == shell
    assert programs.find_program("sh", "/nowhere:/bin") == "/bin/sh"
    tool = file.parent / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    text = f"commands: {{load: {{run: [tool], env: {{PATH: {file.parent}}}}}}}"
    file.write_text(text, "utf-8")
    command = yaml_reader.load(str(file)).checked().config.commands[CommandName("load")]
    assert isinstance(command, Run)
    assert command.program == str(tool)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (
            "{run: [no-such-program]}",
            f"2:15: commands.load.run: no program 'no-such-program' in {programs.PATH}",
        ),
        ("{run: ['']}", f"2:15: commands.load.run: no program '' in {programs.PATH}"),
        ("{run: [/no/such]}", "2:15: commands.load.run: no such program: /no/such"),
        ("{run: [/tmp]}", "2:15: commands.load.run: no such program: /tmp"),
        (
            "{run: [./load]}",
            f"2:15: commands.load.run: './load': {NEITHER}",
        ),
        (
            "{run: []}",
            "2:15: commands.load.run: expected a program and its arguments, such as [uptime, -p]",
        ),
        ("{run: }", "2:15: commands.load.run: expected a value, got no value (null)"),
        ("{run: uptime}", "2:15: commands.load.run: expected a list, got 'uptime'"),
        (
            "{run: [head, -c, 10]}",
            '2:26: commands.load.run[2]: expected a string, got the number 10: write "10"',
        ),
        (
            "{run: [env], env: {a-b: x}}",
            f"2:28: commands.load.env.a-b: {VARIABLE}, got 'a-b'",
        ),
        (
            "{run: [env], env: {TETRAD_CLIENT: x}}",
            "2:28: commands.load.env.TETRAD_CLIENT: names that begin with TETRAD_ are reserved",
        ),
        (
            "{run: [env], timeout: null}",
            f"2:31: commands.load.timeout: {DURATION}, got no value (null)",
        ),
        ("{run: [env], shell: x}", "2:22: commands.load.shell: unknown key"),
        ("{call: [x]}", "2:16: commands.load.call: expected a single value, got a list"),
        ("{call: x}", f"2:16: commands.load.call: {FUNCTION}, got 'x'"),
        ("{text: ''}", "2:16: commands.load.text: expected a string of length >= 1, got ''"),
    ],
)
def test_an_invalid_command_is_reported_with_its_location(
    file: Path, command: str, problem: str
) -> None:
    """Each error is found when the file is read."""
    (found,) = problems(file, command)
    assert found == problem


def test_a_script_without_execute_permission_is_reported(file: Path) -> None:
    """The message has the command that corrects it."""
    script = file.parent / "load"
    script.write_text("#!/bin/sh\n")
    (found,) = problems(file, f"{{run: [{script}]}}")
    assert found == f"2:15: commands.load.run: {script} is not executable; run chmod +x {script}"


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
    assert problems(file, f"{{call: {name}}}") == [f"2:16: commands.load.call: {problem}"]


@pytest.mark.usefixtures("modules")
def test_a_module_with_a_syntax_error_is_reported(file: Path) -> None:
    """A syntax error is one line."""
    (found,) = problems(file, "{call: wrong:f}")
    assert "wrong:f cannot be imported: SyntaxError: " in found


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    "name", ["answers:one", "answers:either", "answers:Kind.method", "talking:f", "os:fspath"]
)
def test_a_callable_function_is_accepted(file: Path, name: str) -> None:
    """So are static methods and functions that are written in C."""
    file.write_text(f"commands: {{load: {{call: {name}}}}}", "utf-8")
    result = yaml_reader.load(str(file))
    assert result.problems == []
    command = result.config.commands[CommandName("load")]
    assert isinstance(command, Call)
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


@pytest.mark.usefixtures("modules")
def test_the_function_check_returns_nothing_for_a_valid_function() -> None:
    """Only an error has a text."""
    assert function_check.problem_of("answers:one") == ""
    assert function_check.problem_of("answers:two") == "module answers has no attribute two"


def test_an_exception_is_described_in_one_line() -> None:
    """Line feeds are replaced, and long messages are shortened."""

    class Odd(Exception):  # noqa: N818 - its name is what is shown
        """An error."""

    for error, text in [
        (ValueError("too\n many"), "ValueError: too many"),
        (Odd(), "Odd"),
        (KeyError("a"), "KeyError: 'a'"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 188),
    ]:
        assert python_call.describe(error) == text
