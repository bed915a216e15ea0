"""PEM files: read, split into the blocks that OpenSSL finds in them, and described if unusable.

OpenSSL parses each certificate and key. It does not tell which file, line or block it rejects.
"""

from __future__ import annotations

import codecs
import os
import re
import ssl
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from tetrad.tls import der

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BYTES = 1 << 20

_BEGIN = re.compile("-----BEGIN ([^-\r]*)-----")
_END = re.compile("(-----END ([^-\r]*)-----)(.*)")
_KEY = re.compile("(RSA |EC |DSA |ENCRYPTED )?PRIVATE KEY")
_BINARY = re.compile("[\0-\b]")

_TRAILING = "".join(map(chr, range(ord(" ") + 1)))
"""What OpenSSL ignores at the end of a line."""


class PemError(ValueError):
    """A file is not what it should be; the message begins with its path."""


class Block(NamedTuple):
    """A block from its BEGIN line, number `line`, to its END line; or what is wrong with it.

    `facts` are the fields of a CA certificate, as `ssl` names them.
    """

    label: str
    line: int
    text: str
    fault: str = ""
    facts: Mapping[str, Any] = {}

    @property
    def is_encrypted(self) -> bool:
        """Tell whether it is a key with a passphrase."""
        return self.label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in self.text

    def without_trust(self) -> str:
        """Return a certificate without what it is trusted for: OpenSSL ignores bytes at its end."""
        return self.text.replace(der.TRUSTED, "CERTIFICATE")


class PemFile:
    """A PEM file. Raises OSError, or PemError for a file that cannot be one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._data = _read(path)
        # Comments can be in any encoding; OpenSSL ignores what is not ASCII at the end of a line.
        data = self._data.removeprefix(codecs.BOM_UTF8)
        self._text = data.decode("ascii", "replace").replace("\ufffd", " ")
        self._blocks = _blocks(self._text)

    def certificates(self) -> list[Block]:
        """Return the certificates, at least one; OpenSSL can parse all. Raises PemError."""
        labels = {one.label for one in self._blocks}
        if labels.isdisjoint(der.CERTIFICATES):
            raise self._error(f"no certificate in PEM format in this file{self._contents()}")
        found = (one for one in self._blocks if one.fault or one.label in der.CERTIFICATES)
        return [self._parsed(one) for one in found]

    def private_keys(self) -> list[Block]:
        """Return the private keys, at least one; OpenSSL uses the first. Raises PemError."""
        found = [one for one in self._blocks if _KEY.fullmatch(one.label)]
        if not found:
            raise self._error(f"no private key in PEM format in this file{self._contents()}")
        if found[0].fault:
            raise self._error(f"the private key cannot be parsed: {found[0].fault}")
        return [one for one in found if not one.fault]

    def revocation_lists(self) -> list[Block]:
        """Return the CRLs, at least one. Raises PemError."""
        found = [one for one in self._blocks if one.label == der.CRL]
        if not found:
            raise self._error(f"no CRL in PEM format in this file{self._contents()}")
        for one in found:
            if one.fault:
                raise self._error(f"a CRL in this file cannot be parsed: {one.fault}")
        return found

    def _parsed(self, block: Block) -> Block:
        """Return a certificate with its facts. OpenSSL reads no file with an incomplete block."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        fault = block.fault
        try:
            if not fault:
                context.load_verify_locations(cadata=block.without_trust())
        except (ssl.SSLError, ValueError):
            fault = f"line {block.line}"
        if fault:
            raise self._error(f"a certificate in this file cannot be parsed: {fault}")
        return block._replace(facts=next(iter(context.get_ca_certs()), {}))

    def _error(self, message: str) -> PemError:
        return PemError(f"{self.path}: {message}")

    def _contents(self) -> str:
        """Return what the file has instead, to follow a message; nothing if that is unknown."""
        if labels := dict.fromkeys(one.label for one in self._blocks):
            return f", but {', '.join(labels)}"
        if self._data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return ", which is UTF-16; iconv -f UTF-16 -t UTF-8 converts it"
        before, begin, _ = self._text.partition("-----BEGIN ")
        if begin and "\r" in self._text and "\n" not in self._text:
            return r", whose lines end with CR; tr '\r' '\n' converts it"
        if begin:
            line = before.count("\n") + 1
            return f", but text before or after -----BEGIN ...----- in line {line}"
        if _BINARY.search(self._text):
            way_out = "openssl x509, pkey or pkcs12 converts it"
            return f", which is binary, such as DER or PKCS #12; {way_out}"
        return "" if self._text.strip() else ", which is empty"


def _read(path: str) -> bytes:
    """Return the content of a regular file. Raises OSError, or PemError for any other file."""
    # Opening a named pipe would wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PemError(f"{path}: not a regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(_MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_BYTES:
        raise PemError(f"{path}: larger than 1 MiB; not a file of certificates and keys")
    return data


def _blocks(text: str) -> list[Block]:
    """Return the blocks of a text. What is between them is a comment."""
    found: list[Block] = []
    label, first, lines = "", 0, [""]
    for number, written in enumerate(text.split("\n"), 1):
        line = written.rstrip(_TRAILING)
        begin, end = _BEGIN.fullmatch(line), _END.match(line)
        if begin and first:
            found.append(_unfinished(label, first))
        if begin:
            label, first, lines = begin[1], number, []
        if not first:
            continue
        lines.append(f"{line}\n")
        if end:
            fault = ""
            if end[2] != label:
                fault = f"line {number}: {end[1]} ends the block {label} of line {first}"
            elif end[3]:
                fault = f"line {number}: text after {end[1]}; what follows needs a line of its own"
            found.append(Block(label, first, "".join(lines), fault))
            first = 0
    if first:
        found.append(_unfinished(label, first))
    return found


def _unfinished(label: str, first: int) -> Block:
    fault = f"line {first}: -----BEGIN {label}----- without -----END {label}-----"
    return Block(label, first, "", fault)
