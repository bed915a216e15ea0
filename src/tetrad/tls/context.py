"""TLS contexts of listeners: OpenSSL's settings, the certificate, and which clients are served.

The master imports this module only when a listener has `tls`.
"""

from __future__ import annotations

import ssl

from tetrad.system import memory_path
from tetrad.tls import trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import TlsConfig

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsContext:
    """The TLS context of one listener, and the client certificates it accepts; None: it asks none.

    Raises OSError if OpenSSL rejects the certificate, the key, the CA bundle or a CRL.
    """

    def __init__(self, config: TlsConfig) -> None:
        self.context = server_context(config)
        self.trust = trust.of(config)


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Return OpenSSL's context for a listener. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config["minimum_version"]]
    # No session resumption: each client presents its certificate, and no ticket key is shared.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    # Commands have an end of their own, so an EOF without close_notify truncates nothing.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    _load_certificate(context, config["certificate"], config["key"])
    if config["client_ca"] is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # As a file: in a string, certificates with trust settings are ignored.
        with memory_path.path_of("client_ca", config["client_ca"].encode()) as file:
            context.load_verify_locations(file)
    if config["client_crl"] is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        with memory_path.path_of("crl", config["client_crl"].encode()) as file:
            context.load_verify_locations(file)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate and a key in PEM, through files in memory: `ssl` takes only files."""
    with (
        memory_path.path_of("certificate", certificate.encode()) as certificate_file,
        memory_path.path_of("key", key.encode()) as key_file,
    ):
        # The empty password makes an encrypted key an error instead of a prompt on the terminal.
        context.load_cert_chain(certificate_file, key_file, password=str)
