"""The manual pages: commands, options, statuses, files and metrics are those of the program."""

from __future__ import annotations

import argparse
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.completions import EVENTS
from tests.support.manual_pages import COMMAND, PLAIN, SOURCES, Item, Page, every_page, heads
from tetrad import cli
from tetrad.cli import exit_status
from tetrad.cli.parser import parser
from tetrad.config import paths
from tetrad.launch.start_signals import INTERRUPTING_SIGNALS
from tetrad.system import fork

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick


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


def test_the_metrics_are_documented(daemon: MakeDaemon) -> None:
    """With their types; and no other."""
    printed = daemon().tetrad("status", "--format", "prometheus").out
    expected = dict(re.findall("^# TYPE (.*) (.*)$", printed, re.MULTILINE))
    documented = {item.head[0].text: item.head[1].text for item in COMMAND.find("MONITORING", "Va")}
    assert documented == expected
    mentioned = {name.text for name in COMMAND.names if name.text.startswith("tetrad_")}
    assert mentioned == expected.keys()
