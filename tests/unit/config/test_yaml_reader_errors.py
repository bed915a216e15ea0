"""Errors in a configuration file: each has a location, and one run finds all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import problems, read
from tetrad.config import paths

if TYPE_CHECKING:
    from pathlib import Path

NAME = "expected a name of exactly four printable ASCII characters other than space"
DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
KINDS = "expected one of the keys clock, close, text, run, call"
ONE_DOCUMENT = "expected a single document in the stream"
SCANNING = "while scanning for the next token"
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


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
        ("limits: {clients: false}", "1:19: limits.clients: expected an integer, got false"),
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
        (
            "daemon: {user: 'a`b, got c'}",
            "1:16: daemon.user: this machine has no user 'a`b, got c'",
        ),
        (
            "daemon: {user: 0.5}",
            "1:16: daemon.user: expected the name or the id of a user, got 0.5",
        ),
        ("daemon: {group: -1}", "1:17: daemon.group: this machine has no group '-1'"),
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
            "listen: [{address: 0.0.0.0}, {address: '::1'}, {}]",
            "1:48: listen[2]: 127.0.0.1:65000 is already used by listen[0] (0.0.0.0:65000)",
        ),
        (
            "listen: [{}, {address: '::'}, {address: '::', port: 1}]",
            "1:14: listen[1]: [::]:65000 is already used by listen[0] (127.0.0.1:65000)",
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
            f"listen: [{{address: 'unix:{paths.control()}'}}]\ndaemon:\n",
            f"2:8: daemon.control: {paths.control()} is already used by listen",
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
            "commands: {abcd: {clok: x, y: z}}",
            f"1:18: commands.abcd: {KINDS}, got clok, y; did you mean clock?",
        ),
        (
            "commands: {abcd: {text: a, text: b}}",
            "1:28: commands.abcd.text: duplicate key; it is already set in line 1",
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
        (
            "limits: {clients_per_source: x}",
            "1:30: limits.clients_per_source: expected an integer, auto or null",
        ),
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


def test_paths_through_a_link_are_the_same(file: Path) -> None:
    """As /var/run leads to /run."""
    (file.parent / "link").symlink_to(".")
    text = """\
listen: [{address: unix:a}, {address: unix:link/a}, {address: unix:c}]
daemon: {control: link/c, pidfile: p}
log: {file: link/p}
"""
    folder = file.parent
    first = f"unix:{folder}/link/a is already used by listen[0] (unix:{folder}/a)"
    assert problems(file, text) == [
        f"1:29: listen[1]: {first}",
        f"2:19: daemon.control: {folder}/link/c is already used by listen",
        f"3:13: log.file: {folder}/link/p is already used by daemon.pidfile",
    ]


def test_an_error_in_an_anchor_is_reported_for_each_use(file: Path) -> None:
    """The location is the anchor's, the key is that of each alias."""
    text = "session: {idle_timeout: &t 5x,\n send_timeout: *t}"
    assert problems(file, text) == [
        f"1:25: session.idle_timeout: {DURATION}, got '5x'",
        f"1:25: session.send_timeout: {DURATION}, got '5x'",
    ]


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


@pytest.mark.parametrize("text", ["log: !x", "log: {file: !x }"])
def test_a_tag_is_an_error_where_the_value_is_empty(file: Path, text: str) -> None:
    """A tagged empty value is not ignored like an empty value without a tag."""
    assert len(problems(file, text)) == 1
