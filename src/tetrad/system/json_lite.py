"""JSON, written without the json module: what the master and its handlers tell other programs.

The standard encoder brings the regular expressions along, and every page that the master has is a
page that every fork pays for.
"""

from __future__ import annotations

_ESCAPES = {code: f"\\u{code:04x}" for code in [*range(0x20), *range(0x7F, 0xA0)]}
_ESCAPES |= {ord('"'): '\\"', ord("\\"): "\\\\"}
_CONSTANTS = {None: "null", True: "true", False: "false"}


def encode(value: object) -> str:
    """Write a value of dict, list, tuple, str, int, float, bool and None as JSON, in one line."""
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, dict):
        return "{" + members(value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([encode(item) for item in value]) + "]"
    return repr(value)


def members(values: dict[str, object]) -> str:
    """Write what stands between the braces of an object."""
    return ",".join([f"{encode(key)}:{encode(value)}" for key, value in values.items()])
