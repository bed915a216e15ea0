"""One mistake is one error: constraints on values that are not valid are not reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.configuration_files import config, problems
from tetrad.config import yaml_reader

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "expected an IPv4 or IPv6 address, or unix:/path/to.sock, got"
TRUSTED = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen: [{proxy: []}]", "1:18: listen[0].proxy: expected a mapping, got an empty list"),
        ("listen: [{proxy: x}]", "1:18: listen[0].proxy: expected a mapping, got 'x'"),
        (
            "listen: [{proxy: {trusted: [x]}}]",
            f"1:29: listen[0].proxy.trusted[0]: {TRUSTED}, got 'x'",
        ),
        (
            "listen: [{proxy: {trusted: 192.0.2.1}}]",
            "1:28: listen[0].proxy.trusted: expected a list, got '192.0.2.1'",
        ),
        ("listen: [{address: x, proxy: {}}]", f"1:20: listen[0].address: {ADDRESS} 'x'"),
        (
            "listen: [{address: 'unix:', proxy: {trusted: []}}]",
            "1:20: listen[0].address: expected a path, got 'unix:'",
        ),
        ("listen: [{tls: 5}]", "1:16: listen[0].tls: expected a mapping, got 5"),
        ("listen: [{tls: []}]", "1:16: listen[0].tls: expected a mapping, got an empty list"),
        (
            "listen: [{tls: {certificate: a, client_ca: [], subjects: [CN=x]}}]",
            "1:44: listen[0].tls.client_ca: expected a single value, got an empty list",
        ),
        (
            "listen: [{service: ech, reply_terminator: x}]",
            "1:20: listen[0].service: expected command or echo, got 'ech'; did you mean echo?",
        ),
        ("daemon: 5", "1:9: daemon: expected a mapping, got 5"),
        ("commands: 5", "1:11: commands: expected a mapping, got 5"),
        (
            "daemon: {pidfile: 5}\nlog: {file: /run/tetrad/tetrad.pid}",
            "1:19: daemon.pidfile: expected a path, got 5",
        ),
    ],
)
def test_a_mistake_is_reported_once(file: Path, text: str, expected: str) -> None:
    """Not a second time as what the default would be in conflict with."""
    assert problems(file, text) == [expected]


def test_listeners_with_errors_are_no_duplicates(file: Path) -> None:
    """Of each other or of a valid one; duplicates among the others are found in the same run."""
    text = "listen: [{address: x}, {address: y}, {adress: '::1'}, {}, {port: 65000}]"
    assert problems(file, text) == [
        f"1:20: listen[0].address: {ADDRESS} 'x'",
        f"1:34: listen[1].address: {ADDRESS} 'y'",
        "1:39: listen[2].adress: unknown key; did you mean address?",
    ]


def test_real_conflicts_are_reported_beside_other_errors(file: Path) -> None:
    """All errors are found in one run."""
    text = "listen: [{}, {}, {backlog: 0}]\nlog: {level: x}"
    assert [one.split(" ")[1] for one in problems(file, text)] == [
        "listen[2].backlog:",
        "log.level:",
        "listen[1]:",
    ]


@pytest.mark.parametrize("text", ["!!str 5", '!!str "5"', "'5'"])
@pytest.mark.parametrize("base", [getattr(yaml, "CBaseLoader", None), yaml.BaseLoader])
def test_a_tagged_string_is_a_string(
    file: Path, monkeypatch: pytest.MonkeyPatch, base: object, text: str
) -> None:
    """Whatever it looks like, with and without libyaml."""
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml_reader._loader(base))  # noqa: SLF001
    settings = config(file, f"commands: {{five: {{text: {text}}}}}")
    assert "text='5'" in repr(settings.commands["five"])  # type: ignore[index]


def test_a_tagged_string_is_not_a_number(file: Path) -> None:
    """It is refused where a number is expected."""
    assert problems(file, "limits: {clients: !!str 5}") == [
        "1:19: limits.clients: expected an integer, got '5'"
    ]
    assert problems(file, "limits: {clients: !!int 5}") == [
        "1:19: limits.clients: the YAML tag tag:yaml.org,2002:int is not supported"
    ]
