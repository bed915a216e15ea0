"""The result of reading a file: which values are reliable, the lines of keys, all errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import read
from tetrad.config.diagnostics import ConfigError
from tetrad.config.model import Daemon

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "reliable"),
    [
        ("{}", True),
        ("limits: {clients: 5}", True),
        ("limits: {cleints: 5}", True),
        ("limits: 5", True),
        ("listen: []", True),
        ("log: {file: 5}", True),
        ("daemon: {pidfile: x, umask: 9}", True),
        ("daemon: {pidfile: x, contrl: y}", True),
        ("daemon: {pidfile: x}\ndeamon: {}", True),
        ("daemon: {umask: 9}", False),
        ("daemon: {pidfil: x}", False),
        ("daemon: {pidfile: [x]}", False),
        ("daemon: {pidfile: x, pidfile: y}", False),
        ("daemon: {pidfile: x}\ndaemon: {pidfile: y}", False),
        ("deamon: {pidfile: x}", False),
        (".: x", False),
        ("daemon: {pidfile: x}\nlog: {file: x}\n", True),
        ("daemon: {pidfile: x, control: x}\n", True),
        ("- x", False),
        ("daemon: {pidfile: x", False),
    ],
)
def test_a_value_is_reliable_unless_an_error_may_concern_it(
    file: Path, text: str, *, reliable: bool
) -> None:
    """The pidfile of a file with errors is reliable if no error and no unknown key may be it."""
    loaded = read(file, text)
    assert loaded.is_reliable("daemon.pidfile") == reliable
    if reliable:
        given = str(file.parent / "x") if "pidfile" in text else Daemon().pidfile
        assert loaded.config.daemon.pidfile == given


def test_the_keys_that_the_file_sets_have_their_lines(file: Path) -> None:
    """So do keys that are set to their defaults."""
    text = """\
listen:
- {}
- port: 1

log: {file: null}
daemon:
access:
  deny:
    - ::1
commands:
  abcd:
    close: x
x: 1
"""
    assert read(file, text).key_lines == {
        "listen": 1,
        "listen[0]": 2,
        "listen[1]": 3,
        "listen[1].port": 3,
        "log": 5,
        "log.file": 5,
        "daemon": 6,
        "access": 7,
        "access.deny": 8,
        "access.deny[0]": 9,
        "commands": 10,
        "commands.abcd.close": 12,
    }


def test_an_error_found_later_has_the_location_of_the_value(file: Path) -> None:
    """A key that the file does not set has none; the message is one line without terminal codes."""
    result = read(file, "log:\n  file: /x\nlisten:\n- tls: {certificate: /y}\n")
    assert result.error_at("log.file", "no room") == f"{file}:2:9: log.file: no room"
    certificate = "listen[0].tls.certificate"
    assert result.error_at(certificate, "a\nb") == f"{file}:4:22: {certificate}: a\\nb"
    assert result.error_at("log.level", "\x1b[2J") == r"log.level: \x1b[2J"


def test_a_checked_configuration_has_no_errors(file: Path) -> None:
    """`checked` returns the result itself, or raises ConfigError with all errors."""
    good, bad = read(file, "log: {}"), read(file, "x: 1\ny: 2")
    assert good.checked() is good
    assert good.file == str(file)
    with pytest.raises(ConfigError) as refusal:
        bad.checked()
    assert refusal.value.problems == bad.problems
    assert str(refusal.value) == "\n".join(bad.problems)
    assert len(bad.problems) == 2
