"""What goes wrong with TLS, in words of a person."""

from __future__ import annotations

import ssl

LEFT = "it left in the middle of the handshake"

_WORDS = {
    "WRONG_VERSION_NUMBER": "that is not TLS, or not a version of it that is known",
    "HTTP_REQUEST": "that is plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "that is plain HTTP, not TLS",
    "UNSUPPORTED_PROTOCOL": "its version of TLS is too old",
    "VERSION_TOO_LOW": "its version of TLS is too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "no version of TLS is good enough for both",
    "NO_SHARED_CIPHER": "no cipher is good enough for both",
    "NO_SHARED_GROUP": "no key exchange is good enough for both",
    "NO_SUITABLE_KEY_SHARE": "no key exchange is good enough for both",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has shown no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a certificate has to be shown",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not know who vouches for our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to the other side our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other side does not take our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the other side cannot use our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other side finds nothing that is good enough for both",
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_KEY_TOO_SMALL": "the key of who vouches for it is too short to be safe",
    "CA_MD_TOO_WEAK": "its signature is of a kind that is not safe",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "what has come was changed on its way",
}
"""By OpenSSL's names of reasons; there are hundreds more, of which its own words have to do."""


def words(error: ssl.SSLError) -> str:
    """Say what has gone wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not taken: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return LEFT
    reason = error.reason or ""
    return _WORDS.get(reason) or reason.lower().replace("_", " ") or "TLS has failed"
