"""The subject of a certificate in one line, as RFC 4514 writes it."""

from __future__ import annotations

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
