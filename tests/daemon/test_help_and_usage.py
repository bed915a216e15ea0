"""`--help`, `--version` and usage errors of each command."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import forked_commands
from tests.support.processes import environment, run
from tetrad import cli
from tetrad.cli.parser import parser

if TYPE_CHECKING:
    import pathlib

    from tests.support.processes import Ran

COMMANDS = [
    "run",
    "start",
    "stop",
    "restart",
    "reload",
    "upgrade",
    "status",
    "logs",
    "explain",
    "check",
    "client",
    "install",
    "uninstall",
]


def tetrad(home: object, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Run a command without a configuration of its own."""
    return forked_commands.tetrad(arguments, environment(str(home)), **options)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_version_works_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--version prints the name and the version, also after a command."""
    ran = tetrad(tmp_path, *before, "--version")
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"tetrad \d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_help_works_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--help prints the usage, also after a command."""
    ran = tetrad(tmp_path, *before, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["usage: tetrad", *before]))


@pytest.mark.quick
@pytest.mark.parametrize("option", ["--version", "--help"])
@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_help_and_version_import_no_libraries(
    tmp_path: pathlib.Path, before: list[str], option: str
) -> None:
    """Importing yaml and msgspec takes several times as long as the rest."""
    code = (
        "import atexit, sys; sys.argv[0] = 'tetrad'; from tetrad.cli import main;"
        "atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr)); main()"
    )
    ran = run([sys.executable, "-c", code, *before, option], environment(str(tmp_path)))
    modules = set(ran.err.split())
    assert ran.status == 0
    assert "tetrad.cli.parser" in modules
    assert not {"daemon", "msgspec", "ssl", "yaml"} & modules


def test_every_command_has_a_function() -> None:
    """The parser and the table of functions have the same commands."""
    (commands,) = (one.choices for one in parser()._actions if one.choices)  # noqa: SLF001
    assert list(commands) == COMMANDS
    assert [cli._function(name).__name__ for name in commands] == COMMANDS  # noqa: SLF001


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("begin",),
        ("start", "now"),
        ("start", "--fast"),
        ("start", "-c"),
        ("start", "-c", ""),
        ("status", "--josn"),
        ("client", "--port", "http"),
        ("client", "--port", "65536"),
        ("client", "--port", "0"),
        ("client", "--service", "chat"),
    ],
)
def test_a_usage_error_is_2(tmp_path: pathlib.Path, arguments: tuple[str, ...]) -> None:
    """The usage is printed, and the exit status is 2."""
    ran = tetrad(tmp_path, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("usage: tetrad")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_an_error_in_one_line(
    tmp_path: pathlib.Path, arguments: list[str], unbuffered: str
) -> None:
    """Python prints nothing more, whether its output is buffered or not."""
    variables = {**environment(str(tmp_path)), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run([sys.executable, "-m", "tetrad", *arguments], variables, stdout=full)
    assert ran.status == 1
    assert re.fullmatch(r"tetrad: .*: no space left on device\n", ran.err)
