"""The manual pages: events, levels, fields and reasons are those of the log."""

from __future__ import annotations

import ast
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.completions import EVENTS
from tests.support.manual_pages import LOG, SOURCES, Item, heads
from tests.support.system_programs import output_of
from tetrad.ipc import log_protocol
from tetrad.master.refusal_log import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick


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
