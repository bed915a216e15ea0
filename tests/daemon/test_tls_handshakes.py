"""TLS handshakes that fail: what the client gets, and what the log says."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER
from tests.support.tls_clients import TlsClient, handshake_error, secured, session_end

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl

STRICT = 1
"""The listener that requires TLS 1.3."""


@pytest.fixture
def served(shared_daemon: MakeDaemon, pki: Certificates) -> Daemon:
    """Return a daemon with a listener that accepts TLS 1.2, and one that does not."""
    return shared_daemon(listen=[pki.tls(), pki.tls(minimum_version=1.3)])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"timetimequit\r\n", "not TLS, or an unsupported TLS version"),
        (b"GET / HTTP/1.0\r\n\r\n", "plain HTTP, not TLS"),
        (b"\x16\x03\x01\x00\x05hello", ""),
        (b"\x16\x03\x03\x40\x00" + bytes(20000), ""),
        (bytes(range(256)) * 100, ""),
    ],
)
def test_input_that_is_not_tls_ends_the_session(
    served: Daemon, pki: Certificates, data: bytes, error: str
) -> None:
    """Plain text or random bytes; the log distinguishes them."""
    client = served.connect()
    client.send(data)
    assert client.is_refused() or True
    assert error in handshake_error(served, client)
    assert secured(served, pki.context()).quit() == b"quit"


def test_input_that_is_not_a_record_ends_the_session(served: Daemon, pki: Certificates) -> None:
    """With the reason tls."""
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"time")
    client.push()
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.plain.sendall(b"timetimequit" * 10)
    line = session_end(served)
    assert (line["reason"], line["commands"]) == ("tls", 1)
    assert line["error"]


@pytest.mark.parametrize(("data", "reason"), [(b"", "eof"), (b"\x16\x03\x01\x02\x00\x01", "tls")])
def test_a_client_that_disconnects_before_the_end_of_the_handshake(
    served: Daemon, data: bytes, reason: str
) -> None:
    """In the middle of its ClientHello that is an error, before it an EOF."""
    client = served.connect()
    client.send_and_wait(data)
    client.half_close()
    line = session_end(served)
    assert (line["reason"], client.read_all()) == (reason, b"")
    error = None if reason == "eof" else "the client disconnected during the handshake"
    assert line.get("error") == error


def test_the_first_command_timeout_includes_the_handshake(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """For a client that stops in the middle of it, or sends nothing after it."""
    served = daemon(listen=[pki.tls()], session={"first_command_timeout": "1s"})
    half_open = served.connect()
    half_open.send(b"\x16\x03\x01\x02\x00\x01")
    silent = secured(served, pki.context())
    assert half_open.is_refused()
    assert silent.read_all() == b""
    for client in (half_open, silent):
        line = session_end(served, client=client.name)
        assert line["reason"] == "first_command_timeout"
        assert 1 <= line["duration"] < 10


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_versions_are_rejected(
    served: Daemon, pki: Certificates, version: ssl.TLSVersion
) -> None:
    """TLS 1.0 and 1.1."""
    context = pki.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    client = served.connect()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        secured(served, context, plain=client)
    assert (
        handshake_error(served, client)
        == "unsupported protocol: the client's TLS version is too old"
    )


def test_minimum_version_rejects_older_ones(served: Daemon, pki: Certificates) -> None:
    """1.3 is a number in YAML."""
    context = pki.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = served.connect(STRICT)
    with pytest.raises(ssl.SSLError):
        secured(served, context, plain=client)
    assert (
        handshake_error(served, client)
        == "unsupported protocol: the client's TLS version is too old"
    )
    assert secured(served, pki.context(), STRICT).quit() == b"quit"


def test_a_client_that_does_not_trust_the_ca_is_logged(served: Daemon, pki: Certificates) -> None:
    """Its alert has a text in the log."""
    context = ssl.create_default_context(cafile=pki.other_ca.certificate)
    client = served.connect()
    with pytest.raises(ssl.SSLCertVerificationError):
        secured(served, context, plain=client)
    client.close()
    error = "the client rejected the server certificate (TLS alert unknown_ca)"
    assert handshake_error(served, client) == error
