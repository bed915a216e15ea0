"""The configuration files that are shipped are valid, complete, and show the defaults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml

from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.project import ROOT
from tests.support.system_programs import require
from tetrad.config import yaml_reader
from tetrad.config.command_model import Clock, Close, FixedText
from tetrad.config.model import Config, Listener
from tetrad.config.section import Section

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon
    from tetrad.config.result import ConfigResult

pytestmark = pytest.mark.quick

EXAMPLE = ROOT / "etc" / "commands.yaml"
"""Commands that run programs of Debian."""

SHIPPED = ROOT / "etc" / "tetrad.yaml"

COMMENTED_OUT = re.compile(r"#( *(- )?[a-z_]+:.*)")
"""A commented line of YAML; a comment in English begins with a blank and is no key."""


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file shows the defaults for root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def uncommented(tmp_path: Path) -> ConfigResult:
    """The file with every line of YAML uncommented."""
    lines = SHIPPED.read_text("utf-8").splitlines()
    file = tmp_path / "tetrad.yaml"
    file.write_text("\n".join(COMMENTED_OUT.sub(r"\1", line) for line in lines), "utf-8")
    return yaml_reader.load(str(file))


def keys_of(kind: type[Section], path: str) -> set[str]:
    """Return the keys of a section."""
    return {f"{path}.{field.name}" for field in msgspec.structs.fields(kind)}


def test_the_file_as_it_is_shipped_changes_nothing() -> None:
    """Before it is edited, the daemon serves as without a file."""
    loaded = yaml_reader.load(str(SHIPPED)).checked()
    assert loaded.config == Config()
    assert loaded.key_lines == {}


def test_the_lines_that_are_commented_out_show_the_defaults(uncommented: ConfigResult) -> None:
    """Removing a comment mark changes nothing."""
    assert uncommented.problems == []
    for section in Config.__struct_fields__:
        assert getattr(uncommented.config, section) == getattr(Config(), section)


def test_the_file_names_every_key(uncommented: ConfigResult) -> None:
    """It is complete."""
    sections = {name: getattr(Config(), name) for name in Config.__struct_fields__}
    expected = {*sections, "listen[0]"} | keys_of(Listener, "listen[0]")
    for name, value in sections.items():
        if isinstance(value, Section):
            expected |= keys_of(type(value), name)
    expected |= keys_of(Clock, "commands.time") | keys_of(Close, "commands.quit")
    assert uncommented.key_lines.keys() == expected


def test_each_line_can_be_uncommented_alone(tmp_path: Path) -> None:
    """With the line of its section, each key is valid without the others."""
    section, file = "", tmp_path / "tetrad.yaml"
    for line in SHIPPED.read_text("utf-8").splitlines():
        match = COMMENTED_OUT.fullmatch(line)
        if match and not match[1].startswith(" "):
            section = match[1]
        elif match and section != "listen:":
            file.write_text(f"{section}\n{match[1]}\n", "utf-8")
            assert yaml_reader.load(str(file)).checked().config == Config()


def test_every_comment_is_a_sentence_or_a_setting() -> None:
    """Any other line would be ignored by these tests."""
    lines = [line for line in SHIPPED.read_text("utf-8").splitlines() if line]
    assert all(re.match("# [^ ]", line) or COMMENTED_OUT.fullmatch(line) for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_the_example_of_commands_names_each_in_its_help() -> None:
    """The answer of `help` lists all the commands, and no other."""
    config = yaml_reader.load(str(EXAMPLE)).checked().config
    (offered,) = (command for command in config.commands.values() if isinstance(command, FixedText))
    names = {line.split()[0] for line in offered.text.splitlines()}
    assert names == config.commands.keys() - {"help"}


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("help", r"time  the local time\n(.*\n)+"),
        ("time", ANSWER.pattern.decode() + r"\n"),
        ("load", r"(\d+\.\d+ ?){3}\n"),
        ("live", r"\d+ days, \d+:\d\d\n"),
        ("disk", r"Mounted on .*\n(/.*\n)+"),
        ("vers", r"Linux \S+\n\S+\n"),
    ],
)
def test_the_example_of_commands_works_with_netcat(
    shared_daemon: MakeDaemon, command: str, answer: str
) -> None:
    """Each command that a person types is answered in lines."""
    require("nc")
    if not os.path.exists("/etc/debian_version"):
        pytest.skip("run the tests on Debian: the netcat of others has other options")
    settings = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    settings["listen"][0]["port"] = 0
    served = shared_daemon(**settings)
    # Every netcat exits when the server closes the connection.
    done = subprocess.run(
        [shutil.which("nc") or "", "127.0.0.1", str(served.port)],
        input=f"{command}\nquit\n".encode(),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    assert re.fullmatch(f"{answer}quit\n", done.stdout.decode())
    assert served.wait_for("client.command", command=command)["level"] == "info"
