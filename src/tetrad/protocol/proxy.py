r"""The header of the PROXY protocol: bytes in, the client's address out, and never any I/O.

A proxy in front of the daemon hides its clients' addresses. So it sends a header at the beginning
of each connection, unencrypted and before any byte of the client's. There are two versions:

* version 1, a line of at most 107 bytes: `PROXY TCP4 192.0.2.7 198.51.100.1 38276 65000\r\n`, or
  `PROXY UNKNOWN` followed by anything, which is ignored;
* version 2, binary: a signature of 12 bytes, version and command, family and transport, the length
  of the rest, and the rest: two addresses and TLVs (type one byte, length two, value).

A header without an address (UNKNOWN; LOCAL, which is a health check; family or transport UNSPEC)
leaves the connection's own address in force. Everything else that the specification does not allow
is an error: an address that is guessed can be forged.

Specification: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import _socket

from tetrad.protocol.commands import printable

V1_SIGNATURE = b"PROXY "
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

V1_MAX_BYTES = 107
"""Bytes of a line with its line ending."""

V2_FIXED_BYTES = 16
V2_MAX_BYTES = V2_FIXED_BYTES + 2048
"""The specification allows 64 KiB; no proxy sends more than this."""

_V1_FAMILIES = {b"TCP4": _socket.AF_INET, b"TCP6": _socket.AF_INET6}
_V1_FIELDS = 6
_MAX_PORT = 65535
_MAX_PORT_DIGITS = 5

_V2_VERSION = 0x20
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_STREAM = 1
_ADDRESS_BYTES = {_UNSPEC: 0, _INET: 4, _INET6: 16, _UNIX: 108}
_PORT_BYTES = 2
_TLV_HEAD_BYTES = 3

_CRC32C, _UNIQUE_ID = 0x03, 0x05
_CRC_BYTES = 4
_MAX_UNIQUE_ID = 128

_PATH_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-@:+,="
"""The bytes of a path that mean nothing to a shell: programs get the path as the client's name."""

_POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial, bit-reversed."""


class HeaderError(Exception):
    """These bytes are not a PROXY header; the text says why."""


class Header:
    """A header. `peer` is an address and a port as of accept(2); None: use the connection's own.

    `path` is that of a peer with a Unix socket, and may be empty; None for other peers. `unique_id`
    is the proxy's id of the connection, in printable ASCII, or empty. `is_check`: the connection is
    a health check of the proxy, without a client.
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


def header_length(data: bytes) -> tuple[int, bool]:
    """Return how many of a connection's first bytes belong to its header, and if it is complete.

    All bytes of an incomplete header belong to it. Raises HeaderError.
    """
    if data.startswith(V2_SIGNATURE[: len(data)]):
        return _v2_length(data)
    if data.startswith(V1_SIGNATURE[: len(data)]):
        return _v1_length(data)
    raise HeaderError("no PROXY header signature")


def parse(header: bytes) -> Header:
    """Parse a complete header. Raises HeaderError."""
    return _parse_v1(header) if header.startswith(V1_SIGNATURE) else _parse_v2(header)


def _v1_length(data: bytes) -> tuple[int, bool]:
    end = data[:V1_MAX_BYTES].find(b"\n") + 1
    if end:
        if data[end - 2 : end] != b"\r\n":
            raise HeaderError("the PROXY line does not end with CR LF")
        return end, True
    if len(data) >= V1_MAX_BYTES:
        raise HeaderError(f"PROXY line longer than {V1_MAX_BYTES} bytes")
    return len(data), False


def _v2_length(data: bytes) -> tuple[int, bool]:
    if len(data) < V2_FIXED_BYTES:
        return len(data), False
    size = V2_FIXED_BYTES + int.from_bytes(data[V2_FIXED_BYTES - 2 : V2_FIXED_BYTES], "big")
    if size > V2_MAX_BYTES:
        raise HeaderError(f"PROXY header longer than {V2_MAX_BYTES} bytes")
    return min(size, len(data)), len(data) >= size


def _parse_v1(line: bytes) -> Header:
    fields = line[:-2].split(b" ")
    if fields[1] == b"UNKNOWN":
        return Header()
    family = _V1_FAMILIES.get(fields[1])
    if family is None or len(fields) != _V1_FIELDS:
        raise HeaderError("expected PROXY TCP4 or TCP6, two addresses and two ports")
    source, _ = _parse_address(family, fields[2]), _parse_address(family, fields[3])
    port, _ = _parse_port(fields[4]), _parse_port(fields[5])
    return Header((source, port))


def _parse_address(family: int, text: bytes) -> str:
    """Return an address in its canonical form."""
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, text.decode("ascii")))
    except (OSError, ValueError):
        version = "IPv4" if family == _socket.AF_INET else "IPv6"
        raise HeaderError(f"not an {version} address: {printable(text)}") from None


def _parse_port(text: bytes) -> int:
    """Return a port: decimal digits without leading zeros."""
    if text.isdigit() and len(text) <= _MAX_PORT_DIGITS and (text == b"0" or text[:1] != b"0"):
        port = int(text)
        if port <= _MAX_PORT:
            return port
    raise HeaderError(f"not a port: {printable(text)}")


def _parse_v2(header: bytes) -> Header:
    version, command = header[12] & 0xF0, header[12] & 0x0F
    family, transport = header[13] >> 4, header[13] & 0x0F
    if version != _V2_VERSION or command not in {_LOCAL, _PROXY}:
        raise HeaderError("unknown version or command in the PROXY header")
    if command == _LOCAL:
        return Header(is_check=True)
    if family not in _ADDRESS_BYTES:
        raise HeaderError("unknown address family in the PROXY header")
    if transport not in {_UNSPEC, _STREAM}:
        raise HeaderError("the transport in the PROXY header is not STREAM")
    size = _ADDRESS_BYTES[family]
    ports = 2 * _PORT_BYTES if family in {_INET, _INET6} else 0
    tlvs = V2_FIXED_BYTES + 2 * size + ports
    if len(header) < tlvs:
        raise HeaderError("PROXY header too short for its addresses")
    unique_id = printable(_unique_id(header, tlvs))
    if _UNSPEC in {family, transport}:
        return Header(unique_id=unique_id)
    source = header[V2_FIXED_BYTES : V2_FIXED_BYTES + size]
    if family == _UNIX:
        return Header(path=_path(source), unique_id=unique_id)
    kind = _socket.AF_INET if family == _INET else _socket.AF_INET6
    at = V2_FIXED_BYTES + 2 * size
    port = int.from_bytes(header[at : at + _PORT_BYTES], "big")
    return Header((_socket.inet_ntop(kind, source), port), unique_id=unique_id)


def _path(address: bytes) -> str:
    """Return the path of a Unix socket, or @ and its abstract name, with `_` for odd bytes."""
    text = address.rstrip(b"\0")
    text = b"@" + text[1:] if text[:1] == b"\0" else text.partition(b"\0")[0]
    return "".join(chr(code) if code in _PATH_BYTES else "_" for code in text)


def _unique_id(header: bytes, at: int) -> bytes:
    """Check the TLVs, which begin at `at`; return the value of the unique id, or nothing."""
    found: dict[int, bytes] = {}
    while at < len(header):
        kind, start = header[at], at + _TLV_HEAD_BYTES
        at = start + int.from_bytes(header[at + 1 : start], "big")
        if start > len(header) or at > len(header):
            raise HeaderError("truncated TLV in the PROXY header")
        if kind in {_CRC32C, _UNIQUE_ID}:
            if kind in found:
                raise HeaderError("duplicate TLV in the PROXY header")
            found[kind] = header[start:at]
            if kind == _CRC32C:
                _check_crc(header, start, at)
    unique_id = found.get(_UNIQUE_ID, b"")
    if len(unique_id) > _MAX_UNIQUE_ID:
        raise HeaderError(f"unique id longer than {_MAX_UNIQUE_ID} bytes")
    return unique_id


def _check_crc(header: bytes, start: int, end: int) -> None:
    """Check the CRC at `start`, which is computed with zeros in its own place."""
    blank = header[:start] + bytes(end - start) + header[end:]
    if end - start != _CRC_BYTES or crc32c(blank) != int.from_bytes(header[start:end], "big"):
        raise HeaderError("wrong CRC-32C in the PROXY header")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data` (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        crc = crc >> 4 ^ _CRC_TABLE[crc & 15]
        crc = crc >> 4 ^ _CRC_TABLE[crc & 15]
    return crc ^ 0xFFFFFFFF


def _crc_step(crc: int) -> int:
    for _ in range(4):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


_CRC_TABLE = tuple(_crc_step(nibble) for nibble in range(16))
"""The remainders of four bits: a table for a byte would enlarge the master, which forks."""
