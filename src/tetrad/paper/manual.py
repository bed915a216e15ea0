"""The manual pages tetrad(8) and tetrad.yaml(5).

There are libraries that make a page of a parser. They print the usage and the help as argparse lays
them out, which differs by version, repeat what is common under every command, and know nothing of
a file, so these pages are put together here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tetrad import __version__
from tetrad.config.json_schema import QUANTITIES, schema
from tetrad.paper import prose, roff
from tetrad.paper.commandline import Command, Option, commands

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANY = (Option((), "COMMAND"), Option((), "ARGUMENT", many=True))


def command_page() -> str:
    """Return tetrad(8)."""
    whole, *each = commands()
    whole_usage = Command("", "", (*whole.options, *_ANY))
    events = ((f"`{event}` ({level})", text) for event, (level, text) in prose.EVENTS.items())
    return "".join(
        [
            _beginning("tetrad", 8, prose.SUMMARY),
            roff.section("SYNOPSIS", *map(_usage, [whole_usage, *each])),
            roff.section("DESCRIPTION", roff.text(prose.DESCRIPTION)),
            roff.section("COMMANDS", *map(_command, each)),
            roff.section("OPTIONS", roff.prose("Every command takes these:"), _terms(whole)),
            roff.section("SIGNALS", roff.text(prose.SIGNALS)),
            roff.section("UPGRADING", roff.text(prose.UPGRADING)),
            roff.section(
                "EXIT STATUS",
                _literal_terms(prose.STATUSES),
                roff.PARAGRAPH,
                roff.prose("`tetrad status` has those of init scripts:"),
                _literal_terms(prose.STATUSES_OF_STATUS),
            ),
            roff.section("ENVIRONMENT", _literal_terms(prose.ENVIRONMENT)),
            roff.section("FILES", _literal_terms(prose.FILES)),
            roff.section("LOG", roff.text(prose.LOG), roff.terms(events)),
            roff.section("EXAMPLES", roff.text(prose.EXAMPLES)),
            roff.section("SEE ALSO", roff.text(prose.SEE_ALSO)),
        ]
    )


def file_page() -> str:
    """Return tetrad.yaml(5)."""
    whole = schema()
    definitions = whole["definitions"]
    values = ((_called(k.__name__), definitions[k.__name__]["description"]) for k in QUANTITIES)
    return "".join(
        [
            _beginning("tetrad.yaml", 5, prose.FILE_SUMMARY),
            roff.section("DESCRIPTION", roff.text(prose.FILE_DESCRIPTION)),
            roff.section(
                "KEYS", *(_section(n, key, definitions) for n, key in whole["properties"].items())
            ),
            roff.section(
                "VALUES", roff.terms(values), roff.PARAGRAPH, roff.text(prose.USER_DEFAULTS)
            ),
            roff.section("EXAMPLE", roff.text(prose.FILE_EXAMPLE)),
            roff.section("EDITORS", roff.text(prose.EDITORS)),
            roff.section("SEE ALSO", roff.text(prose.FILE_SEE_ALSO)),
        ]
    )


def _beginning(name: str, section: int, summary: str) -> str:
    source = f"tetrad {__version__}"
    head = roff.header(name, section, prose.DATE, source, prose.MANUAL)
    return f"{head}.SH NAME\n{name} \\- {summary}\n"


def _command(command: Command) -> str:
    about = prose.ABOUT_COMMANDS.get(command.name, "")
    arguments = (_short(option) for option in command.options if not option.spellings)
    head = " ".join([f"`tetrad {command.name}`", *arguments])
    return roff.terms([(head, f"{_sentence(command.text)} {about}")]) + roff.indented(
        _terms(command)
    )


def _usage(command: Command) -> str:
    # Options first: a sort that keeps the order of equals.
    options = sorted(command.options, key=lambda option: not option.spellings)
    return roff.synopsis(f"tetrad {command.name}".rstrip(), map(_short, options))


def _short(option: Option) -> str:
    """Return an option or an argument as a usage has it."""
    if not option.spellings:
        return f"[_{option.value}_ ...]" if option.many else _spelled(option)
    return f"[{_spelled(option._replace(spellings=option.spellings[:1]))}]"


def _spelled(option: Option) -> str:
    """Return an option or an argument as it is typed."""
    spelled = ", ".join(f"`{spelling}`" for spelling in option.spellings)
    if option.value is None:
        return spelled
    value = "|".join(f"`{choice}`" for choice in option.choices) or f"_{option.value}_"
    return f"{spelled} {value}".lstrip()


def _terms(command: Command) -> str:
    return roff.terms((_spelled(option), option.text) for option in command.options)


def _literal_terms(texts: Mapping[str, str] | Mapping[int, str]) -> str:
    return roff.terms((f"`{term}`", text) for term, text in texts.items())


def _section(name: str, key: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a key of the whole, and the keys below it."""
    if name == "commands":
        forms = key["additionalProperties"]["anyOf"]
        sections = [_referred(form, definitions) for form in forms if "$ref" in form]
        made = (
            roff.PARAGRAPH + roff.prose(s["description"]) + _keys(s, definitions) for s in sections
        )
        return roff.subsection(name, roff.text(prose.FILE_COMMANDS), *made)
    is_list = "items" in key
    section = _referred(key["items"] if is_list else key, definitions)
    title = f"{name} (a list)" if is_list else name
    return roff.subsection(title, roff.prose(section["description"]), _keys(section, definitions))


def _keys(section: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a section's keys, and below one that is a section itself, those of that."""
    made = ""
    for name, key in section["properties"].items():
        facts = _kind(key)
        facts += f"; default `{_shown(key['default'])}`" if "default" in key else "; needed"
        made += roff.terms([(f"`{name}` ({facts})", key["description"])])
        for part in key.get("anyOf", ()):
            within = definitions.get(part.get("$ref", "").rpartition("/")[2], {})
            made += roff.indented(_keys(within, definitions) if "properties" in within else "")
    return made


def _kind(key: dict[str, Any]) -> str:
    """Say what a value is, in a few words."""
    if "anyOf" in key:
        return " or ".join(_kind(part) for part in key["anyOf"])
    return ", ".join(f"`{choice}`" for choice in key["enum"]) if "enum" in key else _one_kind(key)


def _one_kind(key: dict[str, Any]) -> str:
    if "$ref" in key:
        return _called(key["$ref"].rpartition("/")[2])
    if "items" in key:
        return f"list, each a {_kind(key['items'])}"
    if "additionalProperties" in key:
        return f"names, each with a {_kind(key['additionalProperties'])}"
    if key["type"] == "integer":
        return f"{key['minimum']} to {key['maximum']}"
    return {"null": "`null`", "string": "text"}[key["type"]]


def _called(name: str) -> str:
    """Return the name of a type in words: `SocketPath` is a _socket_ _path_."""
    return " ".join(f"_{word.lower()}_" for word in re.findall("[A-Z][a-z]+", name))


def _referred(key: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definitions[key["$ref"].rpartition("/")[2]]
    return found


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _sentence(text: str) -> str:
    """Make a remark a sentence."""
    return f"{text[0].upper()}{text[1:]}."
