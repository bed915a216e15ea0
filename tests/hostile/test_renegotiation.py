"""Clients that ask for new handshakes of TLS 1.2, each of which costs the server more than them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.tls_clients import TlsClient

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl


def test_a_client_gets_no_second_handshake(daemon: MakeDaemon, pki: Certificates) -> None:
    """`R` makes openssl ask for one; the session ends, and others go on."""
    served = daemon(listen=[pki.tls()])
    other = TlsClient(served.connect().socket, pki.context()).do_handshake()
    command = ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{served.port}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stderr is not None
        client.stdin.write(b"time\n")
        client.stdin.flush()
        served.wait_for("client.command", command="time")
        client.stdin.write(b"R\n")
        client.stdin.flush()
        assert b"no renegotiation" in client.stderr.read()
        client.wait(TIMEOUT_SECONDS)
    assert served.wait_for("client.disconnected")["reason"] == "tls"
    assert ANSWER.fullmatch(other.exchange(b"time"))
