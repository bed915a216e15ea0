"""The JSON Schema of the configuration file, draft 7, which editors support.

It is made from the types of `tetrad.config.model`. It accepts every file that tetrad accepts; what
depends on the machine (users, groups, time zones) or on several keys, only tetrad checks.
"""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import msgspec

from tetrad.config.command_model import BUILT_IN_COMMANDS
from tetrad.config.model import DEFAULT_PORT, Config, Listener
from tetrad.config.section import Section
from tetrad.config.types import (
    Address,
    Argument,
    ClockFormat,
    CommandName,
    Duration,
    Function,
    Group,
    Mode,
    Network,
    Path,
    Rate,
    Size,
    SocketPath,
    Terminator,
    Timezone,
    TlsVersion,
    User,
    Variable,
)

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_IPV6 = "[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_PREFIX4 = rf"(/(0*(3[0-2]|[12]?[0-9])|{_IPV4}))?"
_PREFIX6 = "(/0*(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"

_NAME_OR_ID = {"type": ["string", "integer"], "minLength": 1, "minimum": 0}

_VALUES: dict[type, dict[str, Any]] = {
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
    Group: {**_NAME_OR_ID, "examples": ["nogroup", 65534]},
    Mode: {"pattern": "^0?[0-7]{1,3}$", "examples": ["027", "077"]},
    Network: {
        "pattern": f"^({_IPV4}{_PREFIX4}|{_IPV6}{_PREFIX6})$",
        "examples": ["192.0.2.0/24", "2001:db8::/32"],
    },
    Path: {"minLength": 1},
    Rate: {"pattern": r"^0*[1-9][0-9]*\s*/\s*[smh]$", "examples": ["20/s", "300/m", "1000/h"]},
    Size: {
        "type": ["string", "integer"],
        "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$",
        "minimum": 1,
        "maximum": 1 << 40,
        "examples": ["4KiB", "1MiB"],
    },
    SocketPath: {"minLength": 1, "maxLength": 107},
    Terminator: {"pattern": r"^[^\\]{0,16}$", "examples": ["\n", "\r\n"]},
    Timezone: {"minLength": 1, "examples": ["local", "UTC", "Asia/Seoul"]},
    TlsVersion: {"type": ["string", "number"], "enum": ["1.2", "1.3", 1.2, 1.3]},
    User: {**_NAME_OR_ID, "examples": ["tetrad", 990]},
    Variable: {"pattern": "^(?!TETRAD_)[A-Za-z_][A-Za-z0-9_]*$", "examples": ["LC_ALL"]},
}
"""The schema of each type of value, without its description; a string unless `type` is given."""

_ROOT_DEFAULTS = {
    "pidfile": "/run/tetrad/tetrad.pid",
    "control": "/run/tetrad/control.sock",
    "file": "/var/log/tetrad/tetrad.log",
}
"""Root's values for the defaults that depend on the user: the schema is the same for all users."""

_META_ATTRIBUTES = {
    "description": "description",
    "minimum": "ge",
    "maximum": "le",
    "minLength": "min_length",
    "maxLength": "max_length",
}
"""The attributes of msgspec.Meta by their names in JSON Schema."""

_UNIX_SOCKET_HAS_NO_PORT = {
    "if": {"properties": {"address": {"pattern": "^unix:"}}, "required": ["address"]},
    "then": {"properties": {"port": {"type": "null"}}},
}


def text() -> str:
    """Return the schema as JSON."""
    return json.dumps(schema(), indent=2) + "\n"


def schema() -> dict[str, Any]:
    """Return the schema."""
    sections = {kind.__name__: _section(kind) for kind in Section.__subclasses__()}
    listener, config = sections[Listener.__name__], sections.pop(Config.__name__)
    listener["properties"]["port"]["default"] = DEFAULT_PORT
    listener |= _UNIX_SOCKET_HAS_NO_PORT
    for key in config["properties"].values():
        if "additionalProperties" not in key:
            section = key.get("items", key)["$ref"].rpartition("/")[2]
            key["description"] = sections[section]["description"]
    config["properties"]["listen"]["minItems"] = 1
    config["properties"]["commands"] |= {
        "description": "The commands by the names that clients send; null removes a command.",
        "propertyNames": _schema(CommandName),
        "default": _plain(BUILT_IN_COMMANDS),
    }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "tetrad.yaml"}
    return head | config | {"definitions": sections | {k.__name__: _value(k) for k in _VALUES}}


def _value(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - the types have `parse` in common
    made = {"description": kind.__doc__, "type": "string"} | _VALUES[kind]
    if "pattern" in made:
        try:
            kind.parse(None)
        except ValueError as error:
            # Not in the standard: editors show it instead of the pattern.
            made["patternErrorMessage"] = str(error)
    return made


def _section(kind: type[Section]) -> dict[str, Any]:
    fields = msgspec.structs.fields(kind)
    required = [field.name for field in fields if field.required]
    return {
        "description": kind.__doc__,
        # To YAML, a section whose keys are all commented out is null.
        "type": "object" if required else ["object", "null"],
        "properties": {field.name: _key(field) for field in fields},
        "required": required,
        "additionalProperties": False,
    }


def _key(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    """Return the schema of a key, with its default unless that is a section."""
    made = _schema(field.type)
    if not field.required:
        if made.get("type") in {"array", "object"}:
            made["type"] = [made["type"], "null"]
        factory: Any = field.default_factory
        default = field.default if factory is msgspec.NODEFAULT else factory()
        if not isinstance(default, Section):
            made["default"] = _ROOT_DEFAULTS.get(field.name, _plain(default))
    return made


def _plain(value: object) -> Any:  # noqa: ANN401 - any type of JSON
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def _schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type of any kind
    """Return the schema of a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        made = _schema(arguments[0])
        for meta in arguments[1:]:
            rules = {rule: getattr(meta, name) for rule, name in _META_ATTRIBUTES.items()}
            made |= {rule: value for rule, value in rules.items() if value is not None}
        return made
    if origin in {types.UnionType, typing.Union}:
        return {"anyOf": [_schema(one) for one in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    plain = {bool: "boolean", int: "integer", str: "string", type(None): "null"}
    return {"type": plain[kind]} if kind in plain else {"$ref": f"#/definitions/{kind.__name__}"}
