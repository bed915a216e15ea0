"""Certificates that clients and servers send, and which of them are accepted."""

from __future__ import annotations

import re
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import PROGRAM, needs_openssl
from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.proxy_headers import TCP4, version_2
from tests.support.tls_clients import handshake_error, secured, session_end

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl

SUBJECTS, PROXY, CHAIN, BUNDLE = 1, 2, 3, 4
"""Listeners by what they test. The first one requires certificates of its clients."""


@pytest.fixture
def listeners(pki: Certificates) -> list[dict[str, Any]]:
    """Return listeners that differ in the certificates they send and accept."""
    return [
        pki.mutual(),
        pki.mutual(subjects=["CN=monitor,*", "*,O=friends"]),
        pki.mutual() | {"proxy": {"trusted": ["127.0.0.1"]}},
        {"port": 0, "tls": {"certificate": pki.chain}},
        pki.tls(client_ca=pki.bundle),
    ]


@pytest.fixture
def served(shared_daemon: MakeDaemon, listeners: list[dict[str, Any]]) -> Daemon:
    """Return a daemon with these listeners."""
    return shared_daemon(listen=listeners)


def test_client_ca_requires_a_certificate(served: Daemon, pki: Certificates) -> None:
    """A client with one is served, and its log lines have the subject."""
    client = secured(served, pki.context(pki.monitor))
    assert ANSWER.fullmatch(client.ask())
    assert client.quit() == b"quit"
    line = session_end(served)
    lines = served.events(connection=line["connection"])
    assert [one.get("subject") for one in lines] == [None] + ["CN=monitor,O=tetrad"] * 3


CLOCK = "the clock of this host says 20"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (None, "the client sent no certificate"),
        ("forged", "client certificate rejected: unable to get local issuer certificate"),
        ("expired", f"client certificate rejected: certificate has expired ({CLOCK}"),
        ("server", "client certificate rejected: unsuitable certificate purpose"),
    ],
)
def test_any_other_client_certificate_is_rejected(
    served: Daemon, pki: Certificates, name: str | None, error: str
) -> None:
    """None, of another CA, expired, or a server's: the log has the reason."""
    context = pki.context(None if name is None else getattr(pki, name))
    client = served.connect()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured(served, context, plain=client).ask()
    assert handshake_error(served, client).startswith(error)


def test_subjects_select_among_verified_clients(served: Daemon, pki: Certificates) -> None:
    """One pattern has to match; other clients are disconnected with the reason access."""
    assert secured(served, pki.context(pki.monitor), SUBJECTS).quit() == b"quit"
    client = secured(served, pki.context(pki.other), SUBJECTS)
    client.send(b"time")
    assert client.is_refused()
    line = session_end(served, client=client.name)
    assert (line["reason"], line["subject"], line["commands"]) == (
        "access",
        "CN=other,O=tetrad",
        0,
    )


def test_a_proxy_header_comes_before_the_handshake(served: Daemon, pki: Certificates) -> None:
    """Unencrypted; the handshake is between the client and the daemon."""
    client = served.connect(PROXY)
    client.send(version_2(TCP4))
    client = secured(served, pki.context(pki.monitor), plain=client)
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.command")
    assert (line["client"], line["subject"]) == ("203.0.113.7:38276", "CN=monitor,O=tetrad")


def test_openssl_s_client_is_served(served: Daemon, pki: Certificates) -> None:
    """It verifies the chain and sends a client certificate."""
    where = ("-connect", f"127.0.0.1:{served.port}", "-CAfile", pki.ca.certificate)
    ours = ("-cert", pki.monitor.certificate, "-key", pki.monitor.key)
    done = subprocess.run(
        [PROGRAM, "s_client", "-quiet", "-verify_return_error", *where, *ours],
        input=b"timequit",
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert re.fullmatch(ANSWER.pattern + b"quit", done.stdout), done.stderr
    assert session_end(served)["reason"] == "quit"


def test_intermediate_certificates_are_sent(served: Daemon, pki: Certificates) -> None:
    """A client that trusts the root can verify the server."""
    assert secured(served, pki.context(), CHAIN).quit() == b"quit"


def test_text_between_certificates_is_ignored(served: Daemon, pki: Certificates) -> None:
    """As in the CA bundles of systems, in any encoding."""
    assert secured(served, pki.context(pki.forged), BUNDLE).quit() == b"quit"
    assert secured(served, pki.context(pki.monitor), BUNDLE).quit() == b"quit"
