"""Write JSON without the json module.

The json module imports `re`. The master and its handlers avoid both, because every page of memory
that the master has makes every fork slower.
"""

from __future__ import annotations

_ESCAPES = {code: f"\\u{code:04x}" for code in [*range(0x20), *range(0x7F, 0xA0)]}
_ESCAPES |= {ord('"'): '\\"', ord("\\"): "\\\\"}
_CONSTANTS = {None: "null", True: "true", False: "false"}


def encode(value: object) -> str:
    """Return a dict, list, tuple, str, int, float, bool or None as JSON in one line."""
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
    """Return the members of a JSON object, without the braces."""
    return ",".join([f"{encode(key)}:{encode(value)}" for key, value in values.items()])
