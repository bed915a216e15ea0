"""Sessions with TLS: commands, echo, ends of both sides, and deadlines."""

from __future__ import annotations

import os
import re
import signal
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import needs_openssl
from tests.support.clients import ANSWER, ANSWER_BYTES, Client
from tests.support.processes import until
from tests.support.tls_clients import TlsClient, secured, session_end

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl

MEGABYTE = 1 << 20
ECHO = 1
"""The listener with the service echo."""


def flood(client: Client, data: bytes) -> None:
    """Send it again and again, until the connection ends."""
    while True:
        client.send(data)


@pytest.fixture
def served(shared_daemon: MakeDaemon, pki: Certificates) -> Daemon:
    """Return a daemon that answers commands, echoes, and answers at a Unix socket, all with TLS."""
    return shared_daemon(
        listen=[
            pki.tls(),
            pki.tls() | {"service": "echo"},
            {"address": "unix:t.sock", "tls": pki.tls()["tls"]},
        ]
    )


@pytest.mark.quick
def test_a_tls_client_is_served(served: Daemon, pki: Certificates) -> None:
    """Commands, also pipelined, are answered through TLS 1.3, and close_notify ends it."""
    client = secured(served, pki.context())
    assert isinstance(client.socket, ssl.SSLSocket)
    assert client.socket.version() == "TLSv1.3"
    assert ANSWER.fullmatch(client.ask())
    client.send(b"timetimehelp")
    assert len(client.read(2 * ANSWER_BYTES)) == 2 * ANSWER_BYTES
    served.wait_for("client.invalid")
    client.send(b"quit")
    assert client.read_all() == b"quit"
    client.close()
    line = session_end(served, reason="quit")
    assert (line["commands"], line["bytes_in"], line["bytes_out"]) == (4, 20, 61)
    assert [one["event"] for one in served.events(connection=line["connection"])] == [
        "client.connected",
        *["client.command"] * 3,
        "client.invalid",
        "client.command",
        "client.disconnected",
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_tls_versions_are_accepted(
    served: Daemon, pki: Certificates, version: ssl.TLSVersion
) -> None:
    """TLS 1.2 and 1.3."""
    context = pki.context()
    context.minimum_version = context.maximum_version = version
    assert secured(served, context).quit() == b"quit"


def test_no_session_is_resumed(served: Daemon, pki: Certificates) -> None:
    """Neither by a ticket nor by a session id."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = pki.context()
        context.maximum_version = version
        first = secured(served, context)
        assert first.ask()
        assert isinstance(first.socket, ssl.SSLSocket)
        session = first.socket.session
        assert session is None or not session.has_ticket
        second = context.wrap_socket(
            served.connect().socket, server_hostname="127.0.0.1", session=session
        )
        assert not second.session_reused
        second.close()


@pytest.mark.parametrize("handlers", [{"spare": 2}, {"clients_each": 10}])
def test_spare_and_reusable_handlers_serve_tls_clients(
    daemon: MakeDaemon, pki: Certificates, handlers: dict[str, int]
) -> None:
    """One after another, with and without TLS, each logged with its own subject."""
    served = daemon(listen=[pki.mutual(), {"port": 0}], handlers=handlers)
    for pair in (pki.monitor, pki.other, pki.monitor):
        client = secured(served, pki.context(pair))
        assert ANSWER.fullmatch(client.ask())
        assert client.quit() == b"quit"
        assert served.connect(1).quit() == b"quit"
    lines = [served.wait_for("client.disconnected", count=n + 1) for n in range(6)]
    subjects = sorted(str(line.get("subject")) for line in lines)
    assert subjects == ["CN=monitor,O=tetrad"] * 2 + ["CN=other,O=tetrad"] + ["None"] * 3


def test_a_reusable_handler_leaks_no_descriptors(daemon: MakeDaemon, pki: Certificates) -> None:
    """After five clients it has as many as after the first."""
    served = daemon(listen=[pki.tls()], handlers={"clients_each": 100})
    counts = []
    for _ in range(5):  # a handler that idles for ten seconds would exit
        assert secured(served, pki.context()).quit() == b"quit"
        until(lambda: served.status()["handlers"]["idle"] == 1, "a waiting handler")
        counts.append(len(os.listdir(f"/proc/{served.handlers[0]}/fd")))
    assert len(set(counts)) == 1


def test_a_large_echo_in_both_directions_at_once(served: Daemon, pki: Certificates) -> None:
    """More than any buffer holds comes back complete and in order."""
    client = TlsClient(served.connect(ECHO).socket, pki.context()).do_handshake()
    text = b"".join(b"%07d\n" % number for number in range(4 * MEGABYTE // 8))
    assert client.exchange(text) == text


def test_a_half_closed_client_gets_its_answers(served: Daemon, pki: Certificates) -> None:
    """close_notify ends the input, and nothing else; the server answers with its own."""
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"timetime")
    client.send_close_notify()
    assert re.fullmatch(ANSWER.pattern * 2, client.read_all())
    assert session_end(served)["reason"] == "eof"


def test_a_close_notify_between_commands_ends_the_session(
    served: Daemon, pki: Certificates
) -> None:
    """At once, although the connection stays open."""
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"time")
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.send_close_notify()
    assert client.read_all() == b""
    assert session_end(served)["reason"] == "eof"


def test_a_command_may_arrive_with_the_end_of_the_handshake(
    served: Daemon, pki: Certificates
) -> None:
    """In one piece."""
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"timequit")
    client.push()
    assert re.fullmatch(ANSWER.pattern + b"quit", client.read_all())
    client.plain.close()
    assert session_end(served)["bytes_in"] == 8


def test_a_connection_that_ends_without_close_notify(served: Daemon, pki: Certificates) -> None:
    """Closed or reset, it ends the session, as without TLS."""
    client = secured(served, pki.context())
    assert client.ask()
    client.socket.close()
    assert session_end(served)["reason"] in {"eof", "reset"}
    client = secured(served, pki.context())
    assert client.ask()
    client.reset()
    assert served.wait_for("client.disconnected", count=2)["reason"] == "reset"


def test_the_other_deadlines_hold(daemon: MakeDaemon, pki: Certificates) -> None:
    """Of an idle client, and of one that does not read."""
    session = {"idle_timeout": "1s", "send_timeout": "300ms"}
    served = daemon(listen=[pki.tls()], session=session)
    idle = secured(served, pki.context())
    assert idle.ask()
    deaf = secured(served, pki.context(), plain=served.connect_with_small_buffers())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        flood(deaf, b"time" * 10000)
    assert session_end(served, client=deaf.name)["reason"] == "send_timeout"
    assert idle.read_all() == b""
    assert session_end(served, client=idle.name)["reason"] == "idle_timeout"


def test_a_stop_ends_tls_sessions(daemon: MakeDaemon, pki: Certificates) -> None:
    """An idle one, which gets a close_notify, and one in the middle of its handshake."""
    served = daemon(listen=[pki.tls()])
    idle, half_open = secured(served, pki.context()), served.connect()
    assert idle.ask()
    half_open.send_and_wait(b"\x16\x03\x01\x02\x00")
    served.signal(signal.SIGTERM)
    assert idle.read_all() == b""
    assert served.is_gone()
    assert len(served.events("client.disconnected", reason="stopping")) == 2


def test_a_unix_socket_can_have_tls(served: Daemon, pki: Certificates) -> None:
    """As a TCP socket."""
    assert secured(served, pki.context(), plain=served.connect_to_path("t.sock")).ask()
