"""OpenSSL's errors as one line of text.

The texts are written from the side of this process. Its `peer` is "client" in a handler and when
the certificates of a listener are checked, and "server" in `tetrad client`, whose options the
hints name. OpenSSL's and the RFCs' terms are kept.
"""

from __future__ import annotations

import ssl
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Peer = Literal["client", "server"]

_OTHER = {"client": "server", "server": "client"}

KEY_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""The reasons for a key of another certificate; the last one is for a key of another algorithm."""

_TEXTS = {
    **dict.fromkeys(KEY_MISMATCHES, "the key does not match the certificate"),
    "UNKNOWN_CERTIFICATE_TYPE": (
        "the private key cannot sign, such as one for X25519; use RSA, EC or Ed25519"
    ),
    "WRONG_VERSION_NUMBER": "not TLS, or an unsupported TLS version",
    "HTTP_REQUEST": "plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "plain HTTP, not TLS",
    "UNSUPPORTED_PROTOCOL": "unsupported protocol: the {peer}'s TLS version is too old",
    "VERSION_TOO_LOW": "unsupported protocol: the {peer}'s TLS version is too old",
    "NO_SHARED_GROUP": "no shared group for the key exchange",
    "NO_SUITABLE_KEY_SHARE": "no shared group for the key exchange",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the {peer} sent no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the {peer} requires a certificate (use --cert)",
    "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in PEM format in this file",
    "EE_KEY_TOO_SMALL": "the key of the certificate is too small",
    "CA_KEY_TOO_SMALL": "the key of the CA is too small",
    "CA_MD_TOO_WEAK": "the signature algorithm of the certificate is too weak",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "bad record MAC",
}
"""Texts by OpenSSL's names of reasons; hundreds of other reasons are shown as they are."""

_OUT_OF_DATE = {9, 10}
"""X509_V_ERR_* codes of a certificate that is not valid yet, or has expired."""

_UNKNOWN_ISSUER = {18, 19, 20, 21}
"""X509_V_ERR_* codes of a certificate whose issuer is not among the trusted CAs."""


def describe(error: ssl.SSLError, peer: Peer) -> str:
    """Return the text for an error of a connection with `peer`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = " (use --ca)" * (peer == "server" and error.verify_code in _UNKNOWN_ISSUER)
        if error.verify_code in _OUT_OF_DATE:
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            hint = f" (the clock of this host says {now} UTC)"
        return f"{peer} certificate rejected: {error.verify_message}{hint}"
    if isinstance(error, ssl.SSLEOFError):
        return f"unexpected EOF: the {peer} closed the connection"
    reason = error.reason or ""
    if reason in _TEXTS:
        return _TEXTS[reason].replace("{peer}", peer)
    alert = reason.partition("_ALERT_")[2].lower()
    if "certificate" in alert or alert == "unknown_ca":
        return f"the {peer} rejected the {_OTHER[peer]} certificate (TLS alert {alert})"
    if alert:
        return f"TLS alert {alert} from the {peer}"
    return reason.lower().replace("_", " ") or "TLS error"


def describe_key(error: ssl.SSLError, *, is_encrypted: bool) -> str:
    """Return why OpenSSL did not accept a private key that is in PEM format."""
    if error.reason in _TEXTS:
        return describe(error, "client")
    if is_encrypted:
        way_out = "remove its passphrase (openssl pkey -in FILE -out FILE)"
        return f"the private key is encrypted; {way_out}"
    return "the private key cannot be parsed"
