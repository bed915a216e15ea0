"""How commands find the configuration file, and what `tetrad check` reports about it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support import forked_commands
from tests.support.processes import environment, run

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran


def tetrad(home: object, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Run a command without a configuration of its own."""
    return forked_commands.tetrad(arguments, environment(str(home)), **options)


NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}


@pytest.mark.quick
def test_a_valid_file_is_reported(prepared: MakeDaemon) -> None:
    """`check` prints the name of the file."""
    asked = prepared()
    ran = asked.tetrad("check")
    assert (ran.status, ran.out) == (0, f"{asked.file}: configuration OK\n")


@pytest.mark.quick
def test_an_invalid_file_is_reported_with_every_location(prepared: MakeDaemon) -> None:
    """One run reports all errors as FILE:LINE:COLUMN: key: reason, with exit status 78."""
    asked = prepared()
    with open(asked.file, "w", encoding="ascii") as file:
        file.write('listen:\n  - port: "x"\n    servcie: echo\nlog:\n  level: loud\nnope: 1\n')
    ran = asked.tetrad("check")
    assert (ran.status, ran.out) == (78, "")
    lines = ran.err.removeprefix("tetrad: ").split("\ntetrad: ")
    assert [line.partition(": ")[0].removeprefix(asked.file) for line in lines] == [
        ":2:11",
        ":3:5",
        ":5:10",
        ":6:1",
    ]
    assert "listen[0].port" in lines[0]
    assert "did you mean service?" in lines[1]


@pytest.mark.quick
def test_the_effective_configuration_loads_back(prepared: MakeDaemon) -> None:
    """`check --dump` prints YAML whose own dump is the same."""
    asked = prepared(limits={"rate_per_source": "20/s"}, access={"deny": ["192.0.2.0/24"]})
    first = asked.tetrad("check", "--dump").out
    with open(asked.file, "w", encoding="utf-8") as file:
        file.write(first)
    assert asked.tetrad("check", "--dump").out == first
    assert yaml.safe_load(first)["limits"]["rate_per_source"] == "20/s"


def test_the_file_may_be_named_before_the_command(prepared: MakeDaemon) -> None:
    """-c has the same meaning before and after the command."""
    asked = prepared()
    ran = tetrad(asked.folder, "-c", asked.file, "check")
    assert ran.out == f"{asked.file}: configuration OK\n"


def test_the_file_may_be_named_by_the_environment(prepared: MakeDaemon) -> None:
    """$TETRAD_CONFIG is used only without -c."""
    asked, other = prepared(), prepared()
    command = [sys.executable, "-m", "tetrad", "check"]
    variables = {**asked.environment, "TETRAD_CONFIG": asked.file}
    assert run(command, variables).out == f"{asked.file}: configuration OK\n"
    ran = run([*command, "-c", other.file], variables)
    assert ran.out == f"{other.file}: configuration OK\n"


def test_a_relative_path_in_the_environment_is_found_by_a_reload(prepared: MakeDaemon) -> None:
    """The daemon has another working directory, and reads the same file again."""
    asked = prepared()
    variables = {**asked.environment, "TETRAD_CONFIG": "tetrad.yaml"}
    ran = run([sys.executable, "-m", "tetrad", "start"], variables, cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


def test_a_relative_path_is_found_by_a_reload(prepared: MakeDaemon) -> None:
    """-c may be relative to the working directory of the command."""
    asked = prepared()
    ran = tetrad(asked.folder, "start", "-c", "tetrad.yaml", cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


@pytest.mark.parametrize(
    "command", ["run", "start", "stop", "restart", "reload", "status", "check"]
)
def test_a_file_that_does_not_exist_is_78(tmp_path: pathlib.Path, command: str) -> None:
    """The file of -c must exist."""
    ran = tetrad(tmp_path, command, "-c", "/no/such/file.yaml")
    assert (ran.status, ran.out) == (78, "")
    assert ran.err == "tetrad: /no/such/file.yaml: no such file or directory\n"


def test_a_file_without_read_permission_is_4(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """The message names the file."""
    asked = prepared(folder=nobodys_folder)
    os.chmod(asked.file, 0)
    ran = asked.tetrad("start", **NOBODY)
    message = f"tetrad: {asked.file}: permission denied; user nobody needs read access\n"
    assert (ran.status, ran.err) == (4, message)
