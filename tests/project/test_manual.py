"""The manual pages: they document everything that there is, nothing else, and their examples work.

Names and defaults are compared with the program; the prose is not.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator

import tetrad
from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER
from tests.support.completions import EVENTS
from tests.support.manual_pages import FOLDER, PAGES, PLAIN, Item, Page, page
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.project import ROOT
from tests.support.system_programs import output_of
from tetrad import cli
from tetrad.cli import exit_status, install
from tetrad.cli.parser import parser
from tetrad.config import json_schema, paths, yaml_reader
from tetrad.config.command_model import BUILT_IN_COMMANDS
from tetrad.ipc import log_protocol
from tetrad.launch.start_signals import INTERRUPTING_SIGNALS
from tetrad.master.refusal_log import REASONS
from tetrad.system import fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

SOURCES = {path: path.read_text("utf-8") for path in Path(tetrad.__path__[0]).rglob("*.py")}

COMMAND, COMMANDS_FILE, CONFIGURATION, LOG, PROTOCOL = (
    page(name)
    for name in (
        "tetrad.8",
        "tetrad-commands.5",
        "tetrad.yaml.5",
        "tetrad-log.5",
        "tetrad-protocol.7",
    )
)
ALL = (COMMAND, COMMANDS_FILE, CONFIGURATION, LOG, PROTOCOL)

every_page = pytest.mark.parametrize("manual", ALL, ids=lambda manual: manual.name)


# The pages themselves


def test_every_page_is_read_here() -> None:
    """No page is left out of these tests."""
    assert sorted(manual.name for manual in ALL) == PAGES


@every_page
def test_mandoc_has_no_warning(manual: Page) -> None:
    """The stricter reader of the two."""
    assert output_of("mandoc", "-Tlint", "-Wwarning", str(FOLDER / manual.name)) == ""


@every_page
def test_man_shows_the_page(manual: Page) -> None:
    """Debian's man, by groff, without a warning."""
    shown = output_of("man", "--warnings", "-E", "UTF-8", "-l", str(FOLDER / manual.name))
    assert "NAME" in shown
    assert "SEE ALSO" in shown


@every_page
def test_references_lead_somewhere(manual: Page) -> None:
    """To sections of the same page, and to pages of ours where they are named like that."""
    sections = {name.text for name in manual.names if name.macro == "Sx"}
    assert sections <= set(manual.titles)
    pages = {name.text for name in manual.names if name.macro == "Xr"}
    ours = {text.replace(" ", ".") for text in pages if text.startswith("tetrad")}
    assert ours <= set(PAGES) - {manual.name}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_installed(name: str, tmp_path: Path) -> None:
    """`tetrad install` puts it where man(1) finds it."""
    target = f"{tmp_path}/usr/local/share/man/man{name[-1]}/{name}"
    done = list(install.install_files(install.Target(str(tmp_path), dry_run=True)))
    assert f"would write {target}" in done


def test_the_wheel_has_the_pages() -> None:
    """All of etc/ is in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["etc"] == "tetrad/data/etc"
    assert (ROOT / "etc" / "man").samefile(FOLDER)


# The command line


def options_of(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options of a parser by all of their spellings."""
    return command._option_string_actions  # noqa: SLF001 - argparse has no public list of them


def subcommands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands."""
    (action,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    return dict(action.choices)


TOP = parser()
COMMANDS = subcommands(TOP)


def documented_options(items: list[Item]) -> dict[str, Item]:
    """Return the items about options, by all spellings."""
    return {f"-{name}": item for item in items for name in item.named("Fl")}


def options_below(command: str) -> dict[str, Item]:
    """Return the options that are documented below a command."""
    below = [i for i in COMMAND.find("COMMANDS", "Fl") if i.around and command in heads(i.around)]
    return documented_options(below)


def heads(item: Item) -> list[str]:
    """Return what the head of an item about a command or an event names first."""
    return item.named("Ic")[:1]


def test_every_command_is_documented() -> None:
    """And no other."""
    assert {*COMMANDS} == {name for item in COMMAND.find("COMMANDS", "Ic") for name in heads(item)}


def test_the_common_options_are_documented() -> None:
    """Those that are accepted before and after every command."""
    assert {*options_of(TOP)} == documented_options(COMMAND.find("OPTIONS", "Fl")).keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented(command: str) -> None:
    """With all spellings, its choices, and its default; and no other option."""
    own = {k: v for k, v in options_of(COMMANDS[command]).items() if k not in options_of(TOP)}
    documented = options_below(command)
    assert documented.keys() == own.keys()
    for option, action in own.items():
        item = documented[option]
        if action.choices is not None:
            assert set(item.named("Cm")) == {str(choice) for choice in action.choices}
        if action.default not in {None, False, argparse.SUPPRESS} and action.nargs != 0:
            words = [
                w.strip("().,") for name in (*item.head, *item.body) for w in name.text.split()
            ]
            assert str(action.default) in words, option


@every_page
def test_no_option_is_mentioned_that_does_not_exist(manual: Page) -> None:
    """Anywhere in the pages."""
    known = {option for each in (TOP, *COMMANDS.values()) for option in options_of(each)}
    assert {f"-{name.text}" for name in manual.names if name.macro == "Fl"} <= known


@every_page
def test_no_command_or_event_is_mentioned_that_does_not_exist(manual: Page) -> None:
    """Anywhere in the pages."""
    mentioned = {name.text for name in manual.names if name.macro == "Ic"}
    assert mentioned <= {*COMMANDS, *EVENTS}


def statuses(subsection: str) -> set[int]:
    """Return the exit statuses that a part of their section documents."""
    items = COMMAND.find("EXIT STATUS", PLAIN, subsection)
    return {int(item.head[0].text) for item in items}


def test_every_exit_status_is_documented() -> None:
    """Those of all commands, and those of `tetrad status`."""
    named = {name: value for name, value in vars(exit_status).items() if name.isupper()}
    of_status = {value for name, value in named.items() if name.startswith("STATUS_")}
    assert statuses("tetrad status") == of_status
    of_signals = {exit_status.of_signal(number) for number in INTERRUPTING_SIGNALS}
    of_commands = {value for name, value in named.items() if not name.startswith("STATUS_")}
    assert statuses("") == of_commands | of_signals


def test_every_signal_is_documented() -> None:
    """All that the master handles."""
    documented = {n for item in COMMAND.find("SIGNALS", "Dv") for n in item.named("Dv")}
    assert documented == {signal.Signals(number).name for number in fork.MASTER_SIGNALS}


def test_the_environment_is_documented() -> None:
    """The variables are those that the program reads."""
    documented = {n for item in COMMAND.find("ENVIRONMENT", "Ev") for n in item.named("Ev")}
    assert {paths.CONFIGURATION_VARIABLE, cli.DEBUG_VARIABLE} <= documented
    for variable in documented:
        assert any(f'"{variable}"' in text for text in SOURCES.values()), variable


def test_the_files_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places are root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    documented = {n for item in COMMAND.find("FILES", "Pa") for n in item.named("Pa")}
    defaults = {paths.pidfile(), paths.control(), paths.log()}
    assert documented == {paths.SYSTEM_CONFIGURATION, *defaults}


# The configuration

SCHEMA = json_schema.schema()
DEFINITIONS = SCHEMA["definitions"]
REQUIRED = "required"


def keys_of(section: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the keys of a section and of the sections in it."""
    for name, key in DEFINITIONS[section]["properties"].items():
        yield path + name, key
        for part in referred(key):
            yield from keys_of(part, f"{path}{name}.")


def referred(key: dict[str, Any]) -> list[str]:
    """Return the sections that a key's schema refers to."""
    parts = [key, key.get("items", {}), *key.get("anyOf", ())]
    parts += key.get("additionalProperties", {}).get("anyOf", ())
    names = [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]
    return [name for name in names if "properties" in DEFINITIONS[name]]


def all_keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every key by its path, such as `listen[].port`, with its schema."""
    for name, key in SCHEMA["properties"].items():
        path = {"listen": "listen[].", "commands": "commands.*."}.get(name, f"{name}.")
        for section in referred(key):
            yield from keys_of(section, path)


KEYS = dict(all_keys())
SECTIONS = {*SCHEMA["properties"]}
DOCUMENTED_KEYS = [
    item for manual in (CONFIGURATION, COMMANDS_FILE) for item in manual.find("KEYS", "Va")
]


def test_every_key_is_documented_with_its_default() -> None:
    """And no other; the defaults are root's."""
    documented = {}
    for item in DOCUMENTED_KEYS:
        (path,) = item.named("Va")
        *_, word, value = (REQUIRED, item.head[-1].text) if is_required(item) else default_of(item)
        assert path not in documented, path
        documented[path] = (word, value)
    expected = {
        path: ("default", shown(key["default"])) if "default" in key else (REQUIRED, REQUIRED)
        for path, key in KEYS.items()
    }
    assert documented == expected


def is_required(item: Item) -> bool:
    """Return whether an item describes its key as required."""
    return item.head[-1].text == REQUIRED


def default_of(item: Item) -> tuple[str, str]:
    """Return the end of an item's head: the word `default`, and the default."""
    return item.head[-2].text, item.head[-1].text


def shown(default: object) -> str:
    """Return a default as the pages show it."""
    return default if isinstance(default, str) and default else json.dumps(default)


def test_every_choice_of_a_key_is_documented() -> None:
    """The values of a key that is one of several words."""
    for item in DOCUMENTED_KEYS:
        key = KEYS[item.head[0].text]
        if "enum" in key:
            assert set(item.named("Cm")) == set(key["enum"])


def test_every_range_of_a_key_is_documented() -> None:
    """The least and the greatest number."""
    for item in DOCUMENTED_KEYS:
        key = KEYS[item.head[0].text]
        numbers = next((k for k in (key, *key.get("anyOf", ())) if "minimum" in k), None)
        if numbers is not None:
            expected = f"{numbers['minimum']} to {numbers['maximum']}"
            assert any(expected in name.text for name in item.head)


def test_every_section_is_documented() -> None:
    """Each has a part of the section KEYS."""
    titles = CONFIGURATION.titles
    start, end = titles.index("KEYS") + 1, titles.index("TYPES")
    assert {*titles[start:end]} == SECTIONS


def test_every_type_is_explained() -> None:
    """Types that keys have are in the section TYPES, and those in it are used."""
    explained = {n for item in CONFIGURATION.find("TYPES", "Vt") for n in item.named("Vt")}
    used = {name for item in DOCUMENTED_KEYS for name in item.named("Vt")}
    assert explained == used | {"command name"}


def test_the_built_in_commands_are_documented() -> None:
    """And no other."""
    items = PROTOCOL.find("THE COMMAND SERVICE", "Cm")
    assert {name for item in items for name in item.named("Cm")} == {*BUILT_IN_COMMANDS}


def test_the_variables_of_programs_are_documented() -> None:
    """Those that tell a program about its client."""
    documented = {n for item in COMMANDS_FILE.find("PROGRAMS", "Ev") for n in item.named("Ev")}
    found = {name for text in SOURCES.values() for name in re.findall('"(TETRAD_[A-Z]+)"', text)}
    assert documented == found - {paths.CONFIGURATION_VARIABLE, cli.DEBUG_VARIABLE}


@every_page
def test_no_key_is_mentioned_that_does_not_exist(manual: Page) -> None:
    """Names with a dot whose first part is that of a section."""
    for name in manual.names:
        if name.macro == "Va" and re.split(r"[.\[]", name.text)[0] in SECTIONS:
            assert name.text in {*KEYS, *SECTIONS}


# The log


def session_reasons() -> set[str]:
    """Return the reasons for which the handler ends sessions, read from its code."""
    found: set[str] = set()
    for path, text in SOURCES.items():
        if path.parent.name == "handler" or path.name == "shutdown_pipe.py":
            tree = ast.parse(text)
            named = {
                node.targets[0].id: node.value
                for node in tree.body
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            }
            for expression in reason_expressions(tree):
                resolved = named.get(getattr(expression, "id", ""), expression)
                found |= words_in(resolved)
    return found - {"discard", ""}


def reason_expressions(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what code raises, assigns or returns as the reason of an end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SessionEnded":
            yield node.args[0]
        elif isinstance(node, ast.Assign):
            # A tuple has its names and its values in the same order.
            names, values = (getattr(n, "elts", [n]) for n in (node.targets[0], node.value))
            for name, value in zip(names, values, strict=False):
                if getattr(name, "id", getattr(name, "attr", "")).endswith("reason"):
                    yield value
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield from returned_reasons(node, ast.unparse(node.returns))


def returned_reasons(function: ast.FunctionDef, kind: str) -> Iterator[ast.AST]:
    """Yield what a function returns if it returns a text, or a text and more."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            if kind == "str":
                yield node.value
            elif kind.startswith("tuple[str,") and isinstance(node.value, ast.Tuple):
                yield node.value.elts[0]


def words_in(expression: ast.AST) -> set[str]:
    """Return the constants that an expression may have as its value."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, (str, bytes)):
        value = expression.value
        return {value.decode() if isinstance(value, bytes) else value}
    if isinstance(expression, ast.IfExp):
        return words_in(expression.body) | words_in(expression.orelse)
    return set()


def levels_in_code() -> Iterator[tuple[str, str]]:
    """Yield each event with a level that the code gives it, where that is a constant."""
    names = {name: value for name, value in vars(log_protocol).items() if value in EVENTS}
    for text in SOURCES.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and len(node.args) > 1:
                level, event = node.args[:2]
                name = getattr(event, "attr", getattr(event, "id", ""))
                if isinstance(level, ast.Constant) and name in names:
                    yield names[name], str(level.value)


DOCUMENTED_EVENTS = {heads(item)[0]: item for item in LOG.find("EVENTS", "Ic")}


def levels_of(item: Item) -> set[str]:
    """Return the levels in the head of an event's item."""
    return {word for name in item.head for word in name.text.split()} & {*log_protocol.LEVELS}


def test_every_event_is_documented() -> None:
    """And no other."""
    assert {*EVENTS} == DOCUMENTED_EVENTS.keys()


def test_every_event_is_documented_with_its_level() -> None:
    """An event whose level depends on the case has all of its levels."""
    found = set(levels_in_code())
    assert len({event for event, _ in found}) > len(EVENTS) // 2
    for event, level in found:
        assert level in levels_of(DOCUMENTED_EVENTS[event]), event
    assert all(map(levels_of, DOCUMENTED_EVENTS.values()))


@pytest.mark.parametrize(
    ("event", "reasons"),
    [
        (log_protocol.CLIENT_REFUSED, {*REASONS}),
        (log_protocol.CLIENT_DISCONNECTED, session_reasons()),
    ],
)
def test_every_reason_is_documented(event: str, reasons: set[str]) -> None:
    """And no other."""
    documented = {n for item in LOG.find("REASONS", "Cm", event) for n in item.named("Cm")}
    assert documented == reasons


LAST_COMMAND = {"run": ["sh", "-c", "echo oops >&2; exit 3"], "on_error": "failed"}


def test_the_log_has_the_documented_fields(daemon: MakeDaemon) -> None:
    """Of a daemon's life with sessions, refusals and a reload, and the questions get answers."""
    served = daemon(
        limits={"clients_per_source": 1},
        access={"deny": ["127.0.0.9"]},
        commands={"load": LAST_COMMAND, "disk": {"run": ["echo", "x"]}},
    )
    client = served.connect()
    client.send(b"loaddisktimexyz!time\r\n")
    served.wait_for("client.invalid", command="xyz!")
    assert served.connect().is_refused()
    assert served.connect(source="127.0.0.9").is_refused()
    assert ANSWER.search(client.quit())
    served.configure(limits={"clients": 7})
    assert served.tetrad("reload").status == 0
    served.configure(limits={"clients": 0})
    served.signal(signal.SIGHUP)
    served.wait_for("server.reload_failed")
    served.signal(signal.SIGUSR1)
    served.wait_for("log.reopened")
    served.stop()
    common, of_clients = fields_of_lines()
    for line in served.events():
        fields = {*DOCUMENTED_EVENTS[line["event"]].named("Va")}
        fields |= {
            name.text for name in DOCUMENTED_EVENTS[line["event"]].body if name.macro == "Va"
        }
        allowed = common | fields | (of_clients if "client" in line else set())
        assert line.keys() <= allowed, line
        assert line["level"] in levels_of(DOCUMENTED_EVENTS[line["event"]])
    questions = [text for section, text in LOG.blocks if section == "EXAMPLES"]
    assert len(questions) == 5
    output_of("jq", "--version")
    for question in questions:
        asked = question.replace("ec613195-1", served.events("client.command")[0]["connection"])
        script = f"set -e; cd {shlex.quote(served.folder)}\n{asked}"
        assert output_of("sh", script=script).strip(), question


def fields_of_lines() -> tuple[set[str], set[str]]:
    """Return the fields that all lines have, and those that lines about clients may have."""
    items = LOG.find("FIELDS", "Va")
    names = [name for item in items for name in item.named("Va")]
    return {*names[:4]}, {*names[4:]}


def test_the_metrics_are_documented(daemon: MakeDaemon) -> None:
    """With their types; and no other."""
    printed = daemon().tetrad("status", "--format", "openmetrics").out
    types = dict(re.findall("^# TYPE (.*) (.*)$", printed, re.MULTILINE))
    suffixes = {"counter": "_total", "info": "_info"}
    expected = {f"{name}{suffixes.get(kind, '')}": kind for name, kind in types.items()}
    documented = {item.head[0].text: item.head[1].text for item in COMMAND.find("MONITORING", "Va")}
    assert documented == expected
    mentioned = {name.text for name in COMMAND.names if name.text.startswith("tetrad_")}
    assert mentioned == expected.keys()


# The examples


def configurations() -> list[str]:
    """Return the files in the pages, but for the one with certificates."""
    return [
        text
        for manual in ALL
        for section, text in manual.blocks
        if re.match("(listen|commands):", text) and section != "TLS"
    ]


@pytest.mark.parametrize("text", configurations())
def test_a_configuration_in_a_page_is_valid(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By tetrad and by the schema; the function that one of them names is in the page, too."""
    (module,) = (t for _, t in COMMANDS_FILE.blocks if t.startswith("# mycompany/tetrad.py"))
    (tmp_path / "mycompany").mkdir()
    (tmp_path / "mycompany" / "tetrad.py").write_text(module, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tetrad.yaml").write_text(text, "utf-8")
    assert yaml_reader.load(str(tmp_path / "tetrad.yaml")).problems == []
    assert Draft7Validator(SCHEMA).is_valid(yaml.safe_load(text))


@needs_openssl
def test_the_recipe_for_tls_works(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The certificates are made, the listener accepts them, and its pattern matches the client."""
    recipe, settings, client = (text for section, text in CONFIGURATION.blocks if section == "TLS")
    made = subprocess.run(
        ["/bin/sh", "-e"], input=recipe, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (listener,) = yaml.safe_load(settings)["listen"]
    files = {
        key: str(tmp_path / listener["tls"][key]) for key in ("certificate", "key", "client_ca")
    }
    served = daemon(listen=[{**listener, "port": 0, "tls": listener["tls"] | files}])
    program, *arguments, word = shlex.split(client)
    assert (program, word) == ("tetrad", "time")
    command = [sys.executable, "-m", "tetrad", *arguments, "--port", str(served.port), word]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=True, timeout=TIMEOUT_SECONDS
    )
    assert ANSWER.fullmatch(done.stdout.strip())
    subject = served.wait_for("client.command")["subject"]
    (shown,) = (t.text for t in CONFIGURATION.names if t.text.startswith("CN=monitor,"))
    assert subject == shown


def test_an_invalid_command_takes_the_rest_of_its_segment_with_it(daemon: MakeDaemon) -> None:
    """The example of tetrad-protocol(7)."""
    assert any("xyz!time" in name.text for name in PROTOCOL.names)
    client = daemon().connect()
    client.send(b"xyz!time")
    client.half_close()
    assert client.read_all() == b""
