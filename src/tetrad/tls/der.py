"""The parts of certificates and revocation lists (CRLs) that identify them. No I/O.

OpenSSL has parsed and verified them before. The identifiers are shortened digests: of a key with
the name of its owner, which a renewed CA certificate keeps, and of an issuer with a serial number,
which is how a CRL names a certificate.
"""

from __future__ import annotations

from binascii import a2b_base64
from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Element = tuple[int, bytes, bytes]
    """An element of DER: its tag, the whole of it, and its content."""

TRUSTED = "TRUSTED CERTIFICATE"
"""The label of a certificate to which OpenSSL has added the uses that it is trusted for."""

CERTIFICATES, CRL = ("CERTIFICATE", "X509 CERTIFICATE", TRUSTED), "X509 CRL"
"""The labels of PEM blocks."""

_ID_DIGITS = 32
_INTEGER, _SEQUENCE, _EXPLICIT_0 = 0x02, 0x30, 0xA0
_TIMES = {0x17, 0x18}
_LONG_LENGTH = 0x80


def pem_blocks(text: str, *labels: str) -> Iterator[bytes]:
    """Yield the content of each PEM block that has one of the labels. Raises ValueError.

    It is DER, which after a trusted certificate continues with its uses.
    """
    for label in labels:
        for block in text.split(f"-----BEGIN {label}-----")[1:]:
            yield a2b_base64(block.partition("-----END")[0])


def elements(data: bytes) -> Iterator[Element]:
    """Yield the elements that follow each other. Raises ValueError."""
    at = 0
    while at < len(data):
        start, length = at + 2, int.from_bytes(data[at + 1 : at + 2], "big")
        if length >= _LONG_LENGTH:
            after = start + length - _LONG_LENGTH
            start, length = after, int.from_bytes(data[start:after], "big")
        end = start + length
        if end > len(data):
            raise ValueError("an element of DER is not complete")
        yield data[at], data[at:end], data[start:end]
        at = end


def certificate_ids(certificate: bytes) -> tuple[str, str]:
    """Return the identifiers of a certificate's key, and of the certificate. Raises ValueError."""
    ((_, _, content), *_) = elements(certificate)
    ((_, _, signed), *_) = elements(content)
    parts = [whole for tag, whole, _ in elements(signed) if tag != _EXPLICIT_0]
    serial, _, issuer, _, subject, key = parts[:6]
    return _digest(subject + key), _digest(issuer + serial)


def revoked_ids(crl: bytes) -> Iterator[str]:
    """Yield the identifiers of the certificates that a CRL revokes. Raises ValueError."""
    issuer, _, entries = _parts_of(crl)
    for _, _, entry in elements(entries):
        ((_, serial, _), *_) = elements(entry)
        yield _digest(issuer + serial)


def next_update(crl: bytes) -> str | None:
    """Return when a CRL ends, as the digits of a UTCTime or GeneralizedTime; None: never."""
    return _parts_of(crl)[1]


def _parts_of(crl: bytes) -> tuple[bytes, str | None, bytes]:
    """Return the issuer of a CRL, when it ends, and the list of revoked certificates."""
    ((_, _, content), *_) = elements(crl)
    ((_, _, signed), *_) = elements(content)
    _, (_, issuer, _), _, *rest = (one for one in elements(signed) if one[0] != _INTEGER)
    times = [text.decode("ascii") for tag, _, text in rest if tag in _TIMES]
    lists = [entries for tag, _, entries in rest if tag == _SEQUENCE]
    return issuer, times[0] if times else None, lists[0] if lists else b""


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:_ID_DIGITS]
