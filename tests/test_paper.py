"""The paper: what is generated is up to date, and the programs it is for can use it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from tetrad.cli import exit_status
from tetrad.cli.parser import parser
from tetrad.config import json_schema, yaml_reader, yaml_writer
from tetrad.config import types as config_types
from tetrad.config.model import Config
from tetrad.ipc import log_protocol
from tetrad.paper import commandline, prose, roff
from tetrad.paper.files import files

ROOT = Path(__file__).parent.parent
ETC = ROOT / "etc"
PAGES = ["man/tetrad.8", "man/tetrad.yaml.5"]

COMMENTED_OUT = re.compile(r"^#( *(- )?[a-z_]+:.*)$", re.MULTILINE)


def run(program: str, *arguments: str, script: str | None = None) -> str:
    """Run a program that may not be installed; it must be content and say nothing of errors."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [path, *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# What is kept and what is made


@pytest.mark.parametrize("name", files())
def test_a_generated_file_is_up_to_date(name: str) -> None:
    """What is in etc/ is what the parser and the types say now."""
    assert (ETC / name).read_text("utf-8") == files()[name], (
        f"etc/{name} is out of date; write it anew with: python -m tetrad.paper etc"
    )


def test_there_is_nothing_else_beside_the_generated_files() -> None:
    """A page or a completion that nobody makes any more is taken away."""
    kept = [*ETC.glob("man/*"), *ETC.glob("completions/*"), *ETC.glob("*.schema.json")]
    assert {str(path.relative_to(ETC)) for path in kept} == set(files())


def test_the_files_are_written_below_the_folder_that_is_named(tmp_path: Path) -> None:
    """`python -m tetrad.paper FOLDER` needs no folder to be there."""
    folder = tmp_path / "new"
    subprocess.run([sys.executable, "-m", "tetrad.paper", str(folder)], check=True, timeout=60)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)): path.read_text("utf-8") for path in written} == files()


def test_without_a_folder_it_says_how_it_is_used() -> None:
    """Nothing is written to a place that was not named."""
    command = [sys.executable, "-m", "tetrad.paper"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("user", [0, 1000])
def test_the_paper_is_the_same_for_everyone(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who makes it nor the width of a terminal is seen in it."""
    expected = files()
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/somewhere")
    assert files() == expected


# The manual


@pytest.mark.parametrize("page", PAGES)
def test_man_shows_a_page_without_a_warning(page: str) -> None:
    """The page is what groff understands."""
    shown = run("man", "--warnings", "-E", "UTF-8", "-l", str(ETC / page))
    assert "NAME" in shown
    assert "SEE ALSO" in shown


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_complain_of(page: str) -> None:
    """The other reader of such pages, and the stricter one."""
    assert run("mandoc", "-Tlint", "-Wwarning", str(ETC / page)) == ""


def test_the_manual_knows_every_event() -> None:
    """An operator can look up whatever is in the log."""
    words = [value for name, value in vars(log_protocol).items() if name.isupper()]
    names = {word for word in words if isinstance(word, str) and "." in word}
    assert (
        names
        - {log_protocol.LOGGER_REOPEN, log_protocol.LOGGER_CONFIGURE, log_protocol.LOGGER_EXIT}
        == prose.EVENTS.keys()
    )
    assert {level for level, _ in prose.EVENTS.values()} <= {*log_protocol.LEVELS}


def test_the_manual_knows_every_exit_status() -> None:
    """Those of all commands, and those of `status`."""
    statuses = {name: value for name, value in vars(exit_status).items() if name.isupper()}
    of_status = {value for name, value in statuses.items() if name.startswith("STATUS_")}
    assert {*prose.STATUSES_OF_STATUS} == of_status
    assert {*prose.STATUSES} == {v for n, v in statuses.items() if not n.startswith("STATUS_")}


def test_the_manual_speaks_of_commands_that_there_are() -> None:
    """Nothing is left of a command that was taken out."""
    assert prose.ABOUT_COMMANDS.keys() <= commandline.parsers(parser()).keys()


def test_the_manual_has_every_command_option_and_key() -> None:
    """Nothing is in the parser or in the file that could not be looked up."""
    first, second = ((ETC / page).read_text("utf-8").replace("\\-", "-") for page in PAGES)
    for command in commandline.commands():
        assert f"\\fBtetrad {command.name}".rstrip() in first
        assert all(f"\\fB{word}\\fR" in first for o in command.options for word in o.spellings)
    for section in json_schema.schema()["definitions"].values():
        assert all(f"\n\\fB{key}\\fR (" in second for key in section.get("properties", ()))


def test_text_becomes_macros() -> None:
    """Paragraphs, terms and lines that stay; nothing of it is taken for a macro by accident."""
    made = roff.text(
        "One `a-b`. `c` _D_.\n\n    'x'\n\n    .y\n\n.z\n\n`e`\n    It is\n    e.g. `f`."
    )
    assert made.split("\n") == [
        *("One \\fBa\\-b\\fR.", "\\fBc\\fR \\fID\\fR."),
        *(".PP", ".RS", ".nf", "\\(aqx\\(aq", "", "\\&.y", ".fi", ".RE"),
        *(".PP", "\\&.z", ".TP", "\\fBe\\fR", "It is e.g. \\fBf\\fR.", ""),
    ]


# The completions


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["re"], {"restart", "reload"}),
        (["-c", "/dev/nul"], {"/dev/null"}),
        (["start", "--config", "/dev/nul"], {"/dev/null"}),
        (["status", "--f"], {"--format"}),
        (["status", "--format", ""], {"text", "json", "openmetrics"}),
        (["logs", "--follow", "--level", "w"], {"warning"}),
        (["-c", "tetrad.yaml", "logs", "--level="], {"debug", "info", "warning", "error"}),
        (["logs", "--level=w"], {"warning"}),
        (["logs", "--event", "log."], {"log.reopened", "log.lost"}),
        (["client", "--service", ""], {"command", "echo"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_what_fits(shell: str, typed: list[str], offered: set[str]) -> None:
    """Commands, options, and the values that an option can have."""
    file = f"{ETC}/completions/tetrad.{shell}"
    line = " ".join(["tetrad", *typed])
    if shell == "bash":
        words = [shlex.quote(word) for word in re.findall("=|[^= ]+", line)]
        words += ["''"] * (typed[-1] == "")
        found = run(
            "bash",
            "--norc",
            script=f"source {file}\nCOMP_WORDS=({' '.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
            "_tetrad 2>&1\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n",
        )
    else:
        found = run("fish", "-N", "-c", f"source {file}; complete -C '{line}'")
    # fish shows an option and its value in one.
    answers = {word.partition("\t")[0].rpartition("=")[2] for word in found.split("\n")}
    # compopt, where there is no line that is typed, says so.
    assert {word for word in answers if word and "compopt" not in word} == offered


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "tetrad.bash"), ("zsh", "_tetrad"), ("fish", "tetrad.fish")]
)
def test_a_shell_can_read_its_completions(shell: str, name: str) -> None:
    """The shell that they are for parses them."""
    assert run(shell, "-n", str(ETC / "completions" / name)) == ""


# The schema


VALIDATOR = Draft7Validator(json_schema.schema())


def accepted(text: str) -> bool:
    """Tell whether an editor would be content with a file.

    Nothing here is what YAML 1.1, which this reads, and 1.2, which editors read, take differently.
    """
    return bool(VALIDATOR.is_valid(yaml.safe_load(text)))


def test_the_schema_is_valid() -> None:
    """It says of itself which draft it is written in, and keeps to that."""
    assert json_schema.schema()["$schema"] == Draft7Validator.META_SCHEMA["$schema"]
    Draft7Validator.check_schema(json_schema.schema())


def test_the_schema_has_the_defaults_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an editor fills in changes nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    whole = json_schema.schema()
    expected = msgspec.to_builtins(Config(), enc_hook=str, str_keys=True)
    for name, key in whole["properties"].items():
        if "default" in key:
            assert key["default"] == expected[name]
        else:
            keys = whole["definitions"][key["$ref"].rpartition("/")[2]]["properties"]
            assert {one: value["default"] for one, value in keys.items()} == expected[name]


def test_check_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """An editor can be given the one that belongs to the tetrad that is installed."""
    options = parser().parse_args(["check", "--schema", "-c", "/nowhere"])
    assert options.command(options) == 0
    assert capsys.readouterr().out == (ETC / "tetrad.schema.json").read_text("utf-8")


def test_the_file_that_is_shipped_is_accepted() -> None:
    """As it is, and with every line in force, and each section by itself."""
    text = (ETC / "tetrad.yaml").read_text("utf-8")
    assert accepted(text)
    assert accepted(COMMENTED_OUT.sub(r"\1", text))
    assert all(accepted(f"{section}:") for section in Config.__struct_fields__)


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    """That of the README and that of the manual, by the schema and by tetrad."""
    readme = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    for text in [*readme, re.sub("^    ", "", prose.FILE_EXAMPLE, flags=re.MULTILINE)]:
        assert accepted(text)
        (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
        assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems == []


def test_what_dump_prints_is_accepted() -> None:
    """The effective configuration is a file like any other."""
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
        "daemon: {user: 0}",
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
def test_an_editor_shows_a_mistake_that_tetrad_would_refuse(text: str, tmp_path: Path) -> None:
    """Before the file is even saved."""
    (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
    assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems
    assert not accepted(text)


def fits(kind: Any, value: object) -> bool:  # noqa: ANN401 - they have `parse` in common
    """Tell whether the schema takes a value as a quantity of this kind."""
    definition = json_schema.schema()["definitions"][kind.__name__]
    return bool(Draft7Validator(definition).is_valid(value))


def parses(kind: Any, value: object) -> bool:  # noqa: ANN401 - they have `parse` in common
    """Tell whether tetrad takes it."""
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
def test_schema_and_parser_take_the_same_texts(
    kind: type, pattern: str, data: st.DataObject
) -> None:
    """Of quantities for which a text is all that counts."""
    text = data.draw(st.from_regex(pattern, fullmatch=True) | st.text(ASCII, max_size=8))
    assume(not re.search("[0-9]{4}", text))  # which numbers are too large, only the parser knows
    assert fits(kind, text) == parses(kind, text)


@given(
    text=st.one_of(
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        st.from_regex("[0-9a-f:.%]{1,12}", fullmatch=True),
    ),
    tail=st.sampled_from(["", "/0", "/8", "/032", "/64", "/128", "/255.0.0.0", "%eth0"]),
)
def test_the_schema_takes_every_address_that_tetrad_takes(text: str, tail: str) -> None:
    """It may take more, as an address of IPv6 is too much for a pattern."""
    for kind in (config_types.Address, config_types.Network):
        assert fits(kind, text + tail) or not parses(kind, text + tail)
