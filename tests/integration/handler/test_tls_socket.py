"""The TLS socket of a handler, with a client in the same process."""

from __future__ import annotations

import contextlib
import pathlib
import random
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Pair, needs_openssl
from tests.support.tls_clients import TlsClient
from tetrad.handler.tls_socket import TlsSocket
from tetrad.handler.wait import SessionEnded
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.tls.context import server_context

if TYPE_CHECKING:
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl


def config_of(pair: Pair) -> TlsConfig:
    """Return the runtime configuration of a listener's TLS."""
    certificate, key = (pathlib.Path(file).read_text("ascii") for file in pair)
    return TlsConfig(
        file=pair.certificate,
        certificate=certificate,
        key=key,
        expires=0.0,
        client_ca=None,
        minimum_version="1.2",
        client_crl=None,
        subjects=[],
    )


def test_a_sent_record_is_sent_completely(pki: Certificates) -> None:
    """While there is no room it counts as not sent; then nothing of it is left in memory."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server, client = (
            TlsSocket(ours, server_context(config_of(pki.server))),
            TlsClient(theirs, pki.context()),
        )
        while not server.do_handshake():
            server.flush()
            with contextlib.suppress(ssl.SSLWantReadError):
                client.receive()
                client.tls.do_handshake()
            client.push()
            server.receive()
        data, received, blocked = bytes(range(256)) * 400, b"", 0
        left = data
        while left:
            try:
                left = left[server.send(left, 0) :]
            except BlockingIOError:
                blocked += 1
                client.receive()
                received += client.received()
        while len(received) < len(data):
            client.receive()
            received += client.received()
        assert (received, blocked > 0) == (data, True)


def hello_of(context: ssl.SSLContext) -> bytes:
    """Return the ClientHello of a client."""
    output = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), output).do_handshake()
    return output.read()


def test_a_damaged_client_hello_is_an_error_or_incomplete(pki: Certificates) -> None:
    """Nothing else is raised."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    hello, dice = hello_of(context), random.Random(4)  # noqa: S311 - not for secrets
    server = server_context(config_of(pki.server))
    for _ in range(500):
        damaged = bytearray(hello)
        for _ in range(dice.randrange(1, 5)):
            damaged[dice.randrange(len(hello))] = dice.randrange(256)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(damaged[: dice.choice((len(hello), dice.randrange(1, len(hello))))])
            theirs.shutdown(socket.SHUT_WR)
            encrypted = TlsSocket(ours, server)
            with contextlib.suppress(SessionEnded):
                while encrypted.receive():
                    assert not encrypted.do_handshake()
