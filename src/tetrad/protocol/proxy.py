r"""The header of the PROXY protocol: bytes in, whom a balancer brings out, and never any I/O.

A balancer that stands before a daemon hides who comes. So it says so at the head of a connection,
in clear, before any byte of the client's. There are two forms:

* version 1, a line of at most 107 bytes: `PROXY TCP4 192.0.2.7 198.51.100.1 38276 65000\r\n`, or
  `PROXY UNKNOWN`, behind which anything may stand that nobody looks at;
* version 2, binary: a signature of 12 bytes, version and command, family and transport, a length,
  and then so many bytes: two addresses, and things of any type (a byte), length (two) and value.

Where the header says nothing about an address (UNKNOWN; LOCAL, which is a balancer's own look
whether we live; a family that is not told), the connection's own address counts. Whatever else is
not as the specification has it is refused: what is guessed at can be forged.
"""

from __future__ import annotations

import _socket

from tetrad.protocol.commands import printable

SIGNATURE_1 = b"PROXY "
SIGNATURE_2 = b"\r\n\r\n\0\r\nQUIT\n"

LONGEST_1 = 107
"""Bytes of a line, its end among them."""

FIXED_2 = 16
LONGEST_2 = FIXED_2 + 2048
"""The second form counts its own length up to 64 KiB, of which nobody sends more than this."""

_FAMILIES_1 = {b"TCP4": _socket.AF_INET, b"TCP6": _socket.AF_INET6}
_FIELDS_1 = 6
_HIGHEST_PORT = 65535
_PORT_DIGITS = 5

_VERSION_2 = 0x20
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_STREAM = 1
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _INET: 4, _INET6: 16, _UNIX: 108}
_PORT_BYTES = 2

_CRC32C, _UNIQUE_ID = 0x03, 0x05
_CRC_BYTES = 4
_LONGEST_UNIQUE_ID = 128

_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, as it is reckoned with from the lowest bit on."""


class HeaderError(Exception):
    """This is no header; the text says why."""


class Header:
    """What a header says. `peer` is as of accept(2); None: the connection's own counts.

    `path` is the peer's where that is a Unix socket, and may be empty; `unique_id` is the
    balancer's name for the connection, printable, or empty. It `is_check` if nobody is brought, and
    the balancer only looks whether we live.
    """

    __slots__ = ("is_check", "path", "peer", "unique_id")

    def __init__(
        self,
        peer: tuple[str, int] | None = None,
        path: str | None = None,
        unique_id: str = "",
        *,
        is_check: bool = False,
    ) -> None:
        self.peer = peer
        self.path = path
        self.unique_id = unique_id
        self.is_check = is_check


def extent(data: bytes) -> tuple[int, bool]:
    """Return how many of a connection's first bytes are its header's, and if that is all of it.

    Where it is not, all bytes are, and more are to come. Raises HeaderError.
    """
    if data.startswith(SIGNATURE_2[: len(data)]):
        return _extent_2(data)
    if data.startswith(SIGNATURE_1[: len(data)]):
        return _extent_1(data)
    raise HeaderError("it does not begin with a PROXY header")


def parse(header: bytes) -> Header:
    """Read a whole header. Raises HeaderError."""
    return _parse_1(header) if header.startswith(SIGNATURE_1) else _parse_2(header)


def _extent_1(data: bytes) -> tuple[int, bool]:
    end = data[:LONGEST_1].find(b"\n") + 1
    if end:
        if data[end - 2 : end] != b"\r\n":
            raise HeaderError("the line does not end as a PROXY header does")
        return end, True
    if len(data) >= LONGEST_1:
        raise HeaderError(f"the line is longer than {LONGEST_1} bytes")
    return len(data), False


def _extent_2(data: bytes) -> tuple[int, bool]:
    if len(data) < FIXED_2:
        return len(data), False
    size = FIXED_2 + int.from_bytes(data[FIXED_2 - 2 : FIXED_2], "big")
    if size > LONGEST_2:
        raise HeaderError(f"it is longer than {LONGEST_2} bytes")
    return min(size, len(data)), len(data) >= size


def _parse_1(line: bytes) -> Header:
    fields = line[:-2].split(b" ")
    if fields[1] == b"UNKNOWN":
        return Header()
    family = _FAMILIES_1.get(fields[1])
    if family is None or len(fields) != _FIELDS_1:
        raise HeaderError("it is not PROXY TCP4 or TCP6, two addresses and two ports")
    source, _ = _host(family, fields[2]), _host(family, fields[3])
    port, _ = _port(fields[4]), _port(fields[5])
    return Header((source, port))


def _host(family: int, text: bytes) -> str:
    """Read an address, and write it as everybody does."""
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, text.decode("ascii")))
    except (OSError, ValueError):
        raise HeaderError(f"{printable(text)} is no address of its family") from None


def _port(text: bytes) -> int:
    """Read a port: digits, and none of them a zero that could be left out."""
    if text.isdigit() and len(text) <= _PORT_DIGITS and (text == b"0" or text[:1] != b"0"):
        port = int(text)
        if port <= _HIGHEST_PORT:
            return port
    raise HeaderError(f"{printable(text)} is no port")


def _parse_2(header: bytes) -> Header:
    version, command = header[12] & 0xF0, header[12] & 0x0F
    family, transport = header[13] >> 4, header[13] & 0x0F
    if version != _VERSION_2 or command not in {_LOCAL, _PROXY}:
        raise HeaderError("its version or command is unknown")
    if command == _LOCAL:
        return Header(is_check=True)
    if family not in _ADDRESS_BYTES:
        raise HeaderError("its family of addresses is unknown")
    if transport not in {_UNSPECIFIED, _STREAM}:
        raise HeaderError("it does not tell of a stream")
    size = _ADDRESS_BYTES[family]
    ports = 2 * _PORT_BYTES if family in {_INET, _INET6} else 0
    things = FIXED_2 + 2 * size + ports
    if len(header) < things:
        raise HeaderError("it is too short for its addresses")
    unique_id = printable(_unique_id(header, things))
    if _UNSPECIFIED in {family, transport}:
        return Header(unique_id=unique_id)
    source = header[FIXED_2 : FIXED_2 + size]
    if family == _UNIX:
        return Header(path=_path(source), unique_id=unique_id)
    kind = _socket.AF_INET if family == _INET else _socket.AF_INET6
    at = FIXED_2 + 2 * size
    port = int.from_bytes(header[at : at + _PORT_BYTES], "big")
    return Header((_socket.inet_ntop(kind, source), port), unique_id=unique_id)


def _path(address: bytes) -> str:
    """Return a Unix socket's path, or @ and an abstract name; what is odd in it is shown as `?`."""
    text = address.rstrip(b"\0")
    text = b"@" + text[1:] if text[:1] == b"\0" else text.partition(b"\0")[0]
    return "".join(chr(c) if _is_plain(c) else "?" for c in text)


def _is_plain(code: int) -> bool:
    return 0x21 <= code <= 0x7E and code not in b'"\\'  # noqa: PLR2004 - ASCII


def _unique_id(header: bytes, at: int) -> bytes:
    """Go through the things behind the addresses; return the balancer's name for the connection."""
    found: dict[int, bytes] = {}
    while at < len(header):
        kind, start = header[at], at + 3
        at = start + int.from_bytes(header[at + 1 : start], "big")
        if start > len(header) or at > len(header):
            raise HeaderError("something in it is cut short")
        if kind in {_CRC32C, _UNIQUE_ID}:
            if kind in found:
                raise HeaderError("something is in it twice")
            found[kind] = header[start:at]
            if kind == _CRC32C:
                _verify(header, start, at)
    unique_id = found.get(_UNIQUE_ID, b"")
    if len(unique_id) > _LONGEST_UNIQUE_ID:
        raise HeaderError(f"its unique id is longer than {_LONGEST_UNIQUE_ID} bytes")
    return unique_id


def _verify(header: bytes, start: int, end: int) -> None:
    """Insist on the checksum at a place, which is that of the header with zeros there."""
    blank = header[:start] + bytes(end - start) + header[end:]
    if end - start != _CRC_BYTES or crc32c(blank) != int.from_bytes(header[start:end], "big"):
        raise HeaderError("its checksum is wrong")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        crc = crc >> 4 ^ _STEPS[crc & 15]
        crc = crc >> 4 ^ _STEPS[crc & 15]
    return crc ^ 0xFFFFFFFF


def _step(crc: int) -> int:
    for _ in range(4):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


_STEPS = tuple(_step(nibble) for nibble in range(16))
"""What four bits make of the rest: small, for every page that the master has costs every fork."""
