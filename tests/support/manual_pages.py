"""The manual pages as tests read them: the items of their lists, and their literal blocks.

A reader of the part of mdoc(7) that the pages use.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import tetrad
from tests.support.project import ROOT

FOLDER = ROOT / "etc" / "man"

PAGES = sorted(path.name for path in FOLDER.iterdir())

PLAIN = ""
"""Stands in the place of the macro of a text without one."""

_MACROS = {
    *("Ar", "Cm", "Dv", "Em", "Ev", "Fl", "Ft", "Ic", "Nm", "Pa", "Sx", "Sy", "Va", "Vt", "Xr")
}
"""Macros whose arguments are names."""

_CALLABLE = _MACROS | {*("Dq", "No", "Oc", "Oo", "Op", "Pc", "Po", "Pq", "Qo", "Qq", "Ql", "Ta")}
"""These are macros in the middle of a line, too."""

_DELIMITERS = set("()[].,:;?!|")

_ESCAPES = {r"\e": "\\", r"\(dq": '"', r"\&": ""}
_ESCAPE = re.compile("|".join(map(re.escape, _ESCAPES)))


class Name(NamedTuple):
    """One or more words that a macro marks, such as `Va` `daemon.user`; `PLAIN` is text."""

    macro: str
    text: str


class Item(NamedTuple):
    """An item of a list: its head, its body without lists inside it, and the item around it."""

    section: str
    subsection: str
    head: list[Name]
    body: list[Name]
    around: Item | None

    def named(self, macro: str) -> list[str]:
        """Return the names in the head that a macro marks."""
        return [name.text for name in self.head if name.macro == macro]


class Page:
    """A page: its titles, items, names anywhere in it, and literal blocks by their sections."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.titles: list[str] = []
        self.items: list[Item] = []
        self.names: list[Name] = []
        self.blocks: list[tuple[str, str]] = []
        self._section = self._subsection = ""
        self._lists: list[Item | None] = []
        self._literal: list[str] | None = None
        for line in source.splitlines():
            self._read(line)

    def find(self, section: str, macro: str, subsection: str | None = None) -> list[Item]:
        """Return the items of a section whose heads begin with a macro."""
        return [
            item
            for item in self.items
            if item.section == section
            and subsection in {None, item.subsection}
            and item.head
            and item.head[0].macro == macro
        ]

    def _read(self, line: str) -> None:
        macro, _, rest = line[1:].partition(" ") if line.startswith(".") else (PLAIN, "", line)
        if self._literal is not None and macro != "Ed":
            self._literal.append(_unescaped(line))
        elif macro in {"Sh", "Ss"}:
            self._subsection = rest if macro == "Ss" else ""
            self._section = rest if macro == "Sh" else self._section
            self.titles.append(rest)
        elif macro == "Bl":
            self._lists.append(None)
        elif macro == "El":
            self._lists.pop()
        elif macro == "It":
            around = self._lists[-2] if len(self._lists) > 1 else None
            item = Item(self._section, self._subsection, _names(PLAIN, rest), [], around)
            self._lists[-1] = item
            self.items.append(item)
            self.names += item.head
        elif macro == "Bd":
            self._literal = []
        elif macro == "Ed":
            self.blocks.append((self._section, "\n".join(self._literal or []) + "\n"))
            self._literal = None
        elif macro == PLAIN or macro in _CALLABLE:
            names = _names(macro, rest)
            self.names += names
            if self._lists and self._lists[-1] is not None:
                self._lists[-1].body.extend(names)


def page(name: str) -> Page:
    """Read a page."""
    return Page(name, (FOLDER / name).read_text("utf-8"))


def _names(macro: str, arguments: str) -> list[Name]:
    """Return what a line names; words behind one macro are one name, up to a delimiter."""
    if macro == PLAIN and arguments and not _CALLABLE & set(arguments.split()):
        return [Name(PLAIN, _unescaped(arguments))]
    found: list[tuple[str, list[str]]] = [(macro, [])]
    for word in shlex.split(arguments.replace("\\", r"\\").replace("'", r"\'")):
        if word in _CALLABLE:
            macro = word
            found.append((macro, []))
        elif word in _DELIMITERS:
            found.append((macro, []))
        else:
            found[-1][1].append(_unescaped(word))
    return [
        Name(macro if macro in _MACROS else PLAIN, " ".join(words))
        for macro, words in found
        if words
    ]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)


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

"""Runs a test once for each page."""

SOURCES = {path: path.read_text("utf-8") for path in Path(tetrad.__path__[0]).rglob("*.py")}
"""The text of each file of the program."""


def heads(item: Item) -> list[str]:
    """Return what the head of an item about a command or an event names first."""
    return item.named("Ic")[:1]
