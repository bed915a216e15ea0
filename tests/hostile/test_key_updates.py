"""TLS clients that request answers of TLS itself, and read nothing."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER_BYTES
from tests.support.processes import memory_of, until
from tests.support.tls_clients import TlsClient

if TYPE_CHECKING:
    import ssl

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl

UPDATES = 500
ROUNDS = 400
"""Rounds of updates, more than all buffers between the two have room for."""

GROWTH_KIB = 1024
"""How much memory a handler may use for answers that are not read."""

REQUEST = 1
"""SSL_KEY_UPDATE_REQUESTED: the other side has to answer."""


def request_key_update(tls: ssl.SSLObject) -> None:
    """Put a KeyUpdate into the output; Python's module has no function for that."""
    ssl_object = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    pointer_bytes = ctypes.sizeof(ctypes.c_void_p)
    # Behind the head of an object and a reference to a socket.
    at = id(ssl_object) + object.__basicsize__ + pointer_bytes
    update = ctypes.CDLL(_ssl.__file__).SSL_key_update
    update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    assert update(ctypes.c_void_p.from_address(at), REQUEST) == 1
    tls.do_handshake()


@pytest.fixture
def served(shared_daemon: MakeDaemon, pki: Certificates) -> Daemon:
    """Return a daemon with TLS whose clients have to read within half a second."""
    return shared_daemon(listen=[pki.tls()], session={"send_timeout": "500ms"})


def test_key_updates_are_answered(served: Daemon, pki: Certificates) -> None:
    """A client that reads is served on, with new keys."""
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    for _ in range(4):
        for _ in range(UPDATES):
            request_key_update(client.tls)
        client.write(b"time")
        client.push()
        assert len(client.until_done(lambda: client.tls.read(ANSWER_BYTES))) == ANSWER_BYTES


@pytest.mark.parametrize("between", [b"", b"junk"])
def test_key_updates_of_a_client_that_reads_nothing_are_bounded(
    served: Daemon, pki: Certificates, between: bytes
) -> None:
    """The session ends as with any client that does not read, also among invalid commands."""
    plain = served.connect_with_small_buffers()
    client = TlsClient(plain.socket, pki.context()).do_handshake()
    client.push()
    handler = until(lambda: served.handlers, "the handler")[0]
    before = peak = memory_of(handler)["Rss"]
    with contextlib.suppress(ConnectionError, FileNotFoundError, ProcessLookupError):
        for _ in range(ROUNDS):
            for _ in range(UPDATES):
                request_key_update(client.tls)
                if between:
                    client.write(between)
            client.push()
            peak = max(peak, memory_of(handler)["Rss"])
    assert peak - before < GROWTH_KIB
    assert served.wait_for("client.disconnected", client=plain.name)["reason"] == "send_timeout"
