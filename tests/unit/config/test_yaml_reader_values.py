"""The values of a configuration file: strings, numbers, durations, paths, null."""

from __future__ import annotations

import grp
import pwd
from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import config, problems, read
from tetrad.config import types as config_types
from tetrad.config.command_model import Close

if TYPE_CHECKING:
    from pathlib import Path

QUIT = Close(close="quit")


def test_listeners_at_any_port_may_have_one_address(file: Path) -> None:
    """With port 0 each listener gets its own port."""
    assert [
        listener.port for listener in config(file, "listen: [{port: 0}, {port: 0}]").listen
    ] == [
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("written", "closes"),
    [
        ("22:00", "22:00"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("2003-05-21", "2003-05-21"),
        ("0o17", "0o17"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("nUll", "nUll"),
        ("tRue", "tRue"),
        (".", "."),
        (".inf", ".inf"),
        ("1.2.3", "1.2.3"),
        ("'010'", "010"),
        ('"null"', "null"),
        ("!!str text", "text"),
        ("|\n      1\n      2", "1\n2\n"),
        (">-\n      5", "5"),
        ("|-\n      5", "5"),
    ],
)
def test_a_string_stays_a_string(file: Path, written: str, closes: str) -> None:
    """Only numbers, true, false and null are other types, unlike in YAML 1.1."""
    commands = config(file, f"commands:\n  abcd:\n    close: {written}\n").commands
    assert commands[config_types.CommandName("abcd")] == Close(close=closes)


@pytest.mark.parametrize(
    ("written", "clients"), [("010", 10), ("+5", 5), ("0", None), ("007", 7), ("&a 5", 5)]
)
def test_a_number_is_decimal(file: Path, written: str, clients: int | None) -> None:
    """`010` is 10, not octal."""
    loaded = read(file, f"limits: {{clients: {written}}}")
    assert (loaded.config.limits.clients if clients else None) == clients
    assert bool(loaded.problems) is (clients is None)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5", 5), ("0.5", 0.5), (".5", 0.5), ("5.", 5), ("1e1", 10), ("1.5E+1", 15), ("2.5e-1", 0.25)],
)
def test_a_number_of_seconds_may_be_a_fraction(file: Path, written: str, seconds: float) -> None:
    """Numbers have the syntax of YAML 1.2."""
    assert config(file, f"session: {{idle_timeout: {written}}}").session.idle_timeout == seconds


def test_users_and_groups_are_those_of_the_machine(file: Path) -> None:
    """Existing names are accepted."""
    user, group = pwd.getpwall()[0].pw_name, grp.getgrall()[0].gr_name
    daemon = config(file, f"daemon: {{user: {user}, group: {group}}}").daemon
    assert (daemon.user, daemon.group) == (user, group)


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_true_and_false_are_not_strings(file: Path, word: str) -> None:
    """This holds for the three spellings of YAML 1.2."""
    (problem,) = problems(file, f"commands: {{abcd: {{close: {word}}}}}")
    assert problem.endswith(f'expected a string, got {word}: write "{word}"')


@pytest.mark.parametrize("word", ["null", "Null", "NULL", "~", ""])
def test_null_removes_an_optional_value(file: Path, word: str) -> None:
    """Null, in all spellings, means no timeout, no limit, no file and no command."""
    loaded = config(
        file,
        f"session: {{idle_timeout: {word} }}\nlimits: {{rate_per_source: {word} }}\n"
        f"log: {{file: {word} }}\ncommands: {{time: {word} }}\n",
    )
    assert (loaded.session.idle_timeout, loaded.limits.rate_per_source) == (None, None)
    assert loaded.log.file is None
    assert loaded.commands == {"time": None, "quit": QUIT}


@pytest.mark.parametrize(
    ("folder", "absolute"),
    [(".", "{}/x"), ("./a/..", "{}/x"), ("..", "{}/../x"), ("/x//y/.", "/x/y/x")],
)
def test_a_relative_path_starts_at_the_folder_of_the_file(
    file: Path, folder: str, absolute: str
) -> None:
    """This holds for every path in the file, also for the address of a Unix socket."""
    one, two, three, four = (f"{folder}/{name}" for name in ("x", "x.pid", "x.sock", "x.log"))
    loaded = config(
        file,
        f"listen: [{{address: 'unix:{one}'}}]\nlog: {{file: {four}}}\n"
        f"daemon: {{pidfile: {two}, control: {three}, working_directory: {one}}}",
    )
    path = absolute.format(file.parent).replace(f"{file.parent}/..", str(file.parent.parent))
    daemon = loaded.daemon
    assert [daemon.pidfile, daemon.control] == [f"{path}.pid", f"{path}.sock"]
    assert [daemon.working_directory, loaded.log.file] == [path, f"{path}.log"]
    assert loaded.listen[0].address == f"unix:{path}"


def test_tags_of_strings_lists_and_mappings_are_accepted(file: Path) -> None:
    """Tags that do not change a type have no effect."""
    loaded = config(file, "!!map\nlisten: !!seq [!!map {service: !!str echo}]")
    assert [listener.service for listener in loaded.listen] == ["echo"]
