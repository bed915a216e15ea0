"""Durations, rates, networks, addresses: what an operator writes as text, and back again.

Each is a value with a `parse` that raises ValueError with the way out, and a `str` that parses to
the same value.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import time
import zoneinfo
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms]))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_SHORTEST, _LONGEST = 0.001, 3650 * 86400.0

_RATE = re.compile(r"([0-9]{1,18})\s*/\s*(s|m|h)")
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}

_UNIX = "unix:"
_UNIX_PATH_BYTES = 107

_EXPECTED = {
    "Duration": "a duration such as 500ms, 10s, 1h30m or a number of seconds",
    "Rate": "a rate such as 20/s, 300/m or 1000/h",
    "Mode": 'three octal digits in quotes, such as "027"',
    "Network": "an address or a network such as 192.0.2.0/24 or 2001:db8::/32",
    "Address": "an IPv4 or IPv6 address, or unix:/path/to.sock",
    "Path": "a path",
    "TlsVersion": "1.2 or 1.3",
    "Timezone": "local, UTC or a time zone's name such as Asia/Seoul",
    "ClockFormat": "a format of strftime(3) such as %H:%M:%S",
    "CommandName": "a name of exactly four printable ASCII characters other than space",
}


class Duration(float):
    """A time span in seconds, written `1h30m`, `500ms` or as a number of seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read text or a number of seconds, from a millisecond to ten years."""
        if isinstance(value, bool):
            raise ValueError(_expected(cls))  # noqa: TRY004 - a value's error, like the others
        if isinstance(value, (int, float)):
            seconds: float = value
        elif isinstance(value, str) and _DURATION.fullmatch(value):
            parts = _DURATION_PART.findall(value)
            seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        else:
            raise ValueError(_expected(cls))
        if not _SHORTEST <= seconds <= _LONGEST:
            message = "expected a duration of at least 1ms and at most 3650d"
            raise ValueError(message)
        return cls(round(seconds, 3))

    def __str__(self) -> str:
        """Write the span in the fewest units that keep its milliseconds."""
        milliseconds = round(self * 1000)
        text = ""
        for unit, seconds in _DURATION_UNITS.items():
            count, milliseconds = divmod(milliseconds, round(seconds * 1000))
            text += f"{count}{unit}" if count else ""
        return text


class Rate(str):
    """How many may come in how long: `20/s`, `300/m`, `1000/h`."""

    __slots__ = ("number", "seconds")
    number: int
    seconds: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `COUNT/UNIT`; the count is 1 or more."""
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None or int(match[1]) == 0:
            raise ValueError(_expected(cls))
        rate = cls(f"{int(match[1])}/{match[2]}")
        rate.number, rate.seconds = int(match[1]), _RATE_SECONDS[match[2]]
        return rate


class Mode(int):
    """The bits of a umask, written in octal and in quotes: `"027"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read octal digits. A bare 027 is the number twenty-seven to YAML, so it is refused."""
        if not isinstance(value, str) or not re.fullmatch("[0-7]{1,4}", value):
            raise ValueError(_expected(cls))
        mode = cls(value, 8)
        if mode > 0o777:  # noqa: PLR2004
            raise ValueError(_expected(cls))
        return mode

    def __str__(self) -> str:
        """Write three octal digits."""
        return f"{self:03o}"


class Network(str):
    """An IPv4 or IPv6 network in canonical form; a single address is the smallest network."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read CIDR notation or an address. Bits to the right of the prefix must be zero."""
        if not isinstance(value, str):
            raise ValueError(_expected(cls))  # noqa: TRY004 - a value's error, like the others
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(_expected(cls)) from None
        if "%" in value:
            message = "a network has no zone (the part after %)"
            raise ValueError(message)
        if network.network_address != ipaddress.ip_interface(value).ip:
            message = f"{value} has bits set to the right of its prefix; write {network}"
            raise ValueError(message)
        return cls(_unmapped(network))


class Address(str):
    """Where a listener listens: an IPv4 or IPv6 address, or `unix:` and a path."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read an address. Names are refused: what they mean can change under a running daemon."""
        if not isinstance(value, str):
            raise ValueError(_expected(cls))  # noqa: TRY004 - a value's error, like the others
        if value.startswith(_UNIX):
            return cls(_UNIX + SocketPath.parse(value.removeprefix(_UNIX)))
        try:
            return cls(unmapped(ipaddress.ip_address(value)))
        except ValueError:
            raise ValueError(_expected(cls)) from None

    @property
    def path(self) -> str | None:
        """The path of a Unix socket; None for an IP address."""
        return self.removeprefix(_UNIX) if self.startswith(_UNIX) else None


class SocketPath(str):
    """The path of a Unix socket, which the kernel wants to be short."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a path of at most 107 bytes."""
        path = Path.parse(value)
        length = len(os.fsencode(path))
        if length > _UNIX_PATH_BYTES:
            most = f"the path of a Unix socket has at most {_UNIX_PATH_BYTES} bytes"
            message = f"{most}, and {path} has {length}"
            raise ValueError(message)
        return cls(path)


class Path(str):
    """A path in the file system; a relative one starts from the configuration file's folder."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read any text but none at all."""
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(_expected(cls))
        return cls(value)


class TlsVersion(str):
    """A version of TLS: 1.2 or 1.3."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a version, which without quotes is a number."""
        if str(value) not in {"1.2", "1.3"}:
            raise ValueError(_expected(cls))
        return cls(value)


class User(str):
    """The name of a user of this machine."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name and look it up."""
        return cls(_known(value, "user", pwd.getpwnam))


class Group(str):
    """The name of a group of this machine."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name and look it up."""
        return cls(_known(value, "group", grp.getgrnam))


class Timezone(str):
    """`local`, or a zone of the IANA database such as `UTC` or `Asia/Seoul`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a zone's name and look it up in this machine's database."""
        if not isinstance(value, str):
            raise ValueError(_expected(cls))  # noqa: TRY004 - a value's error, like the others
        if value not in {"local", "UTC"}:
            try:
                zoneinfo.ZoneInfo(value)
            except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
                message = f"{value!r} is not in this machine's time zone database"
                raise ValueError(message) from None
        return cls(value)


class ClockFormat(str):
    """How strftime(3) writes a time, e.g. `%Y/%m/%d %H:%M:%S`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a format that gives some text."""
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(_expected(cls))
        if not time.strftime(value.encode("ascii", "replace").decode()):
            raise ValueError(_expected(cls))
        return cls(value)


class CommandName(str):
    """What a client sends: exactly four printable ASCII characters other than space."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the four characters."""
        if not isinstance(value, str) or not re.fullmatch("[!-~]{4}", value):
            raise ValueError(_expected(cls))
        return cls(value)


def unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one of ::ffff:0:0/96 stands for."""
    return getattr(address, "ipv4_mapped", None) or address


def _unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return ::ffff:192.0.2.0/120 as 192.0.2.0/24: clients of dual-stack sockets are IPv4."""
    address = unmapped(network.network_address)
    if address == network.network_address:
        return network
    # The 96th bit of such an address is set, so its prefix has at least that many.
    prefix = network.prefixlen - (network.max_prefixlen - ipaddress.IPV4LENGTH)
    return ipaddress.ip_network((address, prefix))


def _known(value: object, what: str, look_up: Callable[[str], object]) -> str:
    if not isinstance(value, str):
        message = f"expected the name of a {what}"
        raise ValueError(message)  # noqa: TRY004 - a value's error, like the others
    try:
        look_up(value)
    except (KeyError, ValueError):
        message = f"this machine has no {what} {value!r}"
        raise ValueError(message) from None
    return value


def _expected(kind: type) -> str:
    return f"expected {_EXPECTED[kind.__name__]}"
