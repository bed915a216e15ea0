"""The JSON Schema of the configuration, for editors.

It is made from the types of `tetrad.config.model`. It never refuses what tetrad takes; what only
tetrad
can know (the users of a machine, bits behind a prefix, two listeners in one place) it lets pass.
Draft 7, because that is what editors know.
"""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec

from tetrad.config.answers import Size, Terminator
from tetrad.config.model import Config, Listener
from tetrad.config.programs import Argument, Function, Variable
from tetrad.config.section import Section
from tetrad.config.types import (
    Address,
    ClockFormat,
    CommandName,
    Duration,
    Group,
    Mode,
    Network,
    Path,
    Rate,
    SocketPath,
    Timezone,
    TlsVersion,
    User,
)

DRAFT = "http://json-schema.org/draft-07/schema#"

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_IPV6 = "[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_PREFIX4 = rf"(/(0*(3[0-2]|[12]?[0-9])|{_IPV4}))?"
_PREFIX6 = "(/0*(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"

QUANTITIES: dict[type, dict[str, Any]] = {
    Address: {
        "pattern": rf"^({_IPV4}|{_IPV6}(%[^%/]+)?|unix:.{{1,107}})$",
        "examples": ["127.0.0.1", "::", "unix:/run/tetrad/tetrad.sock"],
    },
    Argument: {},
    ClockFormat: {"minLength": 1, "examples": ["%Y/%m/%d %H:%M:%S"]},
    CommandName: {"pattern": "^[!-~]{4}$", "examples": ["date"]},
    Duration: {
        "type": ["string", "number"],
        "pattern": r"^([0-9]+(\.[0-9]+)?(ms|[dhms]))+$",
        "minimum": 0.001,
        "maximum": 3650 * 86400,
        "examples": ["500ms", "10s", "5m", "1h30m"],
    },
    Function: {
        "pattern": r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$",
        "examples": ["mycompany.tetrad:who"],
    },
    Group: {"minLength": 1, "examples": ["nogroup"]},
    Mode: {"pattern": "^0?[0-7]{1,3}$", "examples": ["027", "077"]},
    Network: {
        "pattern": f"^({_IPV4}{_PREFIX4}|{_IPV6}{_PREFIX6})$",
        "examples": ["192.0.2.0/24", "2001:db8::/32"],
    },
    Path: {"minLength": 1},
    Rate: {"pattern": r"^0*[1-9][0-9]*\s*/\s*[smh]$", "examples": ["20/s", "300/m", "1000/h"]},
    Size: {
        "type": ["string", "integer"],
        "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)?$",
        "minimum": 1,
        "maximum": 1 << 30,
        "examples": ["4KiB", "1MiB"],
    },
    SocketPath: {"minLength": 1, "maxLength": 107},
    Terminator: {"pattern": r"^[^\\]{0,16}$", "examples": ["\n", "\r\n"]},
    Timezone: {"minLength": 1, "examples": ["local", "UTC", "Asia/Seoul"]},
    TlsVersion: {"type": ["string", "number"], "enum": ["1.2", "1.3", 1.2, 1.3]},
    User: {"minLength": 1, "examples": ["nobody"]},
    Variable: {"pattern": "^(?!TETRAD_)[A-Za-z_][A-Za-z0-9_]*$", "examples": ["LC_ALL"]},
}
"""How each is written, beside what its type says itself."""

AS_ROOT = {
    "pidfile": "/run/tetrad/tetrad.pid",
    "control": "/run/tetrad/control.sock",
    "file": "/var/log/tetrad/tetrad.log",
}
"""The defaults that depend on the user, as root has them: the paper is the same for everyone."""

_NO_PORT = {
    "if": {"properties": {"address": {"pattern": "^unix:"}}, "required": ["address"]},
    "then": {"properties": {"port": {"type": "null"}}},
}

_REFERENCE = "#/definitions/{name}"


def text() -> str:
    """Return the schema as text."""
    return json.dumps(schema(), indent=2) + "\n"


def schema() -> dict[str, Any]:
    """Return the schema."""
    all_sections = [each for one in _sections(Config) for each in _sections_within(one)]
    sections = {section.__name__: _section(section) for section in all_sections}
    sections[Listener.__name__] |= _NO_PORT
    top = Config()
    return {
        "$schema": DRAFT,
        "title": "tetrad.yaml",
        "description": Config.__doc__,
        "type": ["object", "null"],
        "properties": {
            field.name: _top_level(field.type, getattr(top, field.name))
            for field in msgspec.structs.fields(Config)
        },
        "additionalProperties": False,
        "definitions": sections | {kind.__name__: _quantity(kind) for kind in QUANTITIES},
    }


def _sections(kind: Any) -> list[type[Section]]:  # noqa: ANN401 - a type of any kind
    """Return the sections that the keys of the whole are made of."""
    if isinstance(kind, type) and issubclass(kind, Section) and kind is not Config:
        return [kind]
    parts = typing.get_args(kind)
    if kind is Config:
        parts = tuple(field.type for field in msgspec.structs.fields(kind))
    return [section for part in parts for section in _sections(part)]


def _sections_within(kind: type[Section]) -> list[type[Section]]:
    """Return a section, and those that are the values of its keys."""
    types = [field.type for field in msgspec.structs.fields(kind)]
    return [kind, *(section for part in types for section in _sections(part))]


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _quantity(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - they have `parse` in common
    made = {"description": kind.__doc__, "type": "string"} | QUANTITIES[kind]
    if "pattern" in made:
        # Not of the standard: what editors say instead of showing the pattern.
        made["patternErrorMessage"] = _complaint(kind)
    return made


def _complaint(kind: Any) -> str:  # noqa: ANN401 - they have `parse` in common
    """Return what is said of a value that is none."""
    try:
        kind.parse(None)
    except ValueError as error:
        return str(error)
    raise AssertionError(kind)


def _section(kind: type[Section]) -> dict[str, Any]:
    """Return the schema of a section, and the default of each of its keys.

    msgspec makes that of each key; of a whole section it cannot, as it wants to write the defaults.
    """
    fields = msgspec.structs.fields(kind)
    keys = [_key(field.type) for field in fields]
    required = [field.name for field in fields if field.required]
    whole = None if required else kind()
    properties = {}
    for field, key in zip(fields, keys, strict=True):
        made = dict(key)
        if made.get("type") in {"array", "object"} and not field.required:
            made["type"] = [made["type"], "null"]
        if "enum" in made:
            # In the order of the declaration: levels have one, which sorting would lose.
            made["enum"] = list(typing.get_args(typing.get_args(field.type)[0]))
        if not field.required:
            value = getattr(whole, field.name) if whole else _default(field)
            made["default"] = AS_ROOT.get(field.name, _plain(value))
        properties[field.name] = made
    return {
        "description": kind.__doc__,
        # A section whose keys are all commented out is null to YAML.
        "type": "object" if required else ["object", "null"],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _default(field: msgspec.structs.FieldInfo) -> object:
    factory: Any = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def _key(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type of any kind
    """Return the schema of one key, which may be a section or null."""
    sections = _sections(kind)
    if sections:
        description = typing.get_args(kind)[1].description
        return {"anyOf": [*map(_reference, sections), {"type": "null"}], "description": description}
    (made,), _ = msgspec.json.schema_components([kind], schema_hook=_reference)
    return made


def _top_level(kind: Any, default: object) -> dict[str, Any]:  # noqa: ANN401 - a type of any kind
    """Return the schema of a key of the whole: a section, a list of them, or the commands."""
    sections = _sections(kind)
    references = [_reference(section) for section in sections]
    if typing.get_origin(kind) is dict:
        return {
            "description": "What clients may send, and what they get; null takes a command away.",
            "type": ["object", "null"],
            "propertyNames": _reference(CommandName),
            "additionalProperties": {"anyOf": [*references, {"type": "null"}]},
            "default": _plain(default),
        }
    described = {"description": sections[0].__doc__}
    if typing.get_origin(kind) is list:
        made = {"type": ["array", "null"], "minItems": 1, "items": references[0]}
        return {**described, **made, "default": _plain(default)}
    return {**references[0], **described}


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)
