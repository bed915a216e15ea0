"""Defaults: of keys that a file does not set, and of those with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import config, read
from tetrad.config import types as config_types
from tetrad.config.command_model import Clock
from tetrad.config.model import Access, Config, Daemon, Handlers, Limits, Listener, Log, Session
from tetrad.config.result import ConfigResult
from tetrad.config.yaml_reader import load

if TYPE_CHECKING:
    from pathlib import Path

TIME = Clock(clock=config_types.ClockFormat("%Y/%m/%d %H:%M:%S"))


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        "# nothing but a comment\n",
        "~",
        "{}",
        "---\n...\n",
        "listen:\ndaemon:\nlog:\nhandlers:\nlimits:\nsession:\naccess:\ncommands:\n",
        "listen:\n-\n",
        "access: {allow: , deny: []}",
        "commands: {}",
    ],
)
def test_an_empty_value_means_the_default(file: Path, text: str) -> None:
    """A comment, or an empty section, list or listener has the same effect as none."""
    assert config(file, text) == Config()


def test_an_empty_file_is_refused(file: Path) -> None:
    """It is what a failed write leaves; no key of it is certain."""
    loaded = read(file, "")
    assert loaded.problems == [
        f"{file}:1:1: empty, as a failed write leaves it; write {{}} for the defaults"
    ]
    assert not loaded.is_reliable("daemon.pidfile")


def test_keys_that_the_file_does_not_set_have_defaults(file: Path) -> None:
    """Every type of value is read, and all other keys have their defaults."""
    loaded = config(
        file,
        """
listen:
- {address: "::", port: 0, service: echo, backlog: 5}
- address: 192.0.2.1
- address: unix:/run/x.sock
session: {idle_timeout: &t 1m30s, send_timeout: *t, first_command_timeout: 2}
limits: {clients: 5, clients_per_source: 2, rate_per_source: 20/s}
access: {allow: [10.0.0.0/8], deny: [10.1.0.0/16, "2001:db8::1"]}
daemon: {umask: "077", stop_timeout: 500ms}
commands: {date: {clock: "%F", timezone: UTC}, quit: null}
""",
    )
    assert loaded.listen == [
        Listener(address=config_types.Address("::"), port=0, service="echo", backlog=5),
        Listener(address=config_types.Address("192.0.2.1"), port=65000),
        Listener(address=config_types.Address("unix:/run/x.sock")),
    ]
    assert loaded.listen[2].port is None
    assert loaded.session == Session(
        first_command_timeout=config_types.Duration(2),
        idle_timeout=config_types.Duration(90),
        send_timeout=config_types.Duration(90),
    )
    assert loaded.limits == Limits(
        clients=5, clients_per_source=2, rate_per_source=config_types.Rate("20/s")
    )
    assert loaded.access == Access(
        allow=[config_types.Network("10.0.0.0/8")],
        deny=[config_types.Network("10.1.0.0/16"), config_types.Network("2001:db8::1/128")],
    )
    assert (loaded.daemon.umask, loaded.daemon.stop_timeout) == (0o077, 0.5)
    assert loaded.daemon.pidfile == Daemon().pidfile
    date = Clock(clock=config_types.ClockFormat("%F"), timezone=config_types.Timezone("UTC"))
    assert loaded.commands == {"time": TIME, "quit": None, "date": date}
    assert (loaded.log, loaded.handlers) == (Log(), Handlers())


def test_a_value_with_an_error_has_its_default(file: Path) -> None:
    """A command such as `stop` uses the valid values of a file with errors."""
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\nlisten: []\n")
    assert loaded.config.listen == Config().listen
    loaded = read(file, "listen: [{port: 2}, {port: 2}]\nlog: {level: debug}\n")
    assert (loaded.config.listen, loaded.config.log.level) == (Config().listen, "debug")
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\n")
    assert loaded.config.daemon.pidfile == str(file.parent / "x")
    assert loaded.config.daemon.umask == Daemon().umask
    assert (loaded.config.log.level, len(loaded.problems)) == ("debug", 1)


@pytest.mark.parametrize(
    "text",
    [
        "commands: {abcd: {close: 1}}",
        "commands: {abcd: {close: [x]}}",
        "commands: {abcd: {close: !x y}}",
        "commands: {abcd: {clock: }}",
        "commands: {abcd: 5, quit: null}",
        "commands: {toolong: {close: x}, quit: null}",
        "access: {allow: [10.0.0.0/8, x]}",
        "access: {allow: [10.0.0.0/8, [10.0.0.0/8]]}",
        "access: {allow: 10.0.0.0/8}",
    ],
)
def test_a_list_with_an_error_is_not_used_in_part(file: Path, text: str) -> None:
    """If one network or command is invalid, the whole list has its default."""
    loaded = read(file, text)
    assert (len(loaded.problems), loaded.config) == (1, Config())


def test_without_a_file_the_result_is_the_defaults() -> None:
    """Without a file there are no errors."""
    assert load(None).checked() == ConfigResult(Config(), None, [], {})
