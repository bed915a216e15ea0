"""`run` and `call` commands in the configuration: missing programs and functions are reported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tetrad.config import programs, yaml_reader
from tetrad.config.command_model import Call, Run
from tetrad.config.types import CommandName
from tetrad.handler import python_call
from tetrad.helpers import function_check

if TYPE_CHECKING:
    from pathlib import Path

DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
FUNCTION = "expected a function as package.module:function"
VARIABLE = "expected the name of a variable such as LC_ALL"
NEITHER = "is neither an absolute path nor a name to be found in PATH"
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
    """Return the configuration file's path."""
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
    """Return the problems of a command, without the file's name."""
    file.write_text(f"commands:\n  load: {command}\n", "utf-8")
    return [problem.removeprefix(f"{file}:") for problem in yaml_reader.load(str(file)).problems]


def test_a_program_is_found_in_the_commands_path(file: Path) -> None:
    """A name is looked up when the file is read, in the PATH of the command's `env`."""
    shell = os.path.realpath("/bin/sh")
    assert programs.find(shell, "") == shell
    assert programs.find("sh", "/nowhere:/bin") == "/bin/sh"
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
            f"2:15: commands.load.run: there is no program 'no-such-program' in {programs.PATH}",
        ),
        ("{run: ['']}", f"2:15: commands.load.run: there is no program '' in {programs.PATH}"),
        ("{run: [/no/such]}", "2:15: commands.load.run: there is no program /no/such"),
        ("{run: [/tmp]}", "2:15: commands.load.run: there is no program /tmp"),
        (
            "{run: [./load]}",
            f"2:15: commands.load.run: './load' {NEITHER}",
        ),
        ("{run: []}", "2:15: commands.load.run: a program is needed, e.g. [uptime, -p]"),
        ("{run: }", "2:15: commands.load.run: expected a value, got nothing (null)"),
        ("{run: uptime}", "2:15: commands.load.run: expected a list, got 'uptime'"),
        (
            "{run: [head, -c, 10]}",
            "2:26: commands.load.run[2]: expected a text (a number is put in quotes), got 10",
        ),
        (
            "{run: [env], env: {a-b: x}}",
            f"2:28: commands.load.env.a-b: {VARIABLE}, got 'a-b'",
        ),
        (
            "{run: [env], env: {TETRAD_CLIENT: x}}",
            "2:28: commands.load.env.TETRAD_CLIENT: names that begin with TETRAD_ are tetrad's own",
        ),
        (
            "{run: [env], timeout: null}",
            f"2:31: commands.load.timeout: {DURATION}, got nothing (null)",
        ),
        ("{run: [env], shell: x}", "2:22: commands.load.shell: there is no such key"),
        ("{call: [x]}", "2:16: commands.load.call: expected a single value, got a list"),
        ("{call: x}", f"2:16: commands.load.call: {FUNCTION}, got 'x'"),
        ("{text: ''}", "2:16: commands.load.text: expected a text of length >= 1, got ''"),
    ],
)
def test_a_problem_is_reported_with_its_position(file: Path, command: str, problem: str) -> None:
    """It is found before anything starts or changes."""
    (found,) = problems(file, command)
    assert found == problem


def test_a_script_without_execute_bit_is_reported(file: Path) -> None:
    """The message tells how to set the bit."""
    script = file.parent / "load"
    script.write_text("#!/bin/sh\n")
    (found,) = problems(file, f"{{run: [{script}]}}")
    assert found == f"2:15: commands.load.run: {script} is not executable; chmod +x makes it so"


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such:f", "there is no module no_such"),
        ("os.no_such:f", "there is no module os.no_such"),
        ("answers:f", "module answers has no f"),
        ("answers:Kind.f", "module answers has no Kind.f"),
        ("answers:number", "answers:number is not a function"),
        ("answers:none", "answers:none has to take one argument, the context"),
        ("answers:more", "answers:more has to take one argument, the context"),
        (
            "answers:later",
            "answers:later is a coroutine or a generator; a plain function is needed",
        ),
        ("answers:bits", "answers:bits is a coroutine or a generator; a plain function is needed"),
        (
            "broken:f",
            "broken:f cannot be imported: RuntimeError: not today (broken.py:1)",
        ),
        ("stopping:f", "stopping:f cannot be imported: SystemExit: 0 (stopping.py:1)"),
        (
            "lacking:f",
            f"lacking:f cannot be imported: {LACKING} (lacking.py:1)",
        ),
        ("leaving:f", "the interpreter ended while it imported leaving:f"),
    ],
)
def test_a_function_that_cannot_be_called_is_reported(file: Path, name: str, problem: str) -> None:
    """Each failure of an import is one line with a position."""
    assert problems(file, f"{{call: {name}}}") == [f"2:16: commands.load.call: {problem}"]


@pytest.mark.usefixtures("modules")
def test_a_syntax_error_in_a_module_is_reported(file: Path) -> None:
    """It is one line, too."""
    (found,) = problems(file, "{call: wrong:f}")
    assert "wrong:f cannot be imported: SyntaxError: " in found


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    "name", ["answers:one", "answers:either", "answers:Kind.method", "talking:f", "os:fspath"]
)
def test_a_callable_function_is_accepted(file: Path, name: str) -> None:
    """This includes static methods and functions written in C."""
    assert problems(file, f"{{call: {name}}}") == []
    (command,) = (
        c for c in yaml_reader.load(str(file)).config.commands.values() if type(c) is Call
    )
    assert command.call == name


@pytest.mark.usefixtures("modules")
def test_reading_a_configuration_does_not_import_its_modules() -> None:
    """A process of its own imports them."""
    programs.Function.parse("answers:one")
    assert "answers" not in sys.modules


def test_a_hanging_import_is_reported(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check ends after a time limit."""
    (modules / "waiting.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr(programs, "IMPORT_SECONDS", 0.5)
    with pytest.raises(ValueError, match="waiting:f could not be imported within"):
        programs.Function.parse("waiting:f")


@pytest.mark.usefixtures("modules")
def test_function_check_returns_nothing_without_a_problem() -> None:
    """Otherwise it returns the problem."""
    assert function_check.problem_of("answers:one") == ""
    assert function_check.problem_of("answers:two") == "module answers has no two"


def test_an_exception_is_described_in_one_line() -> None:
    """Type, message and position, without line breaks and at a limited length."""

    class Odd(Exception):  # noqa: N818 - its name is what is shown
        """An error."""

    for error, text in [
        (ValueError("too\n many"), "ValueError: too many"),
        (Odd(), "Odd"),
        (KeyError("a"), "KeyError: 'a'"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 188),
    ]:
        assert python_call.describe(error) == text
