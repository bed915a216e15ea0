"""Reading and writing the configuration file: values, error messages with locations, defaults."""

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

from tetrad.config import paths, yaml_reader
from tetrad.config import types as config_types
from tetrad.config.command_model import BUILT_IN_COMMANDS, Clock, Close, FixedText, Run
from tetrad.config.diagnostics import ConfigError
from tetrad.config.model import Access, Config, Daemon, Handlers, Limits, Listener, Log, Session
from tetrad.config.result import ConfigResult
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
ONE_DOCUMENT = "expected a single document in the stream"
SCANNING = "while scanning for the next token"
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of the configuration file."""
    return tmp_path / "tetrad.yaml"


def read(file: Path, text: str) -> ConfigResult:
    """Write a file and load it."""
    file.write_text(text, "utf-8")
    return load(str(file))


def config(file: Path, text: str) -> Config:
    """Write a file without errors and load it."""
    return read(file, text).checked().config


def problems(file: Path, text: str) -> list[str]:
    """Write a file and return its errors, without the file's name at their beginning."""
    return [problem.removeprefix(f"{file}:") for problem in read(file, text).problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # Keys
        ("xyz: 1", "1:1: xyz: unknown key"),
        ("lissten: []", "1:1: lissten: unknown key; did you mean listen?"),
        ("Log: {}", "1:1: Log: unknown key; did you mean log?"),
        (
            "limits: {client_per_sorc: 5}",
            "1:10: limits.client_per_sorc: unknown key; did you mean clients_per_source?",
        ),
        (
            "session:\n  idle_timout: 5",
            "2:3: session.idle_timout: unknown key; did you mean idle_timeout?",
        ),
        (
            "log: {level: info,\n level: debug}",
            "2:2: log.level: duplicate key; it is already set in line 1",
        ),
        ("log:\n  {}\nlog: {}", "3:1: log: duplicate key; it is already set in line 1"),
        (
            "commands: {abcd: {close: a}, abcd: {close: b}}",
            "1:30: commands.abcd: duplicate key; it is already set in line 1",
        ),
        ("? [a]\n: 1", "1:3: ?: unknown key"),
        ("' ': 1", "1:1: ' ': unknown key"),
        ("'': 1", "1:1: '': unknown key"),
        ("log: {' level': debug}", "1:7: log.' level': unknown key; did you mean level?"),
        ("log: {<<: {level: debug}}", "1:7: log.<<: unknown key"),
        (r'"a\nb\e[2J": 1', r"1:1: a\nb\x1b[2J: unknown key"),
        # Shapes
        ("[]", "1:1: expected a mapping, got an empty list"),
        ("5", "1:1: expected a mapping, got 5"),
        ("log: []", "1:6: log: expected a mapping, got an empty list"),
        ("log: yes", "1:6: log: expected a mapping, got 'yes'"),
        ("listen: {port: 5}", "1:9: listen: expected a list, got a mapping"),
        ("listen: 5", "1:9: listen: expected a list, got 5"),
        ("listen: [[1]]", "1:10: listen[0]: expected a mapping, got a list"),
        ("daemon: {user: [a]}", "1:16: daemon.user: expected a single value, got a list"),
        (
            "daemon: {user: {a: 1}}",
            "1:16: daemon.user: expected a single value, got a mapping",
        ),
        # Values
        (
            "listen: [{port: 70000}]",
            "1:17: listen[0].port: expected an integer <= 65535, got 70000",
        ),
        (
            "listen: [{port: '80'}]",
            "1:17: listen[0].port: expected an integer or null, got '80'",
        ),
        ("listen: [{port: -1}]", "1:17: listen[0].port: expected an integer >= 0, got -1"),
        ("listen: [{backlog: x}]", "1:20: listen[0].backlog: expected an integer, got 'x'"),
        ("limits: {clients: true}", "1:19: limits.clients: expected an integer, got true"),
        ("limits: {clients: 5.5}", "1:19: limits.clients: expected an integer, got 5.5"),
        ("limits: {clients: '5'}", "1:19: limits.clients: expected an integer, got '5'"),
        ("limits: {clients: 0x10}", "1:19: limits.clients: expected an integer, got '0x10'"),
        ("limits: {clients: 1_000}", "1:19: limits.clients: expected an integer, got '1_000'"),
        (
            "limits: {clients: }",
            "1:19: limits.clients: expected an integer, got no value (null)",
        ),
        (
            "limits: {clients: ~}",
            "1:19: limits.clients: expected an integer, got no value (null)",
        ),
        (
            f"limits: {{clients: {'9' * 41}}}",
            f"1:19: limits.clients: expected an integer, got '{'9' * 41}'",
        ),
        (
            f"limits: {{clients: {'9' * 40}}}",
            f"1:19: limits.clients: expected an integer <= 1000000, got {'9' * 40}",
        ),
        (
            "listen: [{service: ecco}]",
            "1:20: listen[0].service: expected command or echo, got 'ecco'; did you mean echo?",
        ),
        (
            "log: {level: null}",
            "1:14: log.level: expected debug, info, warning or error, got no value (null)",
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
            f"1:24: daemon.stop_timeout: {DURATION}, got no value (null)",
        ),
        (
            "daemon: {umask: 027}",
            '1:17: daemon.umask: expected three octal digits in quotes, such as "027", got 27',
        ),
        ("daemon: {user: no body}", "1:16: daemon.user: this machine has no user 'no body'"),
        ("daemon: {user: 0}", "1:16: daemon.user: expected the name of a user, got 0"),
        ("daemon: {pidfile: null}", "1:19: daemon.pidfile: expected a path, got no value (null)"),
        (
            "access:\n  allow:\n  - ::1\n  - ::1/8",
            "4:5: access.allow[1]: ::1/8 has host bits set; write ::/8",
        ),
        ("access: {deny: [x]}", f"1:17: access.deny[0]: {NETWORK}, got 'x'"),
        ("log: {level: !x info}", "1:14: log.level: the YAML tag !x is not supported"),
        (
            "limits: {clients: !!int 5}",
            "1:19: limits.clients: the YAML tag tag:yaml.org,2002:int is not supported",
        ),
        ("log: {file: !x }", "1:13: log.file: the YAML tag !x is not supported"),
        ("log: !x {}", "1:6: log: the YAML tag !x is not supported"),
        ("listen: !x []", "1:9: listen: the YAML tag !x is not supported"),
        ("log: !x", "1:6: log: the YAML tag !x is not supported"),
        ("!x {}", "1:1: the YAML tag !x is not supported"),
        # Constraints between keys
        ("listen: []", "1:9: listen: at least one listener is required"),
        (
            "log: {}\nlisten: [{}, {port: 0}, {}]",
            "2:25: listen[2]: 127.0.0.1:65000 is already used by listen[0]",
        ),
        (
            "daemon:\n  pidfile: /a/b\nlog:\n  file: /a/../a/b",
            "4:9: log.file: /a/b is already used by daemon.pidfile",
        ),
        (
            "daemon: {control: /a/b, pidfile: /a/b}",
            "1:19: daemon.control: /a/b is already used by daemon.pidfile",
        ),
        (
            "listen: [{address: 'unix:/a/b'}]\ndaemon: {control: /a/b}",
            "2:19: daemon.control: /a/b is already used by listen",
        ),
        (
            f"daemon: {{pidfile: {paths.log()}}}",
            f"1:19: daemon.pidfile: {paths.log()} is already used by log.file",
        ),
        (
            "listen: [{address: '::1'}, {address: '0:0::1'}]",
            "1:28: listen[1]: [::1]:65000 is already used by listen[0]",
        ),
        (
            "listen:\n- address: unix:/x\n  port: 5",
            "3:9: listen[0].port: a Unix socket has no port; remove this key",
        ),
        # Commands
        ("commands: {help!: {close: x}}", f"1:12: commands.help!: {NAME}, got 'help!'"),
        ("commands: {ab d: {close: x}}", f"1:12: commands.ab d: {NAME}, got 'ab d'"),
        (
            "commands: {abcd: {clok: x}}",
            f"1:18: commands.abcd: {KINDS}, got clok; did you mean clock?",
        ),
        (
            "commands: {abcd: {timezone: UTC, text: x, run: [y]}}",
            "1:43: commands.abcd: only one of clock, close, text, run, call",
        ),
        (
            "commands: {abcd: 5}",
            f"1:18: commands.abcd: {KINDS}, got 5",
        ),
        (
            "commands: {abcd: {timezone: UTC}}",
            f"1:18: commands.abcd: {KINDS}, got timezone",
        ),
        (
            "commands: {abcd: {close: x, timezone: UTC}}",
            "1:29: commands.abcd.timezone: unknown key",
        ),
        (
            "commands: {abcd: {? [close] : x}}",
            f"1:18: commands.abcd: {KINDS}, got ?",
        ),
        (
            "commands: {abcd: {close: 010}}",
            '1:26: commands.abcd.close: expected a string, got the number 010: write "010"',
        ),
        (
            "commands: {abcd: {close: ''}}",
            "1:26: commands.abcd.close: expected a string of length >= 1, got ''",
        ),
        (
            "commands: {abcd: {clock: x, timezone: Mars/Base}}",
            "1:39: commands.abcd.timezone: 'Mars/Base' is not in this machine's time zone database",
        ),
        # YAML itself
        (
            "log: {}\n\ta: 1",
            f"2:1: invalid YAML: {SCANNING}, found character that cannot start any token",
        ),
        ("a: b: c", "1:5: invalid YAML: mapping values are not allowed in this context"),
        ("log: *x", "1:6: invalid YAML: found undefined alias"),
        (
            "log: {}\n---\nlog: {}",
            f"2:1: invalid YAML: {ONE_DOCUMENT}, but found another document",
        ),
        (
            "listen: [",
            "2:1: invalid YAML: while parsing a flow node, did not find expected node content",
        ),
        ("log: \x01", "1:6: not a UTF-8 text file: control characters are not allowed"),
    ],
)
def test_an_error_has_a_location_and_a_reason(file: Path, text: str, problem: str) -> None:
    """One error is reported once: line, column, key and what is expected."""
    assert problems(file, text) == [problem]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: [{port: x}]", "1:17: listen[0].port: expected an integer"),
        ("limits: {clients_per_source: x}", "1:30: limits.clients_per_source: expected an integer"),
    ],
)
def test_a_number_or_null_is_not_a_string(file: Path, text: str, message: str) -> None:
    """A key that accepts null does not accept other types."""
    (problem,) = problems(file, text)
    assert problem.startswith(message)
    assert problem.endswith("got 'x'")


def test_an_error_begins_with_the_file(file: Path) -> None:
    """`FILE:LINE:COLUMN` is the form that editors and terminals open."""
    assert read(file, "log:\n  level: x\n").problems == [
        f"{file}:2:10: log.level: expected debug, info, warning or error, got 'x'"
    ]


def test_one_run_finds_every_error(file: Path) -> None:
    """Errors in all sections, and several in one section, are reported together."""
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


def test_all_violated_constraints_are_reported_in_one_run(file: Path) -> None:
    """Each key that contradicts another one has its line."""
    text = """\
listen:
- {address: unix:/s, port: 1, reply_terminator: x, service: echo, proxy: {trusted: [192.0.2.1]}}
- {port: 2}
- {port: 2}
- {port: 2}
"""
    echo = "the echo service only sends back what it receives; remove this key"
    trust = "a Unix socket trusts every peer that its file mode lets connect; write {}"
    assert problems(file, text) == [
        f"2:49: listen[0].reply_terminator: {echo}",
        "2:28: listen[0].port: a Unix socket has no port; remove this key",
        f"2:74: listen[0].proxy: {trust}",
    ]
    text = """\
listen: [{port: 2}, {port: 2}, {port: 2}]
daemon: {pidfile: /a, control: /a}
log: {file: /a}
commands: {tiem: null, abcd: null, "a.b[": null, quit: null}
"""
    assert problems(file, text) == [
        "1:21: listen[1]: 127.0.0.1:2 is already used by listen[0]",
        "1:32: listen[2]: 127.0.0.1:2 is already used by listen[0]",
        "2:32: daemon.control: /a is already used by daemon.pidfile",
        "3:13: log.file: /a is already used by daemon.control",
        "4:18: commands.tiem: no built-in command of this name to remove; did you mean time?",
        "4:30: commands.abcd: no built-in command of this name to remove",
        "4:11: commands.a.b[: no built-in command of this name to remove",
    ]


def test_an_error_in_an_anchor_is_reported_for_each_use(file: Path) -> None:
    """The location is the anchor's, the key is that of each alias."""
    text = "session: {idle_timeout: &t 5x,\n send_timeout: *t}"
    assert problems(file, text) == [
        f"1:25: session.idle_timeout: {DURATION}, got '5x'",
        f"1:25: session.send_timeout: {DURATION}, got '5x'",
    ]


def test_a_file_may_be_wide(file: Path) -> None:
    """Hundreds of lists next to each other are not deep nesting."""
    assert problems(file, f"x: [{'[{}], ' * 500}]") == ["1:1: x: unknown key"]


def test_listeners_at_any_port_may_have_one_address(file: Path) -> None:
    """With port 0 each listener gets its own port."""
    assert [
        listener.port for listener in config(file, "listen: [{port: 0}, {port: 0}]").listen
    ] == [
        0,
        0,
    ]


@pytest.mark.parametrize("text", ["listen: &a [*a]", "commands: &a {abcd: *a}"])
def test_a_file_that_contains_itself_is_refused(file: Path, text: str) -> None:
    """A recursive alias is an error, not an endless loop."""
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
def test_a_file_that_is_not_text_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, data: bytes, place: str
) -> None:
    """Invalid UTF-8 and control characters are errors with a location."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    file.write_bytes(data)
    [problem] = load(str(file)).problems
    assert problem.startswith(f"{file}:{place}: not a UTF-8 text file: ")


def test_an_endless_file_is_refused() -> None:
    """A device that is named by mistake is not read until memory is exhausted."""
    with pytest.raises(OSError, match="larger than 16 MiB"):
        load("/dev/zero")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_a_byte_order_mark(file: Path, encoding: str) -> None:
    """All encodings that YAML defines are read."""
    file.write_bytes("log: {level: debug} # é".encode(encoding))
    assert load(str(file)).checked().config.log.level == "debug"


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
@pytest.mark.parametrize(
    ("text", "column"), [("[" * 900, 65), ("{a: " * 9999, 257), ("- " * 9999 + "x", 129)]
)
def test_a_file_that_is_nested_deeply_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object, text: str, column: int
) -> None:
    """More than 64 levels are one error, with and without libyaml."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    assert problems(file, text) == [f"1:{column}: invalid YAML: nested more than 64 levels deep"]


@pytest.mark.parametrize("loader", [yaml_reader._LOADER, yaml.BaseLoader])  # noqa: SLF001 - in C
def test_a_file_that_is_nested_without_end_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, loader: object
) -> None:
    """The C library has a limit of its own, which it may reach first."""
    monkeypatch.setattr(yaml_reader, "_LOADER", loader)
    [problem] = problems(file, "[" * 100_000)
    assert re.fullmatch(r"1:\d+: invalid YAML: .*nest.*", problem)


def test_a_file_may_be_nested_as_deeply_as_the_limit(file: Path) -> None:
    """64 levels are read; the error is then that of their contents."""
    text = "[" * 64 + "]" * 64
    assert problems(file, text) == ["1:1: expected a mapping, got a list"]


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
def test_an_empty_value_means_the_default(file: Path, text: str) -> None:
    """An empty file, section, list or listener has the same effect as a missing one."""
    assert config(file, text) == Config()


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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("daemon:\n  control: {}", "2:12: daemon.control"),
        ("listen:\n- address: unix:{}", "2:12: listen[0].address"),
    ],
)
def test_the_limit_of_a_socket_path_applies_to_the_absolute_path(
    file: Path, text: str, place: str
) -> None:
    """A short relative path can be too long with the folder of the file."""
    path = "s" * 100
    whole = file.parent / path
    said = f"{file}:{place}: the path of a Unix socket has at most 107 bytes, "
    said += f"but {whole} has {len(str(whole))}"
    assert read(file, text.format(path)).problems == [said]


def test_a_value_with_an_error_has_its_default(file: Path) -> None:
    """A command such as `stop` uses the valid values of a file with errors."""
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\nlisten: []\n")
    assert loaded.config.listen == Config().listen
    loaded = read(file, "daemon: {pidfile: x, umask: 9}\nlog: {level: debug}\n")
    assert loaded.config.daemon.pidfile == str(file.parent / "x")
    assert loaded.config.daemon.umask == Daemon().umask
    assert (loaded.config.log.level, len(loaded.problems)) == ("debug", 1)


@pytest.mark.parametrize(
    ("text", "reliable"),
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
def test_a_value_is_reliable_unless_an_error_may_concern_it(
    file: Path, text: str, *, reliable: bool
) -> None:
    """The pidfile of a file with errors is reliable if no error and no unknown key may be it."""
    loaded = read(file, text)
    assert loaded.is_reliable("daemon.pidfile") == reliable
    if reliable:
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
def test_a_list_with_an_error_is_not_used_in_part(file: Path, text: str) -> None:
    """If one network or command is invalid, the whole list has its default."""
    loaded = read(file, text)
    assert (len(loaded.problems), loaded.config) == (1, Config())


@pytest.mark.parametrize("text", ["log: !x", "log: {file: !x }"])
def test_a_tag_is_an_error_where_the_value_is_empty(file: Path, text: str) -> None:
    """A tagged empty value is not ignored like an empty value without a tag."""
    assert len(problems(file, text)) == 1


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


def test_without_a_file_the_result_is_the_defaults() -> None:
    """Without a file there are no errors."""
    assert load(None).checked() == ConfigResult(Config(), None, [], {})


def test_a_file_that_cannot_be_read_raises_oserror(tmp_path: Path) -> None:
    """The caller reports a missing file and a folder."""
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(IsADirectoryError):
        load(str(tmp_path))


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


@pytest.mark.parametrize(
    ("config_path", "variable", "system", "found"),
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
def test_the_file_is_searched_in_order(  # noqa: PLR0913 - a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_path: str | None,
    variable: str | None,
    *,
    system: bool,
    found: str | None,
) -> None:
    """-c comes first, then $TETRAD_CONFIG, then the system's file if it exists, then none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", str(tmp_path / "system.yaml"))
    monkeypatch.delenv("TETRAD_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("TETRAD_CONFIG", variable)
    if system:
        (tmp_path / "system.yaml").touch()
    assert paths.configuration(config_path) == (found and found.format(tmp_path))


def test_the_file_of_the_system_is_in_etc() -> None:
    """Its path is fixed."""
    assert paths.SYSTEM_CONFIGURATION == "/etc/tetrad/tetrad.yaml"


# Random configurations

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
    """Generate values or None."""
    return st.none() | values


arguments = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85"), max_size=9).map(
    config_types.Argument
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
    reply_terminator=st.sampled_from(["", "\n", "\r\n", "\0"]).map(config_types.Terminator),
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
        run=st.lists(arguments, max_size=3).map(
            lambda more: [config_types.Argument("true"), *more]
        ),
        env=st.dictionaries(st.sampled_from(["LC_ALL", "x"]).map(config_types.Variable), arguments),
        timeout=durations,
        max_output=st.integers(1, 1 << 30).map(config_types.Size),
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
def test_a_dump_loads_back_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, configuration: Config
) -> None:
    """A dump is a file with the same meaning in any folder."""
    file = tmp_path_factory.getbasetemp() / "dump.yaml"
    loaded = read(file, dump(configuration))
    assert (loaded.problems, loaded.config) == ([], configuration)


@pytest.mark.parametrize("text", ["1e3", "1", "0o7", "null", "true", "~", "", "12:30", "1.", "no"])
def test_a_string_stays_a_string_in_a_dump(file: Path, text: str) -> None:
    """A string that looks like another type is quoted."""
    command = Run(run=[config_types.Argument("true"), config_types.Argument(text)])
    configuration = Config(commands={config_types.CommandName("true"): command})
    assert read(file, dump(configuration)).checked().config == configuration


def test_a_dump_has_every_key() -> None:
    """A dump shows all keys with their effective values."""
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


def test_tags_of_strings_lists_and_mappings_are_accepted(file: Path) -> None:
    """Tags that do not change a type have no effect."""
    loaded = config(file, "!!map\nlisten: !!seq [!!map {service: !!str echo}]")
    assert [listener.service for listener in loaded.listen] == ["echo"]


def test_a_dump_is_readable() -> None:
    """Letters are not escaped, and only lines longer than 100 characters are broken."""
    text = "é " * 45 + "é"
    configuration = Config(commands={config_types.CommandName("long"): Close(close=text)})
    assert f"    close: {text}\n" in dump(configuration)


def test_a_dump_has_no_port_for_a_unix_socket() -> None:
    """A null port would be an error when the dump is read."""
    listener = Listener(address=config_types.Address("unix:/x"))
    assert "port" not in yaml.safe_load(dump(Config(listen=[listener])))["listen"][0]
