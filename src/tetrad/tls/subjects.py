"""The subject of a certificate in one line, as RFC 4514 writes it, and patterns for it."""

from __future__ import annotations

import fnmatch
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""The attribute types that RFC 4514 abbreviates."""

_SPECIAL = set('"+,;<>\\')

_ESCAPE = re.compile(r"\\(?:([0-9A-Fa-f]{2})|([ -~]))")
_FIRST_PRIVATE = 0xE000
"""The first of Unicode's private characters, which a subject has only as escapes."""


def subject_of(certificate: Mapping[str, Any]) -> str:
    """Return the subject of a certificate (as of `getpeercert`), the most specific part first."""
    subject = certificate.get("subject", ())
    return ",".join("+".join(_part(*pair) for pair in part) for part in reversed(subject))


def _part(name: str, value: str) -> str:
    escaped = "".join(map(_escaped, value))
    if value[:1] in {"#", " "}:
        escaped = f"\\{escaped}"
    if value[-1:] == " " and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return f"{_SHORT_NAMES.get(name, name)}={escaped}"


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def matches(subject: str, pattern: str) -> bool:
    """Tell whether a pattern for fnmatch(3) matches a subject; an escape is one character to it.

    So a comma in a value, which is escaped, never passes for one between two parts.
    """
    return fnmatch.fnmatchcase(_without_escapes(subject), _without_escapes(pattern))


def _without_escapes(text: str) -> str:
    """Return a text with one character in the place of each escape."""
    return _ESCAPE.sub(lambda match: chr(_FIRST_PRIVATE + _code(*match.groups())), text)


def _code(digits: str | None, character: str) -> int:
    return ord(character) if digits is None else int(digits, 16)
