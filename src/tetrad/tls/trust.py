"""Which client certificates a listener accepts, as far as a session can outlive it. No I/O.

OpenSSL verifies a certificate once, at the handshake. So the handler reports what a later decision
needs, and the master decides again when a reload changes the CAs, the CRLs or the subjects.
"""

from __future__ import annotations

from tetrad.tls import der
from tetrad.tls.subjects import matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import TlsConfig


class ClientTrust:
    """The subjects, the CAs and the revoked certificates of a listener with `client_ca`.

    Raises ValueError for a CA or a CRL that is no DER.
    """

    __slots__ = ("_anchors", "_revoked", "_subjects")

    def __init__(self, client_ca: str, client_crl: str | None, subjects: list[str]) -> None:
        self._subjects = subjects
        blocks = der.pem_blocks(client_ca, *der.CERTIFICATES)
        self._anchors = {der.certificate_ids(one)[0] for one in blocks}
        crls = der.pem_blocks(client_crl or "", der.CRL)
        self._revoked = {one for crl in crls for one in der.revoked_ids(crl)}

    def __eq__(self, other: object) -> bool:
        """Tell whether both accept the same certificates."""
        return isinstance(other, ClientTrust) and self._all == other._all

    __hash__ = None  # type: ignore[assignment]

    def allows_subject(self, subject: str) -> bool:
        """Tell whether a client with a verified certificate for `subject` is served."""
        patterns = self._subjects
        return not patterns or any(matches(subject, one) for one in patterns)

    def allows(self, certificate: bytes) -> bool:
        """Tell whether a certificate that `describe` describes would be accepted now."""
        keys, issued, subject = certificate.decode("utf-8", "surrogatepass").split(" ", 2)
        return (
            not self._anchors.isdisjoint(keys.split(","))
            and self._revoked.isdisjoint(issued.split(","))
            and self.allows_subject(subject)
        )

    @property
    def _all(self) -> tuple[set[str], set[str], list[str]]:
        return self._anchors, self._revoked, self._subjects


def of(config: TlsConfig) -> ClientTrust | None:
    """Return which client certificates a listener accepts; None if it asks for none."""
    if config["client_ca"] is None:
        return None
    return ClientTrust(config["client_ca"], config["client_crl"], config["subjects"])


def describe(chain: list[bytes], subject: str) -> bytes:
    """Return what `allows` needs of a verified certificate, in one line.

    `chain` has it, then its CAs, as DER.
    """
    keys, issued = zip(*map(der.certificate_ids, chain), strict=True)
    return f"{','.join(keys)} {','.join(issued)} {subject}".encode("utf-8", "surrogatepass")
