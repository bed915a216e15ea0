"""Listeners behind a load balancer: the PROXY header names the client, and is required."""

from __future__ import annotations

import itertools
import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER, ANSWER_BYTES
from tests.support.commands import run_here
from tests.support.processes import state_of, until
from tests.support.proxy_headers import (
    LOCAL,
    SIGNATURE,
    TCP4,
    TCP6,
    UNIX,
    tlv,
    version_1,
    version_2,
    with_checksum,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

NAMES = {TCP4: "203.0.113.7:38276", TCP6: "[2001:db8::7]:38276"}
ALICE, BOB = ("198.51.100.1", 1111), ("198.51.100.2", 2222)


def proxied(*trusted: str, timeout: str = "30s", **more: object) -> dict[str, Any]:
    """Return the settings of a listener that requires a PROXY header."""
    proxy = {"trusted": list(trusted) or ["127.0.0.1"], "timeout": timeout}
    return {"port": 0, "proxy": proxy, **more}


LISTEN = [
    proxied(),
    proxied(timeout="200ms"),
    proxied("127.0.0.2", "127.0.1.0/24"),
    proxied(service="echo"),
    {"port": 0},
    proxied("::1", address="::1"),
    {"address": "unix:p.sock", "proxy": {}},
]
USUAL, SHORT, SELECTIVE, ECHO, PLAIN, IPV6 = range(6)
"""The TCP listeners of LISTEN."""


VERBOSE: dict[str, Any] = {"access": {"deny": ["203.0.113.0/24"]}, "log": {"level": "debug"}}
ACCESS = {"allow": ["192.0.2.0/24", "198.51.100.0/24"], "deny": [BOB[0]]}


def balanced(daemon: MakeDaemon, **settings: object) -> Daemon:
    """Start a daemon with one listener that requires a PROXY header."""
    return daemon(folder="", listen=[proxied()], **settings)


def accepted(daemon: Daemon, header: bytes) -> Client:
    """Connect with a PROXY header, and return the client after its first answer."""
    client = daemon.connect()
    client.send(header)
    assert ANSWER.fullmatch(client.ask())
    return client


def is_accepted(daemon: Daemon, peer: tuple[str, int]) -> bool:
    """Connect for a client with an address, quit, and tell whether it was served."""
    client = daemon.connect()
    client.send(version_1(peer))
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def send_to_master(client: Client, data: bytes) -> None:
    """Send data, and wait until the master has read it."""
    client.send(data)
    until(client.was_read, "the master's read")


def refused(daemon: Daemon, header: bytes, listener: int = 0) -> dict[str, Any]:
    """Send a header that is refused, and return the event in the log.

    Ten refusals a second have a line: tests of many refusals have daemons of their own.
    """
    client = daemon.connect(listener)
    client.send(header)
    assert client.is_refused()
    return daemon.wait_for("client.refused", client=client.name)


@pytest.mark.quick
@pytest.mark.parametrize("peer", [TCP4, TCP6])
@pytest.mark.parametrize("version", [version_1, version_2])
def test_the_header_names_the_client(
    shared_daemon: MakeDaemon,
    version: Callable[[tuple[str, int]], bytes],
    peer: tuple[str, int],
) -> None:
    """The log has the client of the header, and the address of the balancer as `proxy`."""
    served = shared_daemon(listen=LISTEN)
    client = accepted(served, version(peer))
    assert client.quit() == b"quit"
    line = served.wait_for("client.disconnected", client=NAMES[peer], reason="quit")
    assert (line["proxy"], line["bytes_in"]) == (client.name, 8)
    assert all("proxy" in event for event in served.events(connection=line["connection"]))


def test_header_and_commands_can_arrive_together(shared_daemon: MakeDaemon) -> None:
    """The bytes after the header are commands."""
    served = shared_daemon(listen=LISTEN)
    for header in (version_1(TCP4), version_2(TCP4), with_checksum(version_2(TCP6))):
        client = served.connect()
        client.send(header + b"timequit")
        answer = client.read_all()
        assert ANSWER.fullmatch(answer[:ANSWER_BYTES])
        assert answer[ANSWER_BYTES:] == b"quit"


@pytest.mark.parametrize("header", [version_1(TCP4), with_checksum(version_2(TCP6, tlv(5, b"x")))])
def test_a_header_can_arrive_in_any_pieces(shared_daemon: MakeDaemon, header: bytes) -> None:
    """The client is served after the last piece."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect()
    for start, end in itertools.pairwise((0, 1, 5, 11, 16, 17, 30, len(header) - 1)):
        send_to_master(client, header[start:end])
    assert served.events("client.connected") == []
    client.send(header[-1:] + b"ti")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read(ANSWER_BYTES))


def test_a_second_header_is_an_invalid_command(shared_daemon: MakeDaemon) -> None:
    """A client cannot forge a header after that of the balancer."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect()
    client.send(version_1(TCP4) + version_1(ALICE))
    line = served.wait_for("client.invalid")
    assert (line["client"], line["command"]) == (NAMES[TCP4], "PROX")
    assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"time", "no PROXY header signature"),
        (b"\x16\x03\x01\x02\x00", "no PROXY header signature"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "not a port: 65536"),
        (b"PROXY TCP4 " + b"1" * 200, "PROXY line longer than 107 bytes"),
        (SIGNATURE + b"\x21\x11\xff\xff" + bytes(100), "PROXY header longer than 2064 bytes"),
        (version_2(TCP4, tlv(3, b"\0\0\0\0")), "wrong CRC-32C in the PROXY header"),
    ],
)
def test_a_client_without_a_valid_header_is_refused(
    shared_daemon: MakeDaemon, header: bytes, error: str
) -> None:
    """It is refused at once, counted, and logged with the error."""
    served = balanced(shared_daemon)
    before = served.status()["refused"]["proxy"]
    line = refused(served, header)
    assert (line["reason"], line["error"]) == ("proxy", error)
    assert served.status()["refused"]["proxy"] == before + 1
    assert served.status()["clients"]["now"] == 0


@pytest.mark.parametrize("beginning", [b"P", b"PROXY TCP4 1.2", SIGNATURE + b"\x21"])
def test_an_incomplete_header_is_refused(shared_daemon: MakeDaemon, beginning: bytes) -> None:
    """The connection is closed or reset inside the header."""
    served = shared_daemon(listen=[proxied(timeout="1h")])
    for disconnect in ("half_close", "reset"):
        client = served.connect()
        send_to_master(client, beginning)
        getattr(client, disconnect)()
        line = served.wait_for("client.refused", client=client.name)
        assert (line["reason"], line["error"]) == (
            "proxy",
            "connection closed inside the PROXY header",
        )
    assert served.status()["clients"]["now"] == 0


@pytest.mark.parametrize("beginning", [b"", b"PROXY", SIGNATURE])
def test_a_late_header_is_refused(shared_daemon: MakeDaemon, beginning: bytes) -> None:
    """The timeout is for the complete header."""
    served = shared_daemon(listen=LISTEN)
    line = refused(served, beginning, SHORT)
    assert (line["reason"], line["error"]) == ("proxy", "PROXY header timeout")


def test_each_listener_has_its_own_timeout(shared_daemon: MakeDaemon) -> None:
    """A longer timeout does not delay that of another listener."""
    served = shared_daemon(listen=LISTEN)
    long, short = served.connect(USUAL), served.connect(SHORT)
    assert short.is_refused()
    long.send(version_1(TCP4))
    assert ANSWER.fullmatch(long.ask())


def test_only_trusted_balancers_may_connect(shared_daemon: MakeDaemon) -> None:
    """From other addresses, a valid header is refused too."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect(SELECTIVE, source="127.0.0.1")
    client.send(version_1(TCP4))
    assert client.is_refused()
    line = served.wait_for("client.refused", client=client.name)
    assert (line["reason"], "proxy" in line) == ("access", False)
    for source in ("127.0.0.2", "127.0.1.9"):
        client = served.connect(SELECTIVE, source=source)
        client.send(version_1(TCP4))
        assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", version_2(None)])
def test_without_a_source_in_the_header_the_balancer_is_the_client(
    shared_daemon: MakeDaemon, header: bytes
) -> None:
    """LOCAL, UNKNOWN, and an unspecified family; access lists use the balancer's address."""
    served = balanced(shared_daemon, **VERBOSE)
    client = accepted(served, header)
    line = served.wait_for("client.connected")
    assert line["client"] == line["proxy"] == client.name


def test_a_health_check_is_logged_only_if_it_fails(daemon: MakeDaemon) -> None:
    """LOCAL is a health check: its info events have the level debug, other events their own."""
    served = balanced(daemon)
    client = accepted(served, LOCAL)
    client.send_and_wait(b"nope")
    assert client.quit() == b"quit"
    assert is_accepted(served, ALICE)
    served.wait_for("client.disconnected", client="198.51.100.1:1111")
    served.wait_for("client.invalid", client=client.name, check=True)
    assert [line["event"] for line in served.events(client=client.name)] == ["client.invalid"]
    assert served.status()["accepted"] == 2


def test_at_level_debug_a_health_check_is_logged(shared_daemon: MakeDaemon) -> None:
    """All its lines have the field `check`."""
    served = balanced(shared_daemon, **VERBOSE)
    assert accepted(served, LOCAL).quit() == b"quit"
    served.wait_for("client.disconnected", check=True, level="debug")
    events = [line["event"].removeprefix("client.") for line in served.events(check=True)]
    assert events == ["connected", "command", "command", "disconnected"]


def test_a_client_of_a_unix_socket_has_its_path_as_name(shared_daemon: MakeDaemon) -> None:
    """Access lists and limits have the balancer's address for it."""
    served = balanced(shared_daemon, access={"allow": ["127.0.0.1"]})
    accepted(served, version_2(UNIX, address=b"/run/app"))
    served.wait_for("client.connected", client="unix:/run/app")
    accepted(served, version_2(UNIX))
    served.wait_for("client.connected", count=2)
    (nameless,) = {line["client"] for line in served.events("client.connected")} - {"unix:/run/app"}
    assert nameless.removeprefix("unix:").isalnum()


def test_access_lists_apply_to_the_client_of_the_header(shared_daemon: MakeDaemon) -> None:
    """They do not apply to the balancer's address."""
    served = balanced(shared_daemon, access=ACCESS)
    assert is_accepted(served, ALICE)
    assert not is_accepted(served, BOB)
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"]) == ("access", "198.51.100.2:2222")
    assert line["proxy"].startswith("127.0.0.1:")
    assert run_here(served, "explain", BOB[0]).status == 1


def test_limits_of_a_source_apply_to_the_client_of_the_header(daemon: MakeDaemon) -> None:
    """Clients and rates are counted by the clients' own addresses."""
    served = balanced(daemon, limits={"clients_per_source": 1, "rate_per_source": "2/h"})
    first = accepted(served, version_1(ALICE))
    assert not is_accepted(served, ALICE)
    assert is_accepted(served, BOB)
    first.quit()
    until(lambda: served.status()["clients"]["now"] == 0, "no clients")
    assert is_accepted(served, ALICE)
    until(lambda: served.status()["clients"]["now"] == 0, "no clients again")
    assert not is_accepted(served, ALICE)
    served.wait_for("client.refused", count=2)
    reasons = [line["reason"] for line in served.events("client.refused")]
    assert reasons == ["clients_per_source", "rate"]


def test_status_and_ps_show_the_client_of_the_header(shared_daemon: MakeDaemon) -> None:
    """`status` also shows the balancer and the unique id."""
    served = shared_daemon(listen=LISTEN)
    client = accepted(served, with_checksum(version_2(TCP4, tlv(5, b"7F:1"))))
    until(lambda: client.was_read() and served.handlers, "a handler")
    session = served.status()["sessions"][0]
    assert (session["client"], session["proxy"]) == (NAMES[TCP4], client.name)
    assert session["unique_id"] == "7F:1"
    assert "(command, proxy)\n" in run_here(served, "status").out
    assert NAMES[TCP4] in run_here(served, "status", "--clients").out
    title = until(lambda: served._titled(f"tetrad: handler {NAMES[TCP4]}"), "its title")  # noqa: SLF001
    assert title == served.handlers


def test_a_unique_id_is_on_every_line(shared_daemon: MakeDaemon) -> None:
    """Its bytes are escaped, so that it cannot forge a field or a line."""
    served = shared_daemon(listen=LISTEN)
    unique_id = b'","client":"x"}\n{"event":"forged\xff%d%s'
    assert accepted(served, version_2(TCP4, tlv(5, unique_id))).quit() == b"quit"
    last = served.wait_for("client.disconnected")
    lines = served.events(connection=last["connection"])
    shown = unique_id.decode("latin-1").replace("\n", "\\x0a").replace("\xff", "\\xff")
    assert {line["unique_id"] for line in lines} == {shown}
    assert {line["client"] for line in lines} == {NAMES[TCP4]}
    assert len(lines) == 4


@pytest.mark.parametrize("handlers", [{"spare": 1}, {"clients_each": 5}])
def test_spare_and_reused_handlers_serve_them(daemon: MakeDaemon, handlers: dict[str, int]) -> None:
    """The master passes the client's context with the socket."""
    served = balanced(daemon, handlers=handlers)
    for peer, name in ((ALICE, "198.51.100.1:1111"), (BOB, "198.51.100.2:2222"), *NAMES.items()):
        assert accepted(served, version_2(peer, tlv(5, b"u" * 128))).quit() == b"quit"
        served.wait_for("client.disconnected", client=name, unique_id="u" * 128)


def test_other_services_and_listeners_work_beside_it(shared_daemon: MakeDaemon) -> None:
    """Echo with a header, a listener without one, and an IPv6 listener with one."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect(ECHO)
    client.send(version_2(TCP4) + b"PROXY")
    assert client.read(5) == b"PROXY"
    assert ANSWER.fullmatch(served.connect(PLAIN).ask())
    client = served.connect(IPV6, host="::1")
    client.send(version_1(TCP4))
    assert ANSWER.fullmatch(client.ask())


def test_a_unix_socket_trusts_every_process_that_can_connect(shared_daemon: MakeDaemon) -> None:
    """The permissions of the socket decide which balancers can connect."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect_to_path("p.sock")
    client.send(version_2(TCP4))
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.connected")
    assert line["client"] == NAMES[TCP4]
    assert re.fullmatch(r"unix:\d+", line["proxy"])
    assert served.connect_to_path("p.sock").socket.send(b"x") == 1
    assert served.wait_for("client.refused")["reason"] == "proxy"


def test_incomplete_headers_do_not_delay_other_clients(shared_daemon: MakeDaemon) -> None:
    """Two hundred connections with half a header use no processor time."""
    served = shared_daemon(listen=[proxied(timeout="1h")])
    waiting = [served.connect() for _ in range(200)]
    for client in waiting:
        client.send(b"PROXY TCP4 198.51")
    until(lambda: served.status()["clients"]["now"] == 200, "two hundred clients")
    until(lambda: all(client.was_read() for client in waiting), "the master's reads")
    states = [state_of(served.pid) for _ in range(50)]
    assert states.count("S") > 25, "the master wakes repeatedly for data that it has read"
    assert all(is_accepted(served, (f"203.0.113.{last}", 1)) for last in range(20))
    for client in waiting:
        client.send(b".100.3 127.0.0.1 5 6\r\ntime")
    assert all(ANSWER.fullmatch(client.read(ANSWER_BYTES)) for client in waiting)
    assert served.status()["clients"]["now"] == 200


def test_pending_connections_count_as_clients(daemon: MakeDaemon) -> None:
    """They are limited by `limits.clients` until they are refused or served."""
    served = balanced(daemon, limits={"clients": 2})
    waiting = [served.connect(), served.connect()]
    until(lambda: served.status()["clients"]["now"] == 2, "two clients")
    third = served.connect()
    assert third.is_refused()
    assert served.wait_for("client.refused", client=third.name)["reason"] == "clients"
    waiting[0].half_close()
    assert waiting[0].is_refused()
    waiting[1].send(version_1(ALICE))
    assert ANSWER.fullmatch(waiting[1].ask())
    assert is_accepted(served, BOB)


def test_a_stop_refuses_pending_connections(daemon: MakeDaemon) -> None:
    """The reason is `stopping`, and the stop does not wait for them."""
    served = balanced(daemon)
    client = served.connect()
    send_to_master(client, b"PROXY TCP4")
    until(lambda: served.status()["clients"]["now"] == 1, "the pending connection")
    served.signal(signal.SIGTERM)
    assert client.is_refused()
    assert served.is_gone()
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"]) == ("stopping", client.name)


def test_a_reload_enables_and_disables_the_header(daemon: MakeDaemon) -> None:
    """It applies to new connections; pending ones still need their header."""
    served = daemon()
    plain = served.served()
    served.configure(listen=[proxied()])
    assert "listen[0].proxy" in run_here(served, "reload").out
    waiting = served.connect()
    send_to_master(waiting, b"PROXY TCP4 ")
    until(lambda: served.status()["clients"]["now"] == 2, "the pending connection")
    served.configure(listen=[{"port": 0}])
    assert run_here(served, "reload").status == 0
    assert ANSWER.fullmatch(served.connect().ask())
    waiting.send(b"198.51.100.1 127.0.0.1 1111 1\r\n")
    assert ANSWER.fullmatch(waiting.ask())
    assert served.wait_for("client.connected", client="198.51.100.1:1111")
    assert ANSWER.fullmatch(plain.ask())


def test_a_reload_changes_the_trusted_balancers(daemon: MakeDaemon) -> None:
    """A balancer that is no longer trusted is refused."""
    served = balanced(daemon)
    assert is_accepted(served, ALICE)
    served.configure(listen=[proxied("127.0.0.2")])
    assert run_here(served, "reload").status == 0
    assert not is_accepted(served, ALICE)
    assert served.wait_for("client.refused")["reason"] == "access"


def test_a_reload_that_removes_a_listener_refuses_its_pending_connections(
    daemon: MakeDaemon,
) -> None:
    """Other listeners are not affected."""
    served = daemon(listen=[{"port": 0}, proxied("127.0.0.0/8", address="127.0.0.95")])
    waiting = served.connect(1, host="127.0.0.95")
    send_to_master(waiting, b"PROXY")
    until(lambda: served.status()["clients"]["now"] == 1, "the pending connection")
    served.configure(listen=[{"port": 0}])
    assert run_here(served, "reload").status == 0
    assert waiting.is_refused()
    assert served.wait_for("client.refused")["reason"] == "stopping"
    assert ANSWER.fullmatch(served.connect().ask())


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ({"proxy": {}}, "listen[0].proxy: list the trusted load balancers"),
        ({"proxy": {"trusted": []}}, "listen[0].proxy: list the trusted load balancers"),
        ({"proxy": {"trust": []}}, "listen[0].proxy.trust: unknown key"),
        ({"proxy": True}, "listen[0].proxy: expected a mapping, got true"),
        ({"proxy": {"trusted": ["x"]}}, "listen[0].proxy.trusted[0]: expected an address"),
        ({"proxy": {"trusted": ["::1"], "timeout": 0}}, "listen[0].proxy.timeout: expected"),
        (
            {"address": "unix:x", "proxy": {"trusted": ["::1"]}},
            "listen[0].proxy: a Unix socket trusts every peer",
        ),
    ],
)
def test_invalid_settings_are_reported_with_their_key(
    prepared: MakeDaemon, listener: dict[str, Any], problem: str
) -> None:
    """`tetrad check` reports them."""
    ran = run_here(prepared(listen=[listener]), "check")
    assert ran.status == 78
    assert problem in ran.err


def test_refusals_for_the_header_have_a_counter(shared_daemon: MakeDaemon) -> None:
    """In the metrics and in the status."""
    served = balanced(shared_daemon)
    count = 1 + served.status()["refused"]["proxy"]
    refused(served, b"x")
    metrics = run_here(served, "status", "--format=openmetrics").out
    assert f'refused_total{{reason="proxy"}} {count}\n' in metrics
    assert json.loads(run_here(served, "status", "--json").out)["refused"]["proxy"] == count
