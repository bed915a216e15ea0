"""The configuration file: what YAML means here, and what is said about what is wrong."""

from __future__ import annotations

import grp
import operator
import pwd
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.config import answers, paths, programs, yaml_reader
from tetrad.config import types as config_types
from tetrad.config.command_model import BUILT_IN_COMMANDS, Clock, Close, FixedText, Run
from tetrad.config.model import Access, Config, Daemon, Handlers, Limits, Listener, Log, Session
from tetrad.config.result import ConfigError, ConfigResult
from tetrad.config.yaml_reader import load
from tetrad.config.yaml_writer import dump

if TYPE_CHECKING:
    from pathlib import Path

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

TIME = Clock(clock=config_types.ClockFormat("%Y/%m/%d %H:%M:%S"))
QUIT = Close(close="quit")

NAME = "expected a name of exactly four printable ASCII characters other than space"
DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
KINDS = "expected one of the keys clock, close, text, run, call"
SCANNING = "while scanning for the next token"
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "tetrad.yaml"


def read(file: Path, text: str) -> ConfigResult:
    """Write a file and load it."""
    file.write_text(text, "utf-8")
    return load(str(file))


def config(file: Path, text: str) -> Config:
    """Write a file that has no problems and load it."""
    return read(file, text).checked().config


def problems(file: Path, text: str) -> list[str]:
    """Write a file and return its problems, without the file's name that each begins with."""
    return [problem.removeprefix(f"{file}:") for problem in read(file, text).problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # Keys
        ("xyz: 1", "1:1: xyz: there is no such key"),
        ("lissten: []", "1:1: lissten: there is no such key; did you mean listen?"),
        ("Log: {}", "1:1: Log: there is no such key; did you mean log?"),
        (
            "limits: {client_per_sorc: 5}",
            "1:10: limits.client_per_sorc: there is no such key; did you mean clients_per_source?",
        ),
        (
            "session:\n  idle_timout: 5",
            "2:3: session.idle_timout: there is no such key; did you mean idle_timeout?",
        ),
        (
            "log: {level: info,\n level: debug}",
            "2:2: log.level: this key is there already, in line 1",
        ),
        ("log:\n  {}\nlog: {}", "3:1: log: this key is there already, in line 1"),
        (
            "commands: {abcd: {close: a}, abcd: {close: b}}",
            "1:30: commands.abcd: this key is there already, in line 1",
        ),
        ("? [a]\n: 1", "1:3: ?: there is no such key"),
        ("' ': 1", "1:1: ' ': there is no such key"),
        ("'': 1", "1:1: '': there is no such key"),
        ("log: {' level': debug}", "1:7: log.' level': there is no such key; did you mean level?"),
        ("log: {<<: {level: debug}}", "1:7: log.<<: there is no such key"),
        (r'"a\nb\e[2J": 1', r"1:1: a\nb\x1b[2J: there is no such key"),
        # Shapes
        ("[]", "1:1: expected keys and values, got a list"),
        ("5", "1:1: expected keys and values, got 5"),
        ("log: []", "1:6: log: expected keys and values, got a list"),
        ("log: yes", "1:6: log: expected keys and values, got 'yes'"),
        ("listen: {port: 5}", "1:9: listen: expected a list, got keys and values"),
        ("listen: 5", "1:9: listen: expected a list, got 5"),
        ("listen: [[1]]", "1:10: listen[0]: expected keys and values, got a list"),
        ("daemon: {user: [a]}", "1:16: daemon.user: expected a single value, got a list"),
        (
            "daemon: {user: {a: 1}}",
            "1:16: daemon.user: expected a single value, got keys and values",
        ),
        # Values
        (
            "listen: [{port: 70000}]",
            "1:17: listen[0].port: expected a whole number <= 65535, got 70000",
        ),
        (
            "listen: [{port: '80'}]",
            "1:17: listen[0].port: expected a whole number or null, got '80'",
        ),
        ("listen: [{port: -1}]", "1:17: listen[0].port: expected a whole number >= 0, got -1"),
        ("listen: [{backlog: x}]", "1:20: listen[0].backlog: expected a whole number, got 'x'"),
        ("limits: {clients: true}", "1:19: limits.clients: expected a whole number, got true"),
        ("limits: {clients: 5.5}", "1:19: limits.clients: expected a whole number, got 5.5"),
        ("limits: {clients: '5'}", "1:19: limits.clients: expected a whole number, got '5'"),
        ("limits: {clients: 0x10}", "1:19: limits.clients: expected a whole number, got '0x10'"),
        ("limits: {clients: 1_000}", "1:19: limits.clients: expected a whole number, got '1_000'"),
        (
            "limits: {clients: }",
            "1:19: limits.clients: expected a whole number, got nothing (null)",
        ),
        (
            "limits: {clients: ~}",
            "1:19: limits.clients: expected a whole number, got nothing (null)",
        ),
        (
            f"limits: {{clients: {'9' * 41}}}",
            f"1:19: limits.clients: expected a whole number, got '{'9' * 41}'",
        ),
        (
            f"limits: {{clients: {'9' * 40}}}",
            f"1:19: limits.clients: expected a whole number <= 1000000, got {'9' * 40}",
        ),
        (
            "listen: [{service: ecco}]",
            "1:20: listen[0].service: expected command or echo, got 'ecco'; did you mean echo?",
        ),
        (
            "log: {level: null}",
            "1:14: log.level: expected debug, info, warning or error, got nothing (null)",
        ),
        (
            f"log: {{format: {'x' * 79}}}",
            f"1:15: log.format: expected json, logfmt or console, got '{'x' * 76}...",
        ),
        (
            f"log: {{format: {'x' * 78}}}",
            f"1:15: log.format: expected json, logfmt or console, got '{'x' * 78}'",
        ),
        (
            "daemon: {stop_timeout: null}",
            f"1:24: daemon.stop_timeout: {DURATION}, got nothing (null)",
        ),
        (
            "daemon: {umask: 027}",
            '1:17: daemon.umask: expected three octal digits in quotes, such as "027", got 27',
        ),
        ("daemon: {user: no body}", "1:16: daemon.user: this machine has no user 'no body'"),
        ("daemon: {user: 0}", "1:16: daemon.user: expected the name of a user, got 0"),
        ("daemon: {pidfile: null}", "1:19: daemon.pidfile: expected a path, got nothing (null)"),
        (
            "access:\n  allow:\n  - ::1\n  - ::1/8",
            "4:5: access.allow[1]: ::1/8 has bits set to the right of its prefix; write ::/8",
        ),
        ("access: {deny: [x]}", f"1:17: access.deny[0]: {NETWORK}, got 'x'"),
        ("log: {level: !x info}", "1:14: log.level: tags such as !x are not supported"),
        (
            "limits: {clients: !!int 5}",
            "1:19: limits.clients: tags such as tag:yaml.org,2002:int are not supported",
        ),
        ("log: {file: !x }", "1:13: log.file: tags such as !x are not supported"),
        ("log: !x {}", "1:6: log: tags such as !x are not supported"),
        ("listen: !x []", "1:9: listen: tags such as !x are not supported"),
        ("log: !x", "1:6: log: tags such as !x are not supported"),
        ("!x {}", "1:1: tags such as !x are not supported"),
        # Keys in the light of others
        ("listen: []", "1:9: listen: at least one listener is needed"),
        (
            "log: {}\nlisten: [{}, {port: 0}, {}]",
            "2:25: listen[2]: 127.0.0.1:65000 is that of listen[0] already",
        ),
        (
            "daemon:\n  pidfile: /a/b\nlog:\n  file: /a/../a/b",
            "4:9: log.file: /a/b is that of daemon.pidfile already",
        ),
        (
            "daemon: {control: /a/b, pidfile: /a/b}",
            "1:19: daemon.control: /a/b is that of daemon.pidfile already",
        ),
        (
            "listen: [{address: 'unix:/a/b'}]\ndaemon: {control: /a/b}",
            "2:19: daemon.control: /a/b is that of listen already",
        ),
        (
            f"daemon: {{pidfile: {paths.log()}}}",
            f"1:19: daemon.pidfile: {paths.log()} is that of log.file already",
        ),
        (
            "listen: [{address: '::1'}, {address: '0:0::1'}]",
            "1:28: listen[1]: [::1]:65000 is that of listen[0] already",
        ),
        (
            "listen:\n- address: unix:/x\n  port: 5",
            "3:9: listen[0].port: a Unix socket has no port; take this line out",
        ),
        # Commands
        ("commands: {help!: {close: x}}", f"1:12: commands.help!: {NAME}, got 'help!'"),
        ("commands: {ab d: {close: x}}", f"1:12: commands.ab d: {NAME}, got 'ab d'"),
        (
            "commands: {abcd: {clok: x}}",
            f"1:18: commands.abcd: {KINDS}, got keys and values; did you mean clock?",
        ),
        (
            "commands: {abcd: 5}",
            f"1:18: commands.abcd: {KINDS}, got 5",
        ),
        (
            "commands: {abcd: {timezone: UTC}}",
            f"1:18: commands.abcd: {KINDS}, got keys and values",
        ),
        (
            "commands: {abcd: {close: x, timezone: UTC}}",
            "1:29: commands.abcd.timezone: there is no such key",
        ),
        (
            "commands: {abcd: {? [close] : x}}",
            f"1:18: commands.abcd: {KINDS}, got keys and values",
        ),
        ("commands: {abcd: {close: 1}}", "1:26: commands.abcd.close: expected a text, got 1"),
        (
            "commands: {abcd: {close: ''}}",
            "1:26: commands.abcd.close: expected a text of length >= 1, got ''",
        ),
        (
            "commands: {abcd: {clock: x, timezone: Mars/Base}}",
            "1:39: commands.abcd.timezone: 'Mars/Base' is not in this machine's time zone database",
        ),
        # YAML itself
        (
            "log: {}\n\ta: 1",
            f"2:1: not YAML: {SCANNING}, found character that cannot start any token",
        ),
        ("a: b: c", "1:5: not YAML: mapping values are not allowed in this context"),
        ("log: *x", "1:6: not YAML: found undefined alias"),
        (
            "log: {}\n---\nlog: {}",
            "2:1: not YAML: expected a single document in the stream, but found another document",
        ),
        (
            "listen: [",
            "2:1: not YAML: while parsing a flow node, did not find expected node content",
        ),
        ("log: \x01", "1:6: not a text file in UTF-8: control characters are not allowed"),
    ],
)
def test_a_problem_has_its_place_and_says_what_is_wrong(
    file: Path, text: str, problem: str
) -> None:
    """A file with one thing wrong has one problem: line, column, key, and what is expected."""
    assert problems(file, text) == [problem]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: [{port: x}]", "1:17: listen[0].port: expected a whole number"),
        ("limits: {clients_per_source: x}", "1:30: limits.clients_per_source: expected a whole"),
    ],
)
def test_a_number_that_may_be_missing_must_still_be_one(
    file: Path, text: str, message: str
) -> None:
    """Where null would do, text does not."""
    (problem,) = problems(file, text)
    assert problem.startswith(message)
    assert problem.endswith("got 'x'")


def test_a_problem_begins_with_the_file(file: Path) -> None:
    """A problem can be clicked on, or given to an editor."""
    assert read(file, "log:\n  level: x\n").problems == [
        f"{file}:2:10: log.level: expected debug, info, warning or error, got 'x'"
    ]


def test_one_run_finds_every_problem(file: Path) -> None:
    """Problems in all sections, and several in one, are found together."""
    text = """\
listen:
- {port: 99999, service: ecco}
- {address: "::1", port: x, backlog: 0}
log: {level: loud, format: xml}
access: {allow: [here], deny: [there, 1]}
handlers: {spare: -1, clients_each: 0}
commands:
  toolong: {close: 1}
  abcd: {clock: 1, timezone: 1}
nope: 1
"""
    places = [problem.partition(": ")[2].partition(":")[0] for problem in problems(file, text)]
    assert places == [
        "listen[0].port",
        "listen[0].service",
        "listen[1].port",
        "listen[1].backlog",
        "log.level",
        "log.format",
        "access.allow[0]",
        "access.deny[0]",
        "access.deny[1]",
        "handlers.spare",
        "handlers.clients_each",
        "commands.toolong",
        "commands.toolong.close",
        "commands.abcd.clock",
        "commands.abcd.timezone",
        "nope",
    ]


def test_all_that_cannot_work_together_is_told_in_one_run(file: Path) -> None:
    """Each key that another one leaves no room for has its line."""
    text = """\
listen:
- {address: unix:/s, port: 1, reply_terminator: x, service: echo, proxy: {trusted: [192.0.2.1]}}
- {port: 2}
- {port: 2}
- {port: 2}
"""
    echo = "the service echo sends back what it gets, and nothing else; take this out"
    assert problems(file, text) == [
        f"2:49: listen[0].reply_terminator: {echo}",
        "2:28: listen[0].port: a Unix socket has no port; take this line out",
        "2:74: listen[0].proxy: at a Unix socket its permissions say who is trusted; write {} here",
    ]
    text = """\
listen: [{port: 2}, {port: 2}, {port: 2}]
daemon: {pidfile: /a, control: /a}
log: {file: /a}
commands: {tiem: null, abcd: null, "a.b[": null, quit: null}
"""
    assert problems(file, text) == [
        "1:21: listen[1]: 127.0.0.1:2 is that of listen[0] already",
        "1:32: listen[2]: 127.0.0.1:2 is that of listen[0] already",
        "2:32: daemon.control: /a is that of daemon.pidfile already",
        "3:13: log.file: /a is that of daemon.control already",
        "4:18: commands.tiem: there is no such command to take out; did you mean time?",
        "4:30: commands.abcd: there is no such command to take out",
        "4:11: commands.a.b[: there is no such command to take out",
    ]


def test_a_problem_in_an_anchor_is_told_wherever_it_is_used(file: Path) -> None:
    """An alias has the place of its anchor, and the key that uses it."""
    text = "session: {idle_timeout: &t 5x,\n send_timeout: *t}"
    assert problems(file, text) == [
        f"1:25: session.idle_timeout: {DURATION}, got '5x'",
        f"1:25: session.send_timeout: {DURATION}, got '5x'",
    ]


def test_a_file_may_be_wide(file: Path) -> None:
    """Hundreds of lists beside each other are no depth."""
    assert problems(file, f"x: [{'[{}], ' * 500}]") == ["1:1: x: there is no such key"]


def test_listeners_at_any_port_may_have_one_address(file: Path) -> None:
    """Each gets a port of its own."""
    assert [
        listener.port for listener in config(file, "listen: [{port: 0}, {port: 0}]").listen
    ] == [
        0,
        0,
    ]


@pytest.mark.parametrize("text", ["listen: &a [*a]", "commands: &a {abcd: *a}"])
def test_a_file_that_contains_itself_is_refused(file: Path, text: str) -> None:
    """An alias of what it stands in is a problem like others, not an endless reading."""
    assert len(problems(file, text)) == 1


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"log: \xff", "1:6"),
        (b"log: {level: caf\xe9}", "1:17"),
        (b"limits: {}\n# x\nlog: {file: /tmp/\xff}\n", "3:18"),
        (b"log:\n  file: a\x01b\n", "2:10"),
    ],
)
@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
def test_a_file_that_is_no_text_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, data: bytes, place: str
) -> None:
    """Bytes that are not UTF-8, or that no text has, are a problem at their place."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    file.write_bytes(data)
    [problem] = load(str(file)).problems
    assert problem.startswith(f"{file}:{place}: not a text file in UTF-8: ")


def test_a_file_without_end_is_refused() -> None:
    """A device that is named by mistake is not read until there is no memory left."""
    with pytest.raises(OSError, match="more than 16 MiB"):
        load("/dev/zero")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_a_byte_order_mark(file: Path, encoding: str) -> None:
    """A file is read as YAML wants it, whatever editor wrote it."""
    file.write_bytes("log: {level: debug} # é".encode(encoding))
    assert load(str(file)).checked().config.log.level == "debug"


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
@pytest.mark.parametrize(
    ("text", "column"), [("[" * 900, 65), ("{a: " * 9999, 257), ("- " * 9999 + "x", 129)]
)
def test_a_file_that_is_nested_deeply_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, text: str, column: int
) -> None:
    """More than 64 levels are one problem, with and without the library in C."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    assert problems(file, text) == [f"1:{column}: not YAML: nested too deeply"]


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
def test_a_file_that_is_nested_without_end_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object
) -> None:
    """The library in C may look so far ahead that it is the first to say so."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    [problem] = problems(file, "[" * 100_000)
    assert re.fullmatch(r"1:\d+: not YAML: .*nest.*", problem)


def test_a_file_may_be_nested_as_deeply_as_makes_no_sense(file: Path) -> None:
    """64 levels are read, and refused for what they are."""
    text = "[" * 64 + "]" * 64
    assert problems(file, text) == ["1:1: expected keys and values, got a list"]


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
def test_what_is_text_stays_text(file: Path, written: str, closes: str) -> None:
    """YAML's old surprises do not bite: only numbers, true, false and null are not text."""
    commands = config(file, f"commands:\n  abcd:\n    close: {written}\n").commands
    assert commands[config_types.CommandName("abcd")] == Close(close=closes)


@pytest.mark.parametrize(
    ("written", "clients"), [("010", 10), ("+5", 5), ("0", None), ("007", 7), ("&a 5", 5)]
)
def test_a_number_is_decimal(file: Path, written: str, clients: int | None) -> None:
    """`010` is ten."""
    loaded = read(file, f"limits: {{clients: {written}}}")
    assert (loaded.config.limits.clients if clients else None) == clients
    assert bool(loaded.problems) is (clients is None)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5", 5), ("0.5", 0.5), (".5", 0.5), ("5.", 5), ("1e1", 10), ("1.5E+1", 15), ("2.5e-1", 0.25)],
)
def test_a_number_of_seconds_may_have_a_point(file: Path, written: str, seconds: float) -> None:
    """Numbers are those of YAML 1.2."""
    assert config(file, f"session: {{idle_timeout: {written}}}").session.idle_timeout == seconds


def test_users_and_groups_are_those_of_the_machine(file: Path) -> None:
    """Names that the machine knows can be used."""
    user, group = pwd.getpwall()[0].pw_name, grp.getgrall()[0].gr_name
    daemon = config(file, f"daemon: {{user: {user}, group: {group}}}").daemon
    assert (daemon.user, daemon.group) == (user, group)


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_true_and_false_are_no_text(file: Path, word: str) -> None:
    """The two are what YAML 1.2 makes of them, in its three spellings."""
    (problem,) = problems(file, f"commands: {{abcd: {{close: {word}}}}}")
    assert problem.endswith(f"expected a text, got {word.lower()}")


@pytest.mark.parametrize("word", ["null", "Null", "NULL", "~", ""])
def test_null_takes_away_what_may_be_missing(file: Path, word: str) -> None:
    """Null, in all its spellings, is none: no deadline, no limit, no file, no command."""
    loaded = config(
        file,
        f"session: {{idle_timeout: {word} }}\nlimits: {{rate_per_source: {word} }}\n"
        f"log: {{file: {word} }}\ncommands: {{time: {word} }}\n",
    )
    assert (loaded.session.idle_timeout, loaded.limits.rate_per_source) == (None, None)
    assert loaded.log.file is None
    assert loaded.commands == {"time": None, "quit": QUIT}


@pytest.mark.parametrize(
    "text",
    [
        "",
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
def test_what_is_empty_means_the_defaults(file: Path, text: str) -> None:
    """A file, a section, a list or a listener without content is as if it was not there."""
    assert config(file, text) == Config()


def test_a_file_changes_what_it_says_and_nothing_else(file: Path) -> None:
    """Every kind of value is read, and what is not said has its default."""
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


@pytest.mark.parametrize(
    ("folder", "absolute"),
    [(".", "{}/x"), ("./a/..", "{}/x"), ("..", "{}/../x"), ("/x//y/.", "/x/y/x")],
)
def test_a_relative_path_starts_at_the_file(file: Path, folder: str, absolute: str) -> None:
    """Every path in the file, a Unix listener's too, is relative to the file's own folder."""
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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("daemon:\n  control: {}", "2:12: daemon.control"),
        ("listen:\n- address: unix:{}", "2:12: listen[0].address"),
    ],
)
def test_the_path_of_a_socket_is_measured_as_a_whole(file: Path, text: str, place: str) -> None:
    """A relative one that fits may not fit behind the file's folder."""
    path = "s" * 100
    whole = file.parent / path
    said = f"{file}:{place}: the path of a Unix socket has at most 107 bytes, "
    said += f"and {whole} has {len(str(whole))}"
    assert read(file, text.format(path)).problems == [said]


def test_where_there_is_a_problem_there_is_the_default(file: Path) -> None:
    """A command such as `stop` can do with what can be read of a file with problems."""
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\nlisten: []\n")
    assert loaded.config.listen == Config().listen
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\n")
    assert loaded.config.daemon.pidfile == str(file.parent / "x")
    assert loaded.config.daemon.umask == Daemon().umask
    assert (loaded.config.log.level, len(loaded.problems)) == ("debug", 1)


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("", True),
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
def test_a_file_with_problems_may_still_say_which_daemon_is_meant(
    file: Path, text: str, *, sure: bool
) -> None:
    """It says where the pidfile is, unless that is what is wrong, or may be."""
    loaded = read(file, text)
    assert loaded.is_sure_of("daemon.pidfile") == sure
    if sure:
        given = str(file.parent / "x") if "pidfile" in text else Daemon().pidfile
        assert loaded.config.daemon.pidfile == given


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
def test_a_list_with_a_problem_is_not_half_there(file: Path, text: str) -> None:
    """Of networks or commands that are not all understood, none is taken."""
    loaded = read(file, text)
    assert (len(loaded.problems), loaded.config) == (1, Config())


@pytest.mark.parametrize("text", ["log: !x", "log: {file: !x }"])
def test_a_tag_does_not_make_a_default(file: Path, text: str) -> None:
    """What is tagged is never taken for nothing, so that it would be passed over."""
    assert len(problems(file, text)) == 1


def test_the_keys_that_are_given_are_known_by_line(file: Path) -> None:
    """It is known what the file says itself, even where it says what the default is."""
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
    assert read(file, text).given == {
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


def test_without_a_file_there_are_the_defaults() -> None:
    """No file is no problem."""
    assert load(None).checked() == ConfigResult(Config(), None, [], {})


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    """What is not there, or is no file, is for the caller to explain."""
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(IsADirectoryError):
        load(str(tmp_path))


def test_a_checked_configuration_has_no_problems(file: Path) -> None:
    """Whoever wants a configuration without problems gets it, or all of them."""
    good, bad = read(file, "log: {}"), read(file, "x: 1\ny: 2")
    assert good.checked() is good
    assert good.file == str(file)
    with pytest.raises(ConfigError) as refusal:
        bad.checked()
    assert refusal.value.problems == bad.problems
    assert str(refusal.value) == "\n".join(bad.problems)
    assert len(bad.problems) == 2


@pytest.mark.parametrize(
    ("explicit", "variable", "system", "found"),
    [
        ("a.yaml", "/b.yaml", True, "{}/a.yaml"),
        ("/a.yaml", None, False, "/a.yaml"),
        (None, "b.yaml", True, "{}/b.yaml"),
        (None, "", True, "{}/system.yaml"),
        (None, None, True, "{}/system.yaml"),
        (None, None, False, None),
        ("", "", False, None),
    ],
)
def test_a_file_is_looked_for_in_order(  # noqa: PLR0913 - a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    explicit: str | None,
    variable: str | None,
    *,
    system: bool,
    found: str | None,
) -> None:
    """The one that is named comes first, then the environment's, then the system's, then none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", str(tmp_path / "system.yaml"))
    monkeypatch.delenv("TETRAD_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("TETRAD_CONFIG", variable)
    if system:
        (tmp_path / "system.yaml").touch()
    assert paths.configuration(explicit) == (found and found.format(tmp_path))


def test_the_system_s_file_is_in_etc() -> None:
    """The last place to look is where a system keeps its configuration."""
    assert paths.SYSTEM_CONFIGURATION == "/etc/tetrad/tetrad.yaml"


# Configurations at random. Texts leave out what is told in the notes of `texts`.

words = st.sampled_from(
    ["no", "010", "22:00", "~", "null", "=", "<<", "#", "- a", "x: y", " ", "\n"]
)
texts = st.one_of(
    words, st.text(st.characters(codec="utf-8", exclude_characters="\x85"), min_size=1)
)
files = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85/"), min_size=1, max_size=20)
absolute = files.filter(lambda name: name not in {".", ".."}).map(lambda name: f"/x/{name}")
durations = st.integers(1, 10**9).map(lambda n: config_types.Duration.parse(n / 1000))
sockets = absolute.filter(lambda path: len(path.encode()) <= 107)
counts = st.integers(1, 1_000_000)
networks = st.ip_addresses().map(str).map(config_types.Network.parse)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make none at times."""
    return st.none() | values


arguments = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85"), max_size=9).map(
    programs.Argument
)
listeners = st.builds(
    Listener,
    address=st.ip_addresses().map(str).map(config_types.Address.parse),
    port=maybe(st.integers(0, 65535)),
    service=st.sampled_from(["command", "echo"]),
    backlog=st.integers(1, 65535),
) | st.builds(
    Listener,
    address=sockets.map(lambda path: config_types.Address(f"unix:{path}")),
    reply_terminator=st.sampled_from(["", "\n", "\r\n", "\0"]).map(answers.Terminator),
)
commands = (
    st.builds(
        Clock,
        clock=texts.filter(lambda text: "\0" not in text).map(config_types.ClockFormat),
        timezone=st.sampled_from(["local", "UTC"]).map(config_types.Timezone),
    )
    | st.builds(Close, close=texts)
    | st.builds(FixedText, text=texts)
    | st.builds(
        Run,
        run=st.lists(arguments, max_size=3).map(lambda more: [programs.Argument("true"), *more]),
        env=st.dictionaries(st.sampled_from(["LC_ALL", "x"]).map(programs.Variable), arguments),
        timeout=durations,
        max_output=st.integers(1, 1 << 30).map(answers.Size),
        on_error=maybe(texts),
    )
)
names = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=4, max_size=4)
configurations = st.builds(
    Config,
    listen=st.lists(listeners, min_size=1, max_size=3, unique_by=lambda listener: listener.name),
    daemon=st.builds(
        Daemon,
        pidfile=absolute.map(lambda path: config_types.Path(f"/run{path}")),
        control=sockets.map(lambda path: config_types.SocketPath(f"/c{path[:100]}")),
        working_directory=absolute.map(config_types.Path),
        umask=st.integers(0, 0o777).map(config_types.Mode),
        stop_timeout=durations,
    ),
    log=st.builds(
        Log,
        file=maybe(absolute.map(lambda path: config_types.Path(f"/log{path}"))),
        level=st.sampled_from(["debug", "info", "warning", "error"]),
        format=st.sampled_from(["json", "logfmt", "console"]),
    ),
    handlers=st.builds(Handlers, spare=st.integers(0, 10_000), clients_each=counts),
    limits=st.builds(
        Limits,
        clients=counts,
        clients_per_source=maybe(counts),
        rate_per_source=maybe(
            st.builds("{}/{}".format, counts, st.sampled_from("smh")).map(config_types.Rate.parse)
        ),
    ),
    session=st.builds(
        Session,
        first_command_timeout=maybe(durations),
        idle_timeout=maybe(durations),
        max_duration=maybe(durations),
        send_timeout=maybe(durations),
    ),
    access=st.builds(Access, allow=st.lists(networks), deny=st.lists(networks)),
    commands=st.builds(
        operator.or_,
        st.dictionaries(names.map(config_types.CommandName), commands),
        st.dictionaries(st.sampled_from(sorted(BUILT_IN_COMMANDS)), st.none()),
    ),
)


@given(configurations)
def test_what_is_dumped_loads_back_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, configuration: Config
) -> None:
    """A dump is a file that means the same, wherever it is put."""
    file = tmp_path_factory.getbasetemp() / "dump.yaml"
    loaded = read(file, dump(configuration))
    assert (loaded.problems, loaded.config) == ([], configuration)


@pytest.mark.parametrize("text", ["1e3", "1", "0o7", "null", "true", "~", "", "12:30", "1.", "no"])
def test_a_text_stays_a_text_in_a_dump(file: Path, text: str) -> None:
    """Also one that would be a number if it stood there without quotes."""
    command = Run(run=[programs.Argument("true"), programs.Argument(text)])
    configuration = Config(commands={config_types.CommandName("true"): command})
    assert read(file, dump(configuration)).checked().config == configuration


def test_a_dump_says_every_key() -> None:
    """An operator can see in a dump what there is to be said."""
    dumped = yaml.safe_load(dump(Config()))
    assert list(dumped) == list(Config.__struct_fields__)
    assert list(dumped["daemon"]) == list(Daemon.__struct_fields__)
    assert dumped["listen"] == [
        {
            "address": "127.0.0.1",
            "port": 65000,
            "service": "command",
            "backlog": 1024,
            "reply_terminator": "",
            "proxy": None,
            "tls": None,
        }
    ]
    assert dumped["commands"]["quit"] == {"close": "quit"}


def test_tags_may_say_what_is_so_anyway(file: Path) -> None:
    """Text, lists and mappings may be called so."""
    loaded = config(file, "!!map\nlisten: !!seq [!!map {service: !!str echo}]")
    assert [listener.service for listener in loaded.listen] == ["echo"]


def test_a_dump_is_readable() -> None:
    """Letters of all languages stand for themselves, and a line is broken when it is long."""
    text = "é " * 45 + "é"
    configuration = Config(commands={config_types.CommandName("long"): Close(close=text)})
    assert f"    close: {text}\n" in dump(configuration)


def test_a_dump_says_no_port_of_a_unix_socket() -> None:
    """What a Unix socket does not have is left out."""
    listener = Listener(address=config_types.Address("unix:/x"))
    assert "port" not in yaml.safe_load(dump(Config(listen=[listener])))["listen"][0]
