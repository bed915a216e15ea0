"""Types of the values in a configuration file: durations, sizes, networks, paths, names and so on.

Each has a class method `parse`, which reads a scalar of the file and raises ValueError with the
expected form, and a `str` that `parse` reads back to the same value.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
import zoneinfo
from typing import TYPE_CHECKING, Self

from tetrad.system import users
from tetrad.system.text import escape_unprintable, is_utf_8

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms]))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
_MIN_SECONDS, _MAX_SECONDS = 0.001, 3650 * 86400.0

_RATE = re.compile(r"([0-9]{1,18})\s*/\s*(s|m|h)")
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}

_SIZE = re.compile(r"([0-9]{1,18})\s*(B|KiB|MiB|GiB|TiB)?")
_SIZE_UNITS = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_MAX_SIZE_BYTES = 1 << 40

_MAX_TERMINATOR_LENGTH = 16

_UNIX = "unix:"
MAX_SOCKET_PATH_BYTES = 107

_RESERVED_VARIABLES = "TETRAD_"
"""The prefix of the variables by which a program learns about its client."""

_ZONES_WITHOUT_FILE = {"local", "UTC"}

_POSIX_ZONE = re.compile(r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?[0-9]|UTC$|GMT$")
"""The beginning of a zone that TZ describes by itself, such as CET-1CEST,M3.5.0,M10.5.0/3."""

_CONVERSIONS = re.compile(r"%[-_0^#+]*[0-9]*[EO:]*.?", re.DOTALL)

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Duration(float):
    """A time span in seconds, written as `1h30m`, `500ms` or a number of seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a string or a number of seconds, from 1 millisecond to 10 years."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds: float = value
        elif isinstance(value, str) and _DURATION.fullmatch(value):
            parts = _DURATION_PART.findall(value)
            seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
        else:
            message = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
            raise ValueError(message)
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            raise ValueError("expected a duration of at least 1ms and at most 3650d")
        return cls(round(seconds, 3))

    def __str__(self) -> str:
        """Return the shortest text that is exact to the millisecond."""
        milliseconds = round(self * 1000)
        text = ""
        for unit, seconds in _DURATION_UNITS.items():
            count, milliseconds = divmod(milliseconds, round(seconds * 1000))
            text += f"{count}{unit}" if count else ""
        return text


class Rate(str):
    """A number of events in a time span: `20/s`, `300/m`, `1000/h`."""

    __slots__ = ("number", "seconds")
    number: int
    seconds: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `COUNT/UNIT`; the count is at least 1."""
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None or int(match[1]) == 0:
            raise ValueError("expected a rate such as 20/s, 300/m or 1000/h")
        rate = cls(f"{int(match[1])}/{match[2]}")
        rate.number, rate.seconds = int(match[1]), _RATE_SECONDS[match[2]]
        return rate


class Size(int):
    """A number of bytes, written as `4KiB`, `1MiB` or a number."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a string or a number of bytes, from 1 byte to 1 TiB."""
        match = _SIZE.fullmatch(str(value))
        size = int(match[1]) * _SIZE_UNITS[match[2] or "B"] if match else 0
        if not 1 <= size <= _MAX_SIZE_BYTES:
            raise ValueError("expected a size such as 4KiB or a number of bytes, from 1 to 1TiB")
        return cls(size)

    def __str__(self) -> str:
        """Return the size in the largest unit that gives a whole number."""
        unit = next(unit for unit, count in _SIZE_UNITS.items() if self % count == 0)
        return f"{self // _SIZE_UNITS[unit]}{unit}"


class Mode(int):
    """The bits of a umask, written as octal digits in quotes: `"027"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read octal digits. Unquoted, 027 is the number twenty-seven in YAML: it is refused."""
        if not isinstance(value, str) or not re.fullmatch("0?[0-7]{1,3}", value):
            raise ValueError('expected three octal digits in quotes, such as "027"')
        return cls(value, 8)

    def __str__(self) -> str:
        """Return three octal digits."""
        return f"{self:03o}"


class Network(str):
    """An IPv4 or IPv6 network in canonical form; a single address is a network of one address."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read CIDR notation or an address. The host bits must be zero."""
        text = str(value)  # for the library, an integer would be an address
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            message = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"
            raise ValueError(message) from None
        if "%" in text:
            raise ValueError("a network has no zone; remove % and the text after it")
        if network.network_address != ipaddress.ip_interface(text).ip:
            raise ValueError(f"{text} has host bits set; write {network}")
        return cls(_unmapped_network(network))


class Address(str):
    """The address of a listener: an IPv4 or IPv6 address, or `unix:` and a path."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read an address. Host names are refused: what they resolve to can change later."""
        if isinstance(value, str) and value.startswith(_UNIX):
            return cls(_UNIX + SocketPath.parse(value.removeprefix(_UNIX)))
        try:
            address = unmapped(ipaddress.ip_address(str(value)))
        except ValueError:
            message = "expected an IPv4 or IPv6 address, or unix:/path/to.sock"
            raise ValueError(message) from None
        has_interface = "%" in str(address)
        if address.version == 6 and address.is_link_local and not has_interface:  # noqa: PLR2004
            raise ValueError(f"a link-local address needs its interface: write {address}%eth0")
        if has_interface and not address.is_link_local:
            raise ValueError(
                "only a link-local address (fe80::) has an interface; remove the % part"
            )
        return cls(address)

    @property
    def path(self) -> str | None:
        """The path of a Unix socket; None for an IP address."""
        return self.removeprefix(_UNIX) if self.startswith(_UNIX) else None


class Path(str):
    """A path in the file system; a relative one starts at the configuration file's folder."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a string that is not empty."""
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("expected a path")
        if not is_utf_8(value):
            raise ValueError(f"the path is not in UTF-8: {escape_unprintable(value)}")
        return cls(value)


class SocketPath(str):
    """The path of a Unix socket, whose length the kernel limits."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a path of at most 107 bytes."""
        path = Path.parse(value)
        length = len(os.fsencode(path))
        if length > MAX_SOCKET_PATH_BYTES:
            most = f"the path of a Unix socket has at most {MAX_SOCKET_PATH_BYTES} bytes"
            raise ValueError(f"{most}, but {path} has {length}")
        return cls(path)


class TlsVersion(str):
    """A version of TLS: 1.2 or 1.3."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a version, which is a number if it is not in quotes."""
        if str(value) not in {"1.2", "1.3"}:
            raise ValueError("expected 1.2 or 1.3")
        return cls(value)


class User(str):
    """The name or the id of a user. An id needs no entry on this machine."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name or an id and look it up."""
        return cls(_known_name(value, "user", users.user))


class Group(str):
    """The name or the id of a group. An id needs no entry on this machine."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name or an id and look it up."""
        return cls(_known_name(value, "group", users.group))


class Timezone(str):
    """`local`, or a zone of the IANA database such as `UTC` or `Asia/Seoul`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the name of a zone and look it up in this machine's database."""
        if not isinstance(value, str):
            message = "expected local, UTC or the name of a time zone such as Asia/Seoul"
            raise ValueError(message)  # noqa: TRY004 - as for an invalid string
        if value not in _ZONES_WITHOUT_FILE:
            _require_zone(value)
        return cls(value)

    @property
    def variable(self) -> str:
        """The value of the variable TZ for a zone other than `local`."""
        return "UTC0" if self == "UTC" else f":{_zone_file(self)}"


class ClockFormat(str):
    """A format of strftime(3), such as `%Y/%m/%d %H:%M:%S`."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a format whose result is not empty, and whose conversions the C library knows."""
        if (
            not isinstance(value, str)
            or "\0" in value
            or not time.strftime(value.encode("ascii", "replace").decode())
        ):
            raise ValueError("expected a format of strftime(3) such as %H:%M:%S")
        for conversion in _CONVERSIONS.findall(value):
            # An unknown one stays as it is with glibc, and musl writes nothing.
            plain = conversion.encode("ascii", "replace").decode()
            if time.strftime(plain) in {plain, ""}:
                unknown = f"{conversion} is not a conversion of strftime(3) on this machine"
                raise ValueError(f"{unknown}; write %% for a percent sign")
        return cls(value)

    @property
    def has_epoch(self) -> bool:
        """Whether it has `%s`, which the C library computes with the zone of the process."""
        return any(conversion.endswith("s") for conversion in _CONVERSIONS.findall(self))


class CommandName(str):
    """What a client sends: exactly four printable ASCII characters other than space."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the four characters."""
        if not isinstance(value, str) or not re.fullmatch("[!-~]{4}", value):
            message = "expected a name of exactly four printable ASCII characters other than space"
            raise ValueError(message)
        return cls(value)


class Terminator(str):
    """The end of each reply, such as a line feed."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        r"""Read a short string. A backslash is refused: outside double quotes YAML keeps `\n`."""
        if not isinstance(value, str) or len(value) > _MAX_TERMINATOR_LENGTH or "\\" in value:
            raise ValueError('expected a string of at most 16 characters, such as "\\n"')
        return cls(value)


class Argument(str):
    """An argument of a program, or the value of an environment variable."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a string, which may be empty."""
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("expected a string")
        return cls(value)


class Variable(str):
    """The name of an environment variable, such as LC_ALL."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name that is not reserved."""
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            raise ValueError("expected the name of an environment variable, such as LC_ALL")
        if value.startswith(_RESERVED_VARIABLES):
            raise ValueError(f"names that begin with {_RESERVED_VARIABLES} are reserved")
        return cls(value)


class Function(str):
    """A Python function of one argument, written as package.module:function."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name. Nothing is imported: see `tetrad.launch.functions`."""
        if not isinstance(value, str) or not _FUNCTION.fullmatch(value):
            raise ValueError("expected a Python function, written as package.module:function")
        return cls(value)


def unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address, and any other one unchanged."""
    return getattr(address, "ipv4_mapped", None) or address


def _unmapped_network(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return ::ffff:192.0.2.0/120 as 192.0.2.0/24: clients of dual-stack sockets are IPv4."""
    address = unmapped(network.network_address)
    if address == network.network_address:
        return network
    # The 96th bit of such an address is set, so the prefix has at least 96 bits.
    prefix = network.prefixlen - (network.max_prefixlen - ipaddress.IPV4LENGTH)
    return ipaddress.ip_network((address, prefix))


def check_zone_variable() -> None:
    """Raise ValueError if TZ names no zone of this machine: the C library would call UTC that."""
    value = os.environ.get("TZ", "").removeprefix(":")
    if (
        value
        and not _POSIX_ZONE.match(value)
        and not (os.path.isabs(value) and os.path.isfile(value))
    ):
        _require_zone(value)


def _require_zone(name: str) -> None:
    if _zone_file(name) is None:
        missing = f"{name!r} is not in this machine's time zone database"
        install = "" if any(map(os.path.isdir, zoneinfo.TZPATH)) else "; install the package tzdata"
        raise ValueError(missing + install)


def _zone_file(name: str) -> str | None:
    """Return the file of a zone. The Python package `tzdata` does not count: C ignores it."""
    try:
        zoneinfo.ZoneInfo(name)  # also refuses a name that leads elsewhere
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None
    return next(filter(os.path.isfile, (f"{folder}/{name}" for folder in zoneinfo.TZPATH)), None)


def _known_name(value: object, what: str, look_up: Callable[[str], object]) -> str:
    """Return a name or an id that `look_up` finds; it raises KeyError or ValueError for others."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        message = f"expected the name or the id of a {what}"
        raise ValueError(message)  # noqa: TRY004 - as for an unknown name
    try:
        look_up(value)
    except (KeyError, ValueError):
        raise ValueError(f"this machine has no {what} {value!r}") from None
    return value
