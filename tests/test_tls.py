"""Encrypted listeners: handshakes good and bad, certificates good and bad, sessions behind them."""

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

from certificates import DAY, PROGRAM, Authority, Pair, concatenated, needs_openssl
from clients import ANSWER, ANSWER_BYTES, Client
from processes import TIMEOUT_SECONDS, until
from proxy_headers import TCP4, version_2
from tetrad.handler.tls_socket import TlsSocket
from tetrad.handler.wait import SessionEnded
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.tls.context import server_context
from tetrad.tls.subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import MakeDaemon
    from daemons import Daemon, Event

pytestmark = needs_openssl

MEGABYTE = 1 << 20
SUBJECTS = ["CN=monitor,*", "*,O=friends"]


class Town:
    """An authority, a server's certificate, some clients' ones, and another authority."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.authority = Authority(os.path.join(folder, "ours"))
        self.stranger = Authority(os.path.join(folder, "theirs"))
        self.server = self.authority.issue("server")
        self.monitor = self.authority.issue("monitor", "/O=tetrad/CN=monitor", kind="client")
        self.other = self.authority.issue("other", "/O=tetrad/CN=other", kind="client")
        self.forged = self.stranger.issue("forged", "/O=tetrad/CN=monitor", kind="client")
        self.late = self.authority.issue(
            "late", "/O=tetrad/CN=monitor", kind="client", since=-2 * DAY, until=-DAY
        )

    def tls(self, pair: Pair | None = None, **more: object) -> dict[str, Any]:
        """Return a listener with these settings of TLS."""
        certificate, key = pair or self.server
        return {"port": 0, "tls": {"certificate": certificate, "key": key, **more}}

    def mutual(self, **more: object) -> dict[str, Any]:
        """Return a listener whose clients need certificates."""
        return self.tls(None, client_ca=self.authority.certificate, **more)

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return what a client encrypts with, which insists on the server's name."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """Make certificates once for all tests."""
    return Town(str(tmp_path_factory.mktemp("town")))


def plan_of(pair: Pair) -> TlsConfig:
    """Return the plan of a listener with a certificate."""
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
    """Connect, and shake hands."""
    plain = plain or daemon.connect(listener)
    wrapped = context.wrap_socket(plain.socket, server_hostname="127.0.0.1")
    plain.socket = wrapped
    return plain


def ended(daemon: Daemon, **fields: object) -> Event:
    """Return the line of a session's end."""
    return daemon.wait_for("client.disconnected", count=1, **fields)


def flood(client: Client, data: bytes) -> None:
    """Send it again and again, until the server has had enough."""
    while True:
        client.send(data)


def test_a_client_is_served_in_secret(daemon: MakeDaemon, town: Town) -> None:
    """Commands, pipelined too, are answered through TLS 1.3, and its end is polite."""
    served = daemon(listen=[town.tls()])
    client = secured(served, town.context())
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
def test_both_versions_are_spoken(daemon: MakeDaemon, town: Town, version: ssl.TLSVersion) -> None:
    """What is said with the last of the handshake is heard."""
    served = daemon(listen=[town.tls()])
    context = town.context()
    context.minimum_version = context.maximum_version = version
    assert secured(served, context).quit() == b"quit"


def test_no_session_is_taken_up_again(daemon: MakeDaemon, town: Town) -> None:
    """Neither a ticket nor a session's name is worth anything to another handler."""
    served = daemon(listen=[town.tls()])
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = town.context()
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
def test_handlers_that_wait_serve_encrypted_clients(
    daemon: MakeDaemon, town: Town, handlers: dict[str, int]
) -> None:
    """One after another, encrypted and not, each with its own subject and none but it."""
    served = daemon(listen=[town.mutual(), {"port": 0}], handlers=handlers)
    for pair in (town.monitor, town.other, town.monitor):
        client = secured(served, town.context(pair))
        assert ANSWER.fullmatch(client.ask())
        assert client.quit() == b"quit"
        assert served.connect(1).quit() == b"quit"
    lines = [served.wait_for("client.disconnected", count=n + 1) for n in range(6)]
    subjects = sorted(str(line.get("subject")) for line in lines)
    assert subjects == ["CN=monitor,O=tetrad"] * 2 + ["CN=other,O=tetrad"] + ["None"] * 3


def test_a_handler_keeps_nothing_open_of_clients_that_left(daemon: MakeDaemon, town: Town) -> None:
    """After twenty of them, it has what it had after the first."""
    served = daemon(listen=[town.tls()], handlers={"clients_each": 100})
    counts = []
    for _ in range(20):
        assert secured(served, town.context()).quit() == b"quit"
        until(lambda: served.status()["handlers"]["idle"] == 1, "a handler that waits")
        counts.append(len(os.listdir(f"/proc/{served.handlers[0]}/fd")))
    assert len(set(counts)) == 1


class Halves:
    """A client of which the two directions can be closed one by one."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self.arriving, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arriving, self.leaving, server_hostname="127.0.0.1")

    def shake_hands(self) -> Halves:
        """Do it, but for the last that is said."""
        self.until_done(self.tls.do_handshake)
        return self

    def until_done(self, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
        """Take a step of TLS, with as much of the other side's as it needs; what it says waits."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.push()
                data = self.plain.recv(65536)
                if data:
                    self.arriving.write(data)
                else:
                    self.arriving.write_eof()

    def write(self, data: bytes) -> None:
        """Say something, which goes with what is said next."""
        self.tls.write(data)

    def push(self) -> None:
        """Send what is due."""
        self.plain.sendall(self.leaving.read())

    def exchange(self, data: bytes) -> bytes:
        """Send it, and read as much, at the same time."""
        self.tls.write(data)
        due, answer = memoryview(self.leaving.read()), b""
        while len(answer) < len(data):
            readable, writable, _ = select.select([self.plain], [self.plain] * bool(due), [], 60)
            assert readable or writable, "nothing moves any more"
            if writable:
                due = due[self.plain.send(due, socket.MSG_DONTWAIT) :]
            if readable:
                self.take_in()
                answer += self.heard()
        return answer

    def take_in(self) -> None:
        """Take in what has come, if something has."""
        with contextlib.suppress(BlockingIOError):
            self.arriving.write(self.plain.recv(65536, socket.MSG_DONTWAIT))

    def heard(self) -> bytes:
        """Return what has been taken in."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data += self.tls.read(65536)
        return data

    def say_goodbye(self) -> None:
        """Say that nothing more will be said, and go on listening."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.push()

    def read_all(self) -> bytes:
        """Return everything up to the server's own goodbye."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := self.until_done(lambda: self.tls.read(65536)):
                data += part
        return data


def test_much_is_echoed_both_ways_at_once(daemon: MakeDaemon, town: Town) -> None:
    """More than any buffer holds comes back whole and in order."""
    served = daemon(listen=[town.tls() | {"service": "echo"}])
    client = Halves(served.connect().socket, town.context()).shake_hands()
    text = b"".join(b"%07d\n" % number for number in range(4 * MEGABYTE // 8))
    assert client.exchange(text) == text


def test_a_half_closed_client_gets_its_answers_and_a_goodbye(
    daemon: MakeDaemon, town: Town
) -> None:
    """An end in TLS, with the connection still open below, ends the input and nothing else."""
    served = daemon(listen=[town.tls()])
    client = Halves(served.connect().socket, town.context()).shake_hands()
    client.write(b"timetime")
    client.say_goodbye()
    assert re.fullmatch(ANSWER.pattern * 2, client.read_all())
    assert ended(served)["reason"] == "eof"


def test_a_goodbye_that_comes_later_is_heard(daemon: MakeDaemon, town: Town) -> None:
    """A session that waits for commands sees the end at once."""
    served = daemon(listen=[town.tls()])
    client = Halves(served.connect().socket, town.context()).shake_hands()
    client.write(b"time")
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.say_goodbye()
    assert client.read_all() == b""
    assert ended(served)["reason"] == "eof"


def test_a_command_may_come_with_the_end_of_the_handshake(daemon: MakeDaemon, town: Town) -> None:
    """What stands behind it in one piece is not left lying."""
    served = daemon(listen=[town.tls()])
    client = Halves(served.connect().socket, town.context()).shake_hands()
    client.write(b"timequit")
    client.push()
    assert re.fullmatch(ANSWER.pattern + b"quit", client.read_all())
    assert ended(served)["bytes_in"] == 8


def test_what_was_sent_needs_no_more_sending(town: Town) -> None:
    """While there is no room it was not sent, and then it was: nothing is left for later."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server, client = (
            TlsSocket(ours, server_context(plan_of(town.server))),
            Halves(theirs, town.context()),
        )
        while not server.shake_hands():
            server.flush()
            with contextlib.suppress(ssl.SSLWantReadError):
                client.take_in()
                client.tls.do_handshake()
            client.push()
            server.listen()
        data, received, refused = bytes(range(256)) * 400, b"", 0
        left = data
        while left:
            try:
                left = left[server.send(left, 0) :]
            except BlockingIOError:
                refused += 1
                client.take_in()
                received += client.heard()
        while len(received) < len(data):
            client.take_in()
            received += client.heard()
        assert (received, refused > 0) == (data, True)


def test_abrupt_ends_are_ends(daemon: MakeDaemon, town: Town) -> None:
    """A connection that is closed or reset below TLS ends the session, as without it."""
    served = daemon(listen=[town.tls()])
    client = secured(served, town.context())
    assert client.ask()
    client.socket.close()
    assert ended(served)["reason"] in {"eof", "reset"}
    client = secured(served, town.context())
    assert client.ask()
    client.reset()
    assert served.wait_for("client.disconnected", count=2)["reason"] == "reset"


def failure(daemon: Daemon, client: Client) -> str:
    """Return why a handshake failed, by the one line of the session's end."""
    line = ended(daemon, client=client.name)
    assert (line["reason"], line["commands"], line["bytes_out"]) == ("tls", 0, 0)
    events = [one["event"] for one in daemon.events(connection=line["connection"])]
    assert events == ["client.connected", "client.disconnected"]
    return str(line["error"])


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"timetimequit\r\n", "that is not TLS, or not a version of it that is known"),
        (b"GET / HTTP/1.0\r\n\r\n", "that is plain HTTP, not TLS"),
        (b"\x16\x03\x01\x00\x05hello", ""),
        (b"\x16\x03\x03\x40\x00" + bytes(20000), ""),
        (bytes(range(256)) * 100, ""),
    ],
)
def test_what_is_no_handshake_ends_the_session(
    daemon: MakeDaemon, town: Town, said: bytes, error: str
) -> None:
    """Plain text, garbage: one line says what it was, and others are served."""
    served = daemon(listen=[town.tls()])
    client = served.connect()
    client.send(said)
    assert client.is_refused() or True
    assert error in failure(served, client)
    assert secured(served, town.context()).quit() == b"quit"


def test_what_is_no_record_ends_a_session_too(daemon: MakeDaemon, town: Town) -> None:
    """Who falls out of TLS in the middle of it is told apart from who leaves."""
    served = daemon(listen=[town.tls()])
    client = Halves(served.connect().socket, town.context()).shake_hands()
    client.write(b"time")
    client.push()
    assert ANSWER.fullmatch(client.until_done(lambda: client.tls.read(100)))
    client.plain.sendall(b"timetimequit" * 10)
    line = ended(served)
    assert (line["reason"], line["commands"]) == ("tls", 1)
    assert line["error"]


def hello_of(context: ssl.SSLContext) -> bytes:
    """Return what a client begins with."""
    said = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    return said.read()


def test_no_damage_to_a_hello_does_any(town: Town) -> None:
    """Whatever is wrong with it, it is not enough yet, or it is refused in words."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    hello, dice = hello_of(context), random.Random(4)  # noqa: S311 - not for secrets
    server = server_context(plan_of(town.server))
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
                while encrypted.listen():
                    assert not encrypted.shake_hands()


@pytest.mark.parametrize(("begun", "reason"), [(b"", "eof"), (b"\x16\x03\x01\x02\x00\x01", "tls")])
def test_a_client_that_leaves_early(
    daemon: MakeDaemon, town: Town, begun: bytes, reason: str
) -> None:
    """In the middle of its hello that is told; without a word it has just left."""
    served = daemon(listen=[town.tls()])
    client = served.connect()
    client.send_and_wait(begun)
    client.half_close()
    line = ended(served)
    assert (line["reason"], client.read_all()) == (reason, b"")
    assert line.get("error", "it left in the middle of the handshake").startswith("it left")


def test_a_handshake_has_the_time_of_a_first_command(daemon: MakeDaemon, town: Town) -> None:
    """Its time counts: who stops in the middle, or says nothing after it, is let go in time."""
    served = daemon(listen=[town.tls()], session={"first_command_timeout": "500ms"})
    client = served.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01")
    assert client.is_refused()
    line = ended(served)
    assert line["reason"] == "first_command_timeout"
    assert 0.5 <= line["duration"] < 10
    silent = secured(served, town.context())
    assert silent.read_all() == b""
    line = served.wait_for("client.disconnected", count=2)
    assert line["reason"] == "first_command_timeout"
    assert 0.5 <= line["duration"] < 10


def test_the_other_deadlines_hold(daemon: MakeDaemon, town: Town) -> None:
    """Who is silent between commands is let go, and so is who does not read."""
    session = {"idle_timeout": "300ms", "send_timeout": "300ms"}
    served = daemon(listen=[town.tls()], session=session)
    client = secured(served, town.context())
    assert client.ask()
    assert client.read_all() == b""
    assert ended(served)["reason"] == "idle_timeout"
    client = secured(served, town.context(), plain=served.connect_with_small_buffers())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        flood(client, b"time" * 10000)
    assert served.wait_for("client.disconnected", count=2)["reason"] == "send_timeout"


def test_a_stop_ends_encrypted_sessions(daemon: MakeDaemon, town: Town) -> None:
    """One that is idle, and one in the middle of its handshake; the first hears a goodbye."""
    served = daemon(listen=[town.tls()])
    idle, begun = secured(served, town.context()), served.connect()
    assert idle.ask()
    begun.send_and_wait(b"\x16\x03\x01\x02\x00")
    served.signal(signal.SIGTERM)
    assert idle.read_all() == b""
    assert served.is_gone()
    assert len(served.events("client.disconnected", reason="stopping")) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(daemon: MakeDaemon, town: Town, version: ssl.TLSVersion) -> None:
    """TLS 1.0 and 1.1 are spoken by nobody here."""
    served = daemon(listen=[town.tls()])
    context = town.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    client = served.connect()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        secured(served, context, plain=client)
    assert failure(served, client) == "its version of TLS is too old"


def test_a_newer_version_can_be_asked_for(daemon: MakeDaemon, town: Town) -> None:
    """With `minimum_version` 1.3, which is a number to YAML, 1.2 is refused."""
    served = daemon(listen=[town.tls(minimum_version=1.3)])
    context = town.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = served.connect()
    with pytest.raises(ssl.SSLError):
        secured(served, context, plain=client)
    assert failure(served, client) == "its version of TLS is too old"
    assert secured(served, town.context()).quit() == b"quit"


def test_a_client_that_does_not_trust_us_says_so(daemon: MakeDaemon, town: Town) -> None:
    """Whose authority is another one leaves, and the log says why."""
    served = daemon(listen=[town.tls()])
    context = ssl.create_default_context(cafile=town.stranger.certificate)
    client = served.connect()
    with pytest.raises(ssl.SSLCertVerificationError):
        secured(served, context, plain=client)
    client.close()
    assert "vouches for our certificate" in failure(served, client)


def test_with_an_authority_clients_need_its_certificates(daemon: MakeDaemon, town: Town) -> None:
    """The right one is served, and every line of it says who it is."""
    served = daemon(listen=[town.mutual()])
    client = secured(served, town.context(town.monitor))
    assert ANSWER.fullmatch(client.ask())
    assert client.quit() == b"quit"
    line = ended(served)
    lines = served.events(connection=line["connection"])
    assert [one.get("subject") for one in lines] == [None] + ["CN=monitor,O=tetrad"] * 3


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (None, "it has shown no certificate"),
        ("forged", "its certificate is not taken: unable to get local issuer certificate"),
        ("late", "its certificate is not taken: certificate has expired"),
        ("server", "its certificate is not taken: unsuitable certificate purpose"),
    ],
)
def test_no_other_certificate_will_do(
    daemon: MakeDaemon, town: Town, who: str | None, error: str
) -> None:
    """None, somebody else's, an old one, a server's: no service, and the log says why."""
    served = daemon(listen=[town.mutual()])
    context = town.context(None if who is None else getattr(town, who))
    client = served.connect()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured(served, context, plain=client).ask()
    assert failure(served, client) == error


def test_subjects_choose_among_those_with_a_certificate(daemon: MakeDaemon, town: Town) -> None:
    """A pattern that fits is enough; all others are told apart as being not let in."""
    served = daemon(listen=[town.mutual(subjects=SUBJECTS)])
    assert secured(served, town.context(town.monitor)).quit() == b"quit"
    client = secured(served, town.context(town.other))
    client.send(b"time")
    assert client.is_refused()
    line = ended(served, client=client.name)
    assert (line["reason"], line["subject"], line["commands"]) == (
        "access",
        "CN=other,O=tetrad",
        0,
    )


def test_a_header_of_a_balancer_comes_first_and_in_clear(daemon: MakeDaemon, town: Town) -> None:
    """Behind it the client shakes hands with us, not with the balancer."""
    served = daemon(listen=[town.mutual() | {"proxy": {"trusted": ["127.0.0.1"]}}])
    client = served.connect()
    client.send(version_2(TCP4))
    client = secured(served, town.context(town.monitor), plain=client)
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.command")
    assert (line["client"], line["subject"]) == ("203.0.113.7:38276", "CN=monitor,O=tetrad")


def test_a_unix_socket_can_be_encrypted(daemon: MakeDaemon, town: Town) -> None:
    """What is good for TCP is good for it."""
    served = daemon(listen=[{"address": "unix:t.sock", "tls": town.tls()["tls"]}])
    assert secured(served, town.context(), plain=served.connect_to_path("t.sock")).ask()


def test_an_ordinary_program_is_served(daemon: MakeDaemon, town: Town) -> None:
    """`openssl s_client` checks our chain, shows its certificate, and gets its answers."""
    served = daemon(listen=[town.mutual()])
    where = ("-connect", f"127.0.0.1:{served.port}", "-CAfile", town.authority.certificate)
    ours = ("-cert", town.monitor.certificate, "-key", town.monitor.key)
    done = subprocess.run(
        [PROGRAM, "s_client", "-quiet", "-verify_return_error", *where, *ours],
        input=b"timequit",
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert re.fullmatch(ANSWER.pattern + b"quit", done.stdout), done.stderr
    assert ended(served)["reason"] == "quit"


def test_a_chain_of_authorities_is_sent(daemon: MakeDaemon, town: Town) -> None:
    """Who knows only the first of them can follow it to the server."""
    middle = Authority(os.path.join(town.folder, "middle"), "in the middle", town.authority)
    leaf = middle.issue("leaf")
    chain = concatenated(
        os.path.join(town.folder, "chain.pem"), leaf.certificate, middle.certificate
    )
    both = concatenated(os.path.join(town.folder, "both.pem"), leaf.key, chain)
    served = daemon(listen=[{"port": 0, "tls": {"certificate": both}}])
    assert secured(served, town.context()).quit() == b"quit"


def test_remarks_may_stand_between_certificates(daemon: MakeDaemon, town: Town) -> None:
    """As in the bundles that systems have, in any language and none."""
    bundle = os.path.join(town.folder, "bundle.pem")
    with open(bundle, "wb") as file:
        for one in (town.stranger, town.authority):
            text = pathlib.Path(one.certificate).read_bytes()
            file.write("# Főtanúsítvány\n".encode() + b"\xff\n" + text)
    served = daemon(listen=[town.tls(client_ca=bundle)])
    assert secured(served, town.context(town.forged)).quit() == b"quit"
    assert secured(served, town.context(town.monitor)).quit() == b"quit"


def talk(daemon: Daemon, *options: str, words: tuple[str, ...] = ("quit",)) -> Any:  # noqa: ANN401
    """Run our own client."""
    return daemon.tetrad("client", "--port", str(daemon.port), *options, *words)


def test_our_client_speaks_it(daemon: MakeDaemon, town: Town) -> None:
    """With an authority, a certificate, or on purpose with whoever it is."""
    served = daemon(listen=[town.mutual()])
    shown = ("--cert", town.monitor.certificate, "--key", town.monitor.key)
    good = ("--tls", "--ca", town.authority.certificate)
    assert talk(served, *good, *shown).out == "quit\n"
    assert "(command, tls)\n" in served.tetrad("status").out
    assert talk(served, "--insecure", *shown, words=("time", "quit")).out.endswith("\nquit\n")
    ran = talk(served, *good)
    assert (ran.status, ran.out) == (1, "")
    assert "a certificate has to be shown" in ran.err
    ran = talk(served, "--tls", "--ca", town.stranger.certificate, *shown)
    assert ran.status == 1
    assert "its certificate is not taken: self-signed certificate in " in ran.err
    ran = talk(served, *good, "--cert", "/nowhere")
    assert (ran.status, "/nowhere: no such file" in ran.err) == (1, True)
    ran = talk(served, *good, "--cert", town.monitor.certificate, "--key", town.other.key)
    assert "the key is not that of the certificate" in ran.err


def test_our_client_tells_of_a_server_that_is_not_encrypted(daemon: MakeDaemon) -> None:
    """And of nothing that would be an answer."""
    ran = talk(daemon(session={"first_command_timeout": "300ms"}), "--tls")
    assert (ran.status, ran.out) == (1, "")
    assert "Traceback" not in ran.err


BAD: dict[str, tuple[str, str]] = {
    "absent": ("certificate", "no such file or directory"),
    "empty": ("certificate", "there is no certificate in it, in PEM"),
    "damaged": ("certificate", "a certificate in it cannot be read"),
    "expired": ("certificate", "the certificate has expired on 20"),
    "early": ("certificate", "the certificate is not valid before 20"),
    "a client's": ("certificate", "are no chain for a server: unsuitable certificate purpose"),
    "broken chain": ("certificate", "are no chain for a server: unable to get"),
    "no key": ("key", "there is no private key in it, in PEM"),
    "damaged key": ("key", "no key can be read"),
    "another's key": ("key", "the key is not that of the certificate"),
    "secret key": ("key", "the key is encrypted, and a daemon cannot ask for its password"),
    "no authority": ("client_ca", "there is no certificate in it, in PEM"),
}


def bad_settings(town: Town, folder: str, what: str) -> dict[str, Any]:
    """Return settings of TLS with one thing wrong about them."""
    file = os.path.join(folder, "bad.pem")
    good: dict[str, Any] = town.tls()["tls"]
    with open(file, "w", encoding="ascii") as stream:
        if what.startswith("damaged"):
            kind = "PRIVATE KEY" if "key" in what else "CERTIFICATE"
            stream.write(f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
    if what == "absent":
        os.unlink(file)
    elif what == "expired":
        return good | town.authority.issue("expired", since=-9 * DAY, until=-DAY)._asdict()
    elif what == "early":
        return good | town.authority.issue("early", since=DAY)._asdict()
    elif what == "a client's":
        return good | town.monitor._asdict()
    elif what == "broken chain":
        concatenated(file, town.server.certificate, town.stranger.certificate)
    elif what == "another's key":
        return good | {"key": town.other.key}
    elif what == "secret key":
        command = (PROGRAM, "pkey", "-aes128", "-passout", "pass:abcd", "-out", file)
        subprocess.run([*command, "-in", town.server.key], check=True, timeout=60)
    return good | {BAD[what][0]: file}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_certificates_is_told_with_its_place(
    prepared: MakeDaemon,
    town: Town,
    tmp_path: pathlib.Path,
    what: str,
) -> None:
    """By `check`, and by `start`, which starts nothing then."""
    settings = bad_settings(town, str(tmp_path), what)
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


def test_mistakes_in_the_keys_are_told(prepared: MakeDaemon) -> None:
    """As of any other section."""
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


def test_a_certificate_that_ends_soon_is_spoken_of(prepared: MakeDaemon, town: Town) -> None:
    """On standard error, and in the log; it is good enough to serve with."""
    soon = town.authority.issue("soon", until=20.5 * DAY)
    daemon = prepared(listen=[town.tls(soon)])
    ran = daemon.tetrad("check")
    assert ran.status == 0
    assert f"tetrad: warning: {soon.certificate}: the certificate expires on 20" in ran.err
    daemon.start()
    line = daemon.wait_for("certificate.expires", level="warning")
    assert (line["certificate"], line["days"]) == (soon.certificate, 20)


def test_a_reload_reads_certificates_again(
    daemon: MakeDaemon, town: Town, tmp_path: pathlib.Path
) -> None:
    """Newcomers get the new one, sessions go on, and a bad one changes nothing."""
    files = Pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    renew(files, town.server)
    served = daemon(listen=[town.tls(files)])
    old = secured(served, town.context())
    assert old.ask()
    assert "nothing changed" in served.tetrad("reload").out
    renew(files, town.authority.issue("renewed", until=99 * DAY))
    assert "listen[0].tls.certificate: " in served.tetrad("reload").out
    new = secured(served, town.context())
    assert serial_of(new) != serial_of(old)
    renew(files, Pair(town.server.certificate, town.other.key))
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert "the key is not that of the certificate" in ran.err
    assert serial_of(secured(served, town.context())) == serial_of(new)
    assert old.ask()


def renew(files: Pair, pair: Pair) -> None:
    """Put a certificate and a key in the place of others."""
    for file, text in zip(files, pair, strict=True):
        concatenated(file, text)


def serial_of(client: Client) -> str:
    """Return the number of the server's certificate."""
    assert isinstance(client.socket, ssl.SSLSocket)
    return str((client.socket.getpeercert() or {})["serialNumber"])


def test_a_reload_switches_it_on_and_off(daemon: MakeDaemon, town: Town) -> None:
    """A master that has begun without it can come to have it, and be without it again."""
    served = daemon()
    served.configure(listen=[town.tls()])
    assert "listen[0].tls" in served.tetrad("reload").out
    assert secured(served, town.context()).quit() == b"quit"
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").status == 0
    assert served.served().quit() == b"quit"


def test_a_key_that_only_root_can_read_will_do_until_a_reload(
    prepared: MakeDaemon, town: Town, nobodys_folder: str
) -> None:
    """It is read before root's rights are gone; later that is said, and the old one serves on."""
    key = os.path.join(nobodys_folder, "key.pem")
    certificate = concatenated(os.path.join(nobodys_folder, "cert.pem"), town.server.certificate)
    concatenated(key, town.server.key)
    os.chmod(key, 0o600)
    settings = town.tls(Pair(certificate, key))
    served = prepared(folder=nobodys_folder, listen=[settings], daemon={"user": "nobody"})
    served.start()
    assert secured(served, town.context()).quit() == b"quit"
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert f"listen[0].tls.key: {key}: permission denied" in ran.err
    assert secured(served, town.context()).quit() == b"quit"


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
def test_a_subject_is_written_as_in_rfc_4514(parts: list[tuple[str, str]], text: str) -> None:
    """No value can be taken for a part of its own, or for another line."""
    assert subject_of({"subject": tuple((part,) for part in parts)}) == text


def test_a_part_may_have_two_values() -> None:
    """They stand side by side."""
    part = (("commonName", "x"), ("userId", "y"))
    assert subject_of({"subject": (part,)}) == "CN=x+UID=y"
