"""Programs of commands are searched and checked when the configuration is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import command_problems
from tetrad.config import programs, yaml_reader
from tetrad.config.command_model import Run
from tetrad.config.types import CommandName

if TYPE_CHECKING:
    from pathlib import Path

DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
FUNCTION = "expected a Python function, written as package.module:function"
VARIABLE = "expected the name of an environment variable, such as LC_ALL"
NEITHER = "write an absolute path, or a name without / to search in PATH"


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
    (found,) = command_problems(file, command)
    assert found == problem


def test_a_script_without_execute_permission_is_reported(file: Path) -> None:
    """The message has the command that corrects it."""
    script = file.parent / "load"
    script.write_text("#!/bin/sh\n")
    (found,) = command_problems(file, f"{{run: [{script}]}}")
    assert found == f"2:15: commands.load.run: {script} is not executable; run chmod +x {script}"
