"""TLS listeners: handshakes, certificates of both sides, and sessions with TLS."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import select
import signal
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import DAY, PROGRAM, Authority, Pair, concatenated, needs_openssl
from tests.support.clients import ANSWER, ANSWER_BYTES, Client
from tests.support.processes import TIMEOUT_SECONDS, until
from tests.support.proxy_headers import TCP4, version_2
from tetrad.handler.tls_socket import TlsSocket
from tetrad.handler.wait import SessionEnded
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.tls.context import server_context
from tetrad.tls.subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

pytestmark = needs_openssl

MEGABYTE = 1 << 20
SUBJECTS = ["CN=monitor,*", "*,O=friends"]


class Certificates:
    """A CA, a server's certificate, certificates of clients, and another CA."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.ca = Authority(os.path.join(folder, "ours"))
        self.other_ca = Authority(os.path.join(folder, "theirs"))
        self.server = self.ca.issue("server")
        self.monitor = self.ca.issue("monitor", "/O=tetrad/CN=monitor", kind="client")
        self.other = self.ca.issue("other", "/O=tetrad/CN=other", kind="client")
        self.forged = self.other_ca.issue("forged", "/O=tetrad/CN=monitor", kind="client")
        self.expired = self.ca.issue(
            "expired client", "/O=tetrad/CN=monitor", kind="client", since=-2 * DAY, until=-DAY
        )

    def tls(self, pair: Pair | None = None, **more: object) -> dict[str, Any]:
        """Return a listener with TLS and these settings."""
        certificate, key = pair or self.server
        return {"port": 0, "tls": {"certificate": certificate, "key": key, **more}}

    def mutual(self, **more: object) -> dict[str, Any]:
        """Return a listener that requires certificates of its clients."""
        return self.tls(None, client_ca=self.ca.certificate, **more)

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return the context of a client, which verifies the server's name."""
        context = ssl.create_default_context(cafile=self.ca.certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Create certificates once for all tests."""
    return Certificates(str(tmp_path_factory.mktemp("pki")))


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
        subjects=[],
    )


def secured(
    daemon: Daemon, context: ssl.SSLContext, listener: int = 0, plain: Client | None = None
) -> Client:
    """Connect, and do the handshake."""
    plain = plain or daemon.connect(listener)
    wrapped = context.wrap_socket(plain.socket, server_hostname="127.0.0.1")
    plain.socket = wrapped
    return plain


def ended(daemon: Daemon, **fields: object) -> Event:
    """Return the log line of a session's end."""
    return daemon.wait_for("client.disconnected", count=1, **fields)


def flood(client: Client, data: bytes) -> None:
    """Send it again and again, until the connection ends."""
    while True:
        client.send(data)


def test_a_tls_client_is_served(daemon: MakeDaemon, pki: Certificates) -> None:
    """Commands, also pipelined, are answered through TLS 1.3, and close_notify ends it."""
    served = daemon(listen=[pki.tls()])
    client = secured(served, pki.context())
    assert isinstance(client.socket, ssl.SSLSocket)
    assert client.socket.version() == "TLSv1.3"
    assert ANSWER.fullmatch(client.ask())
    client.send(b"timetimehelp")
    assert len(client.read(2 * ANSWER_BYTES)) == 2 * ANSWER_BYTES
    served.wait_for("client.invalid")
    client.send(b"quit")
    assert client.read_all() == b"quit"
    line = ended(served, reason="quit")
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
    daemon: MakeDaemon, pki: Certificates, version: ssl.TLSVersion
) -> None:
    """TLS 1.2 and 1.3."""
    served = daemon(listen=[pki.tls()])
    context = pki.context()
    context.minimum_version = context.maximum_version = version
    assert secured(served, context).quit() == b"quit"


def test_no_session_is_resumed(daemon: MakeDaemon, pki: Certificates) -> None:
    """Neither by a ticket nor by a session id."""
    served = daemon(listen=[pki.tls()])
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


class TlsClient:
    """A client whose two directions can be closed one by one, with TLS in memory."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def do_handshake(self) -> TlsClient:
        """Do the handshake; its last record waits in memory."""
        self.until_done(self.tls.do_handshake)
        return self

    def until_done(self, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
        """Do a step of TLS, with as much input as it needs; its last output waits in memory."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.push()
                data = self.plain.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()

    def write(self, data: bytes) -> None:
        """Encrypt data, which is sent with the next push."""
        self.tls.write(data)

    def push(self) -> None:
        """Send what is encrypted."""
        self.plain.sendall(self.outgoing.read())

    def exchange(self, data: bytes) -> bytes:
        """Send data and read as much, at the same time."""
        self.tls.write(data)
        due, answer = memoryview(self.outgoing.read()), b""
        while len(answer) < len(data):
            readable, writable, _ = select.select([self.plain], [self.plain] * bool(due), [], 60)
            assert readable or writable, "neither direction makes progress"
            if writable:
                due = due[self.plain.send(due, socket.MSG_DONTWAIT) :]
            if readable:
                self.receive()
                answer += self.received()
        return answer

    def receive(self) -> None:
        """Receive records, if there are any."""
        with contextlib.suppress(BlockingIOError):
            self.incoming.write(self.plain.recv(65536, socket.MSG_DONTWAIT))

    def received(self) -> bytes:
        """Return the plain text of the records received so far."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data += self.tls.read(65536)
        return data

    def send_close_notify(self) -> None:
        """End the sending direction of TLS, and keep the connection."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.push()

    def read_all(self) -> bytes:
        """Return everything up to the server's close_notify."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := self.until_done(lambda: self.tls.read(65536)):
                data += part
        return data


def test_a_large_echo_in_both_directions_at_once(daemon: MakeDaemon, pki: Certificates) -> None:
    """More than any buffer holds comes back complete and in order."""
    served = daemon(listen=[pki.tls() | {"service": "echo"}])
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    text = b"".join(b"%07d\n" % number for number in range(4 * MEGABYTE // 8))
    assert client.exchange(text) == text


def test_a_half_closed_client_gets_its_answers(daemon: MakeDaemon, pki: Certificates) -> None:
    """close_notify ends the input, and nothing else; the server answers with its own."""
    served = daemon(listen=[pki.tls()])
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"timetime")
    client.send_close_notify()
    assert re.fullmatch(ANSWER.pattern * 2, client.read_all())
    assert ended(served)["reason"] == "eof"


def test_a_close_notify_between_commands_ends_the_session(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """At once, although the connection stays open."""
    served = daemon(listen=[pki.tls()])
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"time")
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.send_close_notify()
    assert client.read_all() == b""
    assert ended(served)["reason"] == "eof"


def test_a_command_may_arrive_with_the_end_of_the_handshake(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """In one piece."""
    served = daemon(listen=[pki.tls()])
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"timequit")
    client.push()
    assert re.fullmatch(ANSWER.pattern + b"quit", client.read_all())
    assert ended(served)["bytes_in"] == 8


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


def test_a_connection_that_ends_without_close_notify(daemon: MakeDaemon, pki: Certificates) -> None:
    """Closed or reset, it ends the session, as without TLS."""
    served = daemon(listen=[pki.tls()])
    client = secured(served, pki.context())
    assert client.ask()
    client.socket.close()
    assert ended(served)["reason"] in {"eof", "reset"}
    client = secured(served, pki.context())
    assert client.ask()
    client.reset()
    assert served.wait_for("client.disconnected", count=2)["reason"] == "reset"


def failure(daemon: Daemon, client: Client) -> str:
    """Return the logged error of a handshake that failed."""
    line = ended(daemon, client=client.name)
    assert (line["reason"], line["commands"], line["bytes_out"]) == ("tls", 0, 0)
    events = [one["event"] for one in daemon.events(connection=line["connection"])]
    assert events == ["client.connected", "client.disconnected"]
    return str(line["error"])


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
    daemon: MakeDaemon, pki: Certificates, data: bytes, error: str
) -> None:
    """Plain text or random bytes; the log distinguishes them."""
    served = daemon(listen=[pki.tls()])
    client = served.connect()
    client.send(data)
    assert client.is_refused() or True
    assert error in failure(served, client)
    assert secured(served, pki.context()).quit() == b"quit"


def test_input_that_is_not_a_record_ends_the_session(daemon: MakeDaemon, pki: Certificates) -> None:
    """With the reason tls."""
    served = daemon(listen=[pki.tls()])
    client = TlsClient(served.connect().socket, pki.context()).do_handshake()
    client.write(b"time")
    client.push()
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.plain.sendall(b"timetimequit" * 10)
    line = ended(served)
    assert (line["reason"], line["commands"]) == ("tls", 1)
    assert line["error"]


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


@pytest.mark.parametrize(("data", "reason"), [(b"", "eof"), (b"\x16\x03\x01\x02\x00\x01", "tls")])
def test_a_client_that_disconnects_before_the_end_of_the_handshake(
    daemon: MakeDaemon, pki: Certificates, data: bytes, reason: str
) -> None:
    """In the middle of its ClientHello that is an error, before it an EOF."""
    served = daemon(listen=[pki.tls()])
    client = served.connect()
    client.send_and_wait(data)
    client.half_close()
    line = ended(served)
    assert (line["reason"], client.read_all()) == (reason, b"")
    error = None if reason == "eof" else "the client disconnected during the handshake"
    assert line.get("error") == error


def test_the_first_command_timeout_includes_the_handshake(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """For a client that stops in the middle of it, or sends nothing after it."""
    served = daemon(listen=[pki.tls()], session={"first_command_timeout": "500ms"})
    client = served.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01")
    assert client.is_refused()
    line = ended(served)
    assert line["reason"] == "first_command_timeout"
    assert 0.5 <= line["duration"] < 10
    silent = secured(served, pki.context())
    assert silent.read_all() == b""
    line = served.wait_for("client.disconnected", count=2)
    assert line["reason"] == "first_command_timeout"
    assert 0.5 <= line["duration"] < 10


def test_the_other_deadlines_hold(daemon: MakeDaemon, pki: Certificates) -> None:
    """Of an idle client, and of one that does not read."""
    session = {"idle_timeout": "300ms", "send_timeout": "300ms"}
    served = daemon(listen=[pki.tls()], session=session)
    client = secured(served, pki.context())
    assert client.ask()
    assert client.read_all() == b""
    assert ended(served)["reason"] == "idle_timeout"
    client = secured(served, pki.context(), plain=served.connect_with_small_buffers())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        flood(client, b"time" * 10000)
    assert served.wait_for("client.disconnected", count=2)["reason"] == "send_timeout"


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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_versions_are_rejected(
    daemon: MakeDaemon, pki: Certificates, version: ssl.TLSVersion
) -> None:
    """TLS 1.0 and 1.1."""
    served = daemon(listen=[pki.tls()])
    context = pki.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    client = served.connect()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        secured(served, context, plain=client)
    assert failure(served, client) == "unsupported protocol: the client's TLS version is too old"


def test_minimum_version_rejects_older_ones(daemon: MakeDaemon, pki: Certificates) -> None:
    """1.3 is a number in YAML."""
    served = daemon(listen=[pki.tls(minimum_version=1.3)])
    context = pki.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = served.connect()
    with pytest.raises(ssl.SSLError):
        secured(served, context, plain=client)
    assert failure(served, client) == "unsupported protocol: the client's TLS version is too old"
    assert secured(served, pki.context()).quit() == b"quit"


def test_a_client_that_does_not_trust_the_ca_is_logged(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """Its alert has a text in the log."""
    served = daemon(listen=[pki.tls()])
    context = ssl.create_default_context(cafile=pki.other_ca.certificate)
    client = served.connect()
    with pytest.raises(ssl.SSLCertVerificationError):
        secured(served, context, plain=client)
    client.close()
    error = "the client rejected the server certificate (TLS alert unknown_ca)"
    assert failure(served, client) == error


def test_client_ca_requires_a_certificate(daemon: MakeDaemon, pki: Certificates) -> None:
    """A client with one is served, and its log lines have the subject."""
    served = daemon(listen=[pki.mutual()])
    client = secured(served, pki.context(pki.monitor))
    assert ANSWER.fullmatch(client.ask())
    assert client.quit() == b"quit"
    line = ended(served)
    lines = served.events(connection=line["connection"])
    assert [one.get("subject") for one in lines] == [None] + ["CN=monitor,O=tetrad"] * 3


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (None, "the client sent no certificate"),
        ("forged", "client certificate rejected: unable to get local issuer certificate"),
        ("expired", "client certificate rejected: certificate has expired"),
        ("server", "client certificate rejected: unsuitable certificate purpose"),
    ],
)
def test_any_other_client_certificate_is_rejected(
    daemon: MakeDaemon, pki: Certificates, name: str | None, error: str
) -> None:
    """None, of another CA, expired, or a server's: the log has the reason."""
    served = daemon(listen=[pki.mutual()])
    context = pki.context(None if name is None else getattr(pki, name))
    client = served.connect()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured(served, context, plain=client).ask()
    assert failure(served, client) == error


def test_subjects_select_among_verified_clients(daemon: MakeDaemon, pki: Certificates) -> None:
    """One pattern has to match; other clients are disconnected with the reason access."""
    served = daemon(listen=[pki.mutual(subjects=SUBJECTS)])
    assert secured(served, pki.context(pki.monitor)).quit() == b"quit"
    client = secured(served, pki.context(pki.other))
    client.send(b"time")
    assert client.is_refused()
    line = ended(served, client=client.name)
    assert (line["reason"], line["subject"], line["commands"]) == (
        "access",
        "CN=other,O=tetrad",
        0,
    )


def test_a_proxy_header_comes_before_the_handshake(daemon: MakeDaemon, pki: Certificates) -> None:
    """Unencrypted; the handshake is between the client and the daemon."""
    served = daemon(listen=[pki.mutual() | {"proxy": {"trusted": ["127.0.0.1"]}}])
    client = served.connect()
    client.send(version_2(TCP4))
    client = secured(served, pki.context(pki.monitor), plain=client)
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.command")
    assert (line["client"], line["subject"]) == ("203.0.113.7:38276", "CN=monitor,O=tetrad")


def test_a_unix_socket_can_have_tls(daemon: MakeDaemon, pki: Certificates) -> None:
    """As a TCP socket."""
    served = daemon(listen=[{"address": "unix:t.sock", "tls": pki.tls()["tls"]}])
    assert secured(served, pki.context(), plain=served.connect_to_path("t.sock")).ask()


def test_openssl_s_client_is_served(daemon: MakeDaemon, pki: Certificates) -> None:
    """It verifies the chain and sends a client certificate."""
    served = daemon(listen=[pki.mutual()])
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
    assert ended(served)["reason"] == "quit"


def test_intermediate_certificates_are_sent(daemon: MakeDaemon, pki: Certificates) -> None:
    """A client that trusts the root can verify the server."""
    middle = Authority(os.path.join(pki.folder, "middle"), "in the middle", pki.ca)
    leaf = middle.issue("leaf")
    chain = concatenated(
        os.path.join(pki.folder, "chain.pem"), leaf.certificate, middle.certificate
    )
    both = concatenated(os.path.join(pki.folder, "both.pem"), leaf.key, chain)
    served = daemon(listen=[{"port": 0, "tls": {"certificate": both}}])
    assert secured(served, pki.context()).quit() == b"quit"


def test_text_between_certificates_is_ignored(daemon: MakeDaemon, pki: Certificates) -> None:
    """As in the CA bundles of systems, in any encoding."""
    bundle = os.path.join(pki.folder, "bundle.pem")
    with open(bundle, "wb") as file:
        for one in (pki.other_ca, pki.ca):
            text = pathlib.Path(one.certificate).read_bytes()
            file.write("# Főtanúsítvány\n".encode() + b"\xff\n" + text)
    served = daemon(listen=[pki.tls(client_ca=bundle)])
    assert secured(served, pki.context(pki.forged)).quit() == b"quit"
    assert secured(served, pki.context(pki.monitor)).quit() == b"quit"


def talk(daemon: Daemon, *options: str, words: tuple[str, ...] = ("quit",)) -> Any:  # noqa: ANN401
    """Run `tetrad client`."""
    return daemon.tetrad("client", "--port", str(daemon.port), *options, *words)


def test_tetrad_client_with_tls(daemon: MakeDaemon, pki: Certificates) -> None:
    """With a CA, with a certificate, and without verification; its errors have hints."""
    served = daemon(listen=[pki.mutual()])
    shown = ("--cert", pki.monitor.certificate, "--key", pki.monitor.key)
    good = ("--tls", "--ca", pki.ca.certificate)
    assert talk(served, *good, *shown).out == "quit\n"
    assert "(command, tls)\n" in served.tetrad("status").out
    assert talk(served, "--insecure", *shown, words=("time", "quit")).out.endswith("\nquit\n")
    ran = talk(served, *good)
    assert (ran.status, ran.out) == (1, "")
    assert "the server requires a certificate (use --cert)" in ran.err
    ran = talk(served, "--tls", "--ca", pki.other_ca.certificate, *shown)
    assert ran.status == 1
    assert (
        "server certificate rejected: self-signed certificate in certificate chain (use --ca)\n"
        in ran.err
    )
    ran = talk(served, *good, "--cert", "/nowhere")
    assert (ran.status, "/nowhere: no such file" in ran.err) == (1, True)
    ran = talk(served, *good, "--cert", pki.monitor.certificate, "--key", pki.other.key)
    assert "the key does not match the certificate" in ran.err


def test_tetrad_client_with_tls_and_a_server_without(daemon: MakeDaemon) -> None:
    """It fails with one line, and prints no answer."""
    ran = talk(daemon(session={"first_command_timeout": "300ms"}), "--tls")
    assert (ran.status, ran.out) == (1, "")
    assert "Traceback" not in ran.err


BAD: dict[str, tuple[str, str]] = {
    "absent": ("certificate", "no such file or directory"),
    "empty": ("certificate", "no certificate in PEM format in this file"),
    "damaged": ("certificate", "a certificate in this file cannot be parsed"),
    "expired": ("certificate", "the certificate expired on 20"),
    "early": ("certificate", "the certificate is not valid before 20"),
    "a client's": ("certificate", "server certificate rejected: unsuitable certificate purpose"),
    "broken chain": ("certificate", "server certificate rejected: unable to get"),
    "no key": ("key", "no private key in PEM format in this file"),
    "damaged key": ("key", "the private key cannot be parsed"),
    "another's key": ("key", "the key does not match the certificate"),
    "secret key": ("key", "the private key is encrypted; remove its passphrase (openssl pkey "),
    "no authority": ("client_ca", "no certificate in PEM format in this file"),
}


def bad_settings(pki: Certificates, folder: str, what: str) -> dict[str, Any]:
    """Return `tls` settings with one mistake."""
    file = os.path.join(folder, "bad.pem")
    good: dict[str, Any] = pki.tls()["tls"]
    with open(file, "w", encoding="ascii") as stream:
        if what.startswith("damaged"):
            kind = "PRIVATE KEY" if "key" in what else "CERTIFICATE"
            stream.write(f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
    if what == "absent":
        os.unlink(file)
    elif what == "expired":
        return good | pki.ca.issue("expired", since=-9 * DAY, until=-DAY)._asdict()
    elif what == "early":
        return good | pki.ca.issue("early", since=DAY)._asdict()
    elif what == "a client's":
        return good | pki.monitor._asdict()
    elif what == "broken chain":
        concatenated(file, pki.server.certificate, pki.other_ca.certificate)
    elif what == "another's key":
        return good | {"key": pki.other.key}
    elif what == "secret key":
        command = (PROGRAM, "pkey", "-aes128", "-passout", "pass:abcd", "-out", file)
        subprocess.run([*command, "-in", pki.server.key], check=True, timeout=60)
    return good | {BAD[what][0]: file}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_certificate_is_reported_with_its_place(
    prepared: MakeDaemon,
    pki: Certificates,
    tmp_path: pathlib.Path,
    what: str,
) -> None:
    """By check, start and restart, which start nothing then."""
    settings = bad_settings(pki, str(tmp_path), what)
    daemon = prepared(listen=[{"port": 0, "tls": settings}])
    key, message = BAD[what]
    with open(daemon.file, encoding="utf-8") as file:
        text = file.read().splitlines()
    line = next(n for n, one in enumerate(text, 1) if one.strip().startswith(f"{key}:"))
    column = text[line - 1].index(": ") + 3
    for command in ("check", "start", "restart"):
        ran = daemon.tetrad(command)
        assert ran.status == 78
        place = f"tetrad: {daemon.file}:{line}:{column}: listen[0].tls.{key}: {settings[key]}: "
        assert ran.err.startswith(place)
        assert message in ran.err
        assert ran.err.count("\n") == 1


def test_mistakes_in_tls_keys_are_reported(prepared: MakeDaemon) -> None:
    """As in any other section."""
    listen = [
        {"port": 1, "tls": {"key": "x"}},
        {"port": 2, "tls": {"certificate": "x", "subjects": ["CN=x"]}},
        {"port": 3, "tls": {"certificate": "x", "minimum_version": 1.1}},
    ]
    ran = prepared(listen=listen).tetrad("check")
    assert ran.status == 78
    assert "listen[0].tls.certificate: this key is required" in ran.err
    assert (
        "listen[1].tls.subjects: needs client_ca: without it, clients send no certificate"
        in ran.err
    )
    assert "listen[2].tls.minimum_version: expected 1.2 or 1.3" in ran.err


def test_a_certificate_that_expires_soon_is_reported(
    prepared: MakeDaemon, pki: Certificates
) -> None:
    """On standard error and in the log; it is no error."""
    soon = pki.ca.issue("soon", until=20.5 * DAY)
    daemon = prepared(listen=[pki.tls(soon)])
    ran = daemon.tetrad("check")
    assert ran.status == 0
    assert f"tetrad: warning: {soon.certificate}: the certificate expires on 20" in ran.err
    daemon.start()
    line = daemon.wait_for("certificate.expires", level="warning")
    assert (line["certificate"], line["days"]) == (soon.certificate, 20)


def test_a_reload_reads_certificates_again(
    daemon: MakeDaemon, pki: Certificates, tmp_path: pathlib.Path
) -> None:
    """New sessions get the new one, others go on, and a bad one changes nothing."""
    files = Pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    renew(files, pki.server)
    served = daemon(listen=[pki.tls(files)])
    old = secured(served, pki.context())
    assert old.ask()
    assert "nothing changed" in served.tetrad("reload").out
    renew(files, pki.ca.issue("renewed", until=99 * DAY))
    assert "listen[0].tls.certificate: " in served.tetrad("reload").out
    new = secured(served, pki.context())
    assert serial_of(new) != serial_of(old)
    renew(files, Pair(pki.server.certificate, pki.other.key))
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert "the key does not match the certificate" in ran.err
    assert serial_of(secured(served, pki.context())) == serial_of(new)
    assert old.ask()


def renew(files: Pair, pair: Pair) -> None:
    """Replace a certificate and a key."""
    for file, text in zip(files, pair, strict=True):
        concatenated(file, text)


def serial_of(client: Client) -> str:
    """Return the serial number of the server's certificate."""
    assert isinstance(client.socket, ssl.SSLSocket)
    return str((client.socket.getpeercert() or {})["serialNumber"])


def test_a_reload_switches_tls_on_and_off(daemon: MakeDaemon, pki: Certificates) -> None:
    """In a master that started without."""
    served = daemon()
    served.configure(listen=[pki.tls()])
    assert "listen[0].tls" in served.tetrad("reload").out
    assert secured(served, pki.context()).quit() == b"quit"
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").status == 0
    assert served.served().quit() == b"quit"


def test_a_key_that_only_root_can_read_works_until_a_reload(
    prepared: MakeDaemon, pki: Certificates, nobodys_folder: str
) -> None:
    """It is read before the change of user; the reload fails, and the old key stays in use."""
    key = os.path.join(nobodys_folder, "key.pem")
    certificate = concatenated(os.path.join(nobodys_folder, "cert.pem"), pki.server.certificate)
    concatenated(key, pki.server.key)
    os.chmod(key, 0o600)
    settings = pki.tls(Pair(certificate, key))
    served = prepared(folder=nobodys_folder, listen=[settings], daemon={"user": "nobody"})
    served.start()
    assert secured(served, pki.context()).quit() == b"quit"
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert f"listen[0].tls.key: {key}: permission denied" in ran.err
    assert secured(served, pki.context()).quit() == b"quit"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], ""),
        (
            [("countryName", "KR"), ("organizationName", "a, b"), ("commonName", "x")],
            r"CN=x,O=a\, b,C=KR",
        ),
        ([("commonName", '"+,;<>\\')], r"CN=\"\+\,\;\<\>\\"),
        ([("commonName", "#1 ")], "CN=\\#1\\ "),
        ([("commonName", " x")], "CN=\\ x"),
        ([("commonName", " ")], "CN=\\ "),
        ([("commonName", "é\n\0")], r"CN=é\0A\00"),
        ([("emailAddress", "a@b")], "emailAddress=a@b"),
    ],
)
def test_a_subject_is_formatted_as_in_rfc_4514(parts: list[tuple[str, str]], text: str) -> None:
    """No value can pass for another part, or for another line."""
    assert subject_of({"subject": tuple((part,) for part in parts)}) == text


def test_a_part_of_a_subject_may_have_two_values() -> None:
    """They are joined by a plus sign."""
    part = (("commonName", "x"), ("userId", "y"))
    assert subject_of({"subject": (part,)}) == "CN=x+UID=y"
