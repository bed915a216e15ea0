"""The JSON Schema of the configuration: it is up to date, and editors that use it are right."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from tests.support.project import ROOT
from tetrad.cli.check import check
from tetrad.cli.parser import parser
from tetrad.config import json_schema, yaml_reader, yaml_writer
from tetrad.config import types as config_types
from tetrad.config.model import Config

if TYPE_CHECKING:
    from pathlib import Path

ETC = ROOT / "etc"
FILE = ETC / "tetrad.schema.json"

COMMENTED_OUT = re.compile(r"^#( *(- )?[a-z_]+:.*)$", re.MULTILINE)


SCHEMA = json_schema.schema()
VALIDATOR = Draft7Validator(SCHEMA)


def accepted(text: str) -> bool:
    """Return whether the schema accepts a file.

    No text here means one thing in YAML 1.1, which this reads, and another in 1.2.
    """
    return bool(VALIDATOR.is_valid(yaml.safe_load(text)))


def test_the_schema_is_valid() -> None:
    """It follows the draft that it names."""
    assert SCHEMA["$schema"] == Draft7Validator.META_SCHEMA["$schema"]
    Draft7Validator.check_schema(SCHEMA)


def test_the_schema_has_the_defaults_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that an editor fills in has the value that it has by default."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    whole = json_schema.schema()
    expected = msgspec.to_builtins(Config(), enc_hook=str, str_keys=True)
    for name, key in whole["properties"].items():
        if "default" in key:
            assert key["default"] == expected[name]
        else:
            keys = whole["definitions"][key["$ref"].rpartition("/")[2]]["properties"]
            assert {one: value["default"] for one, value in keys.items()} == expected[name]


def test_check_prints_the_schema_that_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """The file in etc/ is what `tetrad check --schema` prints; it needs no configuration."""
    options = parser().parse_args(["check", "--schema", "-c", "/nowhere"])
    assert check(options) == 0
    assert capsys.readouterr().out == FILE.read_text("utf-8"), (
        f"{FILE.name} is out of date: tetrad check --schema >etc/{FILE.name}"
    )


@pytest.mark.parametrize("user", [0, 1000])
def test_the_schema_is_the_same_for_all_users(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults that depend on the user are root's."""
    expected = json_schema.text()
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/somewhere")
    assert json_schema.text() == expected


def test_the_file_that_is_shipped_is_accepted() -> None:
    """As it is, with every line uncommented, and with each section alone."""
    text = (ETC / "tetrad.yaml").read_text("utf-8")
    assert accepted(text)
    assert accepted(COMMENTED_OUT.sub(r"\1", text))
    assert all(accepted(f"{section}:") for section in Config.__struct_fields__)


def test_the_examples_of_the_readme_are_accepted(tmp_path: Path) -> None:
    """By the schema and by tetrad."""
    for text in re.findall(
        r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
    ):
        assert accepted(text)
        (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
        assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems == []


def test_what_dump_prints_is_accepted() -> None:
    """`tetrad check --dump` writes a file that the schema accepts."""
    assert accepted(yaml_writer.dump(Config()))


@pytest.mark.parametrize(
    "text",
    [
        "listn: []",
        "listen: []",
        "listen: {port: 1}",
        "listen: [{port: 65536}]",
        "listen: [{port: -1}]",
        "listen: [{port: 1.5}]",
        "listen: [{port: ssh}]",
        "listen: [{servce: echo}]",
        "listen: [{service: http}]",
        "listen: [{backlog: 0}]",
        "listen: [{address: localhost}]",
        "listen: [{address: 127.0.0.256}]",
        "listen: [{address: 192.0.2.0/24}]",
        "listen: [{address: 7}]",
        "listen: [{address: 'unix:'}]",
        "listen: [{address: unix:/run/t.sock, port: 7}]",
        "daemon: [pidfile]",
        "daemon: {pidfile: null}",
        "daemon: {pidfile: ''}",
        f"daemon: {{control: /{'x' * 107}}}",
        "daemon: {umask: 27}",
        "daemon: {umask: '1777'}",
        "daemon: {umask: '088'}",
        "daemon: {user: -1}",
        "daemon: {stop_timeout: null}",
        "daemon: {stop_timeout: soon}",
        "daemon: {stop_timeout: '10'}",
        "daemon: {stop_timeout: 10 s}",
        "daemon: {stop_timeout: 0}",
        "daemon: {stop_timeout: -1}",
        "daemon: {stop_timeout: true}",
        "daemon: {stop_timeout: 315360001}",
        "log: tetrad.log",
        "log: {level: loud}",
        "log: {format: xml}",
        "log: {file: [a]}",
        "handlers: {spare: -1}",
        "handlers: {clients_each: 0}",
        "limits: {clients: null}",
        "limits: {clients: many}",
        "limits: {rate_per_source: 20}",
        "limits: {rate_per_source: 0/s}",
        "limits: {rate_per_source: 20/d}",
        "session: {idle_timeout: [5m]}",
        "session: {idle_timout: 5m}",
        "access: {allow: 192.0.2.0/24}",
        "access: {allow: [192.0.2.0/33]}",
        "access: {deny: ['2001:db8::/129']}",
        "access: {deny: [null]}",
        "access: {deny: [everyone]}",
        "commands: [time]",
        "commands: {dat: {close: x}}",
        "commands: {dates: null}",
        "commands: {'da e': {close: x}}",
        "commands: {date: {}}",
        "commands: {date: now}",
        "commands: {date: {clock: ''}}",
        "commands: {date: {clock: '%H', close: x}}",
        "commands: {date: {timezone: UTC}}",
        "commands: {date: {close: ''}}",
        "commands: {date: {close: 7}}",
        "- listen",
        "listen",
    ],
)
def test_the_schema_refuses_what_tetrad_refuses(text: str, tmp_path: Path) -> None:
    """An editor shows the mistake before the file is saved."""
    (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
    assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems
    assert not accepted(text)


def fits(kind: Any, value: object) -> bool:  # noqa: ANN401 - they have `parse` in common
    """Return whether the schema accepts a value of this type."""
    definition = SCHEMA["definitions"][kind.__name__]
    return bool(Draft7Validator(definition).is_valid(value))


def parses(kind: Any, value: object) -> bool:  # noqa: ANN401 - they have `parse` in common
    """Return whether tetrad accepts it."""
    try:
        kind.parse(value)
    except ValueError:
        return False
    return True


ASCII = st.characters(min_codepoint=32, max_codepoint=126)


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        (config_types.Rate, "[0-9]{0,3} ?/ ?[smhd]?"),
        (config_types.Mode, "[0-8]{0,5}"),
        (config_types.CommandName, "[ -~]{3,5}"),
        (config_types.Duration, r"([1-9][0-9]?(\.[0-9]?)?(ms|[dhmsx])){0,3}"),
    ],
)
@given(data=st.data())
def test_schema_and_parser_accept_the_same_texts(
    kind: type, pattern: str, data: st.DataObject
) -> None:
    """For types whose values depend on the text alone."""
    text = data.draw(st.from_regex(pattern, fullmatch=True) | st.text(ASCII, max_size=8))
    # Only the parser limits numbers: neither long ones nor a duration of nothing.
    assume(not re.search(r"[0-9]{4}|(?<![0-9])0[0-9.]*[a-z]", text))
    assert fits(kind, text) == parses(kind, text)


@given(
    text=st.one_of(
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        st.from_regex("[0-9a-f:.%]{1,12}", fullmatch=True),
    ),
    tail=st.sampled_from(["", "/0", "/8", "/032", "/64", "/128", "/255.0.0.0", "%eth0"]),
)
def test_the_schema_accepts_every_address_that_tetrad_accepts(text: str, tail: str) -> None:
    """It may accept more: the pattern for IPv6 is loose."""
    for kind in (config_types.Address, config_types.Network):
        assert fits(kind, text + tail) or not parses(kind, text + tail)
