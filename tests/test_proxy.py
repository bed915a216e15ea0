"""Behind a balancer: clients are whom its header brings, and nobody comes in without one."""

from __future__ import annotations

import itertools
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from balancers import LOCAL, SIGNATURE, TCP4, TCP6, UNIX, checked, thing, version_1, version_2
from clients import ANSWER, ANSWER_BYTES
from processes import state_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients import Client
    from conftest import MakeDaemon
    from daemons import Daemon

NAMES = {TCP4: "203.0.113.7:38276", TCP6: "[2001:db8::7]:38276"}
ALICE, BOB = ("198.51.100.1", 1111), ("198.51.100.2", 2222)


def behind(*trusted: str, timeout: str = "30s", **more: object) -> dict[str, Any]:
    """Return the settings of a listener behind balancers."""
    proxy = {"trusted": list(trusted) or ["127.0.0.1"], "timeout": timeout}
    return {"port": 0, "proxy": proxy, **more}


def balanced(daemon: MakeDaemon, **settings: object) -> Daemon:
    """Start a daemon with one listener behind a balancer."""
    return daemon(folder="", listen=[behind()], **settings)


def brought(daemon: Daemon, header: bytes) -> Client:
    """Return a client that a balancer has brought, and that has had its first answer."""
    client = daemon.connect()
    client.send(header)
    assert ANSWER.fullmatch(client.ask())
    return client


def is_let_in(daemon: Daemon, peer: tuple[str, int]) -> bool:
    """Tell whether a client with an address is served; it leaves again."""
    client = daemon.connect()
    client.send(version_1(peer))
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def say(client: Client, data: bytes) -> None:
    """Send what the master reads."""
    client.send(data)
    until(client.was_read, "the master's read")


def refused(daemon: Daemon, header: bytes) -> dict[str, Any]:
    """Send a header with which nobody comes in, and return what the log says of that."""
    client = daemon.connect()
    client.send(header)
    assert client.is_refused()
    return daemon.wait_for("client.refused", client=client.name)


@pytest.mark.parametrize("peer", [TCP4, TCP6])
@pytest.mark.parametrize("version", [version_1, version_2])
def test_a_client_is_whom_the_header_brings(
    daemon: MakeDaemon,
    version: Callable[[tuple[str, int]], bytes],
    peer: tuple[str, int],
) -> None:
    """Its name in the log is the header's, and beside it is the balancer's own."""
    served = balanced(daemon)
    client = brought(served, version(peer))
    assert client.quit() == b"quit"
    line = served.wait_for("client.disconnected", client=NAMES[peer], reason="quit")
    assert (line["proxy"], line["bytes_in"]) == (client.name, 8)
    assert all("proxy" in one for one in served.events(connection=line["connection"]))


def test_header_and_commands_may_come_in_one_piece(daemon: MakeDaemon) -> None:
    """Not a byte behind the header is lost, nor taken for a part of it."""
    served = balanced(daemon)
    for header in (version_1(TCP4), version_2(TCP4), checked(version_2(TCP6))):
        client = served.connect()
        client.send(header + b"timequit")
        answer = client.read_all()
        assert ANSWER.fullmatch(answer[:ANSWER_BYTES])
        assert answer[ANSWER_BYTES:] == b"quit"


@pytest.mark.parametrize("header", [version_1(TCP4), checked(version_2(TCP6, thing(5, b"x")))])
def test_a_header_may_come_in_any_pieces(daemon: MakeDaemon, header: bytes) -> None:
    """Each is read as it comes, and the client is served behind the last."""
    served = balanced(daemon)
    client = served.connect()
    for start, end in itertools.pairwise((0, 1, 5, 11, 16, 17, 30, len(header) - 1)):
        say(client, header[start:end])
    assert served.events("client.connected") == []
    client.send(header[-1:] + b"ti")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read(ANSWER_BYTES))


def test_a_second_header_is_what_the_client_says(daemon: MakeDaemon) -> None:
    """Who forges one behind the balancer's has sent an invalid command."""
    served = balanced(daemon)
    client = served.connect()
    client.send(version_1(TCP4) + version_1(ALICE))
    line = served.wait_for("client.invalid")
    assert (line["client"], line["command"]) == (NAMES[TCP4], "PROX")
    assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"time", "it does not begin with a PROXY header"),
        (b"\x16\x03\x01\x02\x00", "it does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "65536 is no port"),
        (b"PROXY TCP4 " + b"1" * 200, "the line is longer than 107 bytes"),
        (SIGNATURE + b"\x21\x11\xff\xff" + bytes(100), "it is longer than 2064 bytes"),
        (version_2(TCP4, thing(3, b"\0\0\0\0")), "its checksum is wrong"),
    ],
)
def test_without_a_good_header_nobody_comes_in(
    daemon: MakeDaemon, header: bytes, error: str
) -> None:
    """What is not one is refused at once, counted, and told."""
    served = balanced(daemon)
    line = refused(served, header)
    assert (line["reason"], line["error"]) == ("proxy", error)
    assert served.status()["refused"]["proxy"] == 1
    assert served.status()["clients"]["now"] == 0


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4 1.2", SIGNATURE + b"\x21"])
def test_a_header_that_is_cut_short_is_refused(daemon: MakeDaemon, begun: bytes) -> None:
    """Who leaves in the middle of it, politely or not, was never there."""
    served = balanced(daemon)
    for leave in ("end", "reset"):
        client = served.connect()
        say(client, begun)
        getattr(client, leave)()
        line = served.wait_for("client.refused", client=client.name)
        assert (line["reason"], line["error"]) == (
            "proxy",
            "connection closed inside the PROXY header",
        )
    assert served.status()["clients"]["now"] == 0


@pytest.mark.parametrize("begun", [b"", b"PROXY", SIGNATURE])
def test_a_header_that_is_late_is_refused(daemon: MakeDaemon, begun: bytes) -> None:
    """The deadline holds for the whole of it, however often something comes."""
    served = daemon(listen=[behind(timeout="300ms")])
    line = refused(served, begun)
    assert (line["reason"], line["error"]) == ("proxy", "PROXY header timeout")


def test_a_deadline_of_one_is_none_of_another(daemon: MakeDaemon) -> None:
    """Who waits longer at one listener does not keep those of another waiting."""
    served = daemon(listen=[behind(timeout="1h"), behind(timeout="300ms")])
    patient, hasty = served.connect(0), served.connect(1)
    assert hasty.is_refused()
    patient.send(version_1(TCP4))
    assert ANSWER.fullmatch(patient.ask())


def test_only_trusted_balancers_may_connect(daemon: MakeDaemon) -> None:
    """From anywhere else not even a good header is looked at."""
    served = daemon(listen=[behind("127.0.0.2", "127.0.1.0/24")])
    client = served.connect(source="127.0.0.1")
    client.send(version_1(TCP4))
    assert client.is_refused()
    line = served.wait_for("client.refused", client=client.name)
    assert (line["reason"], "proxy" in line) == ("access", False)
    for source in ("127.0.0.2", "127.0.1.9"):
        client = served.connect(source=source)
        client.send(version_1(TCP4))
        assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", version_2(None)])
def test_where_nobody_is_brought_the_balancer_is_the_client(
    daemon: MakeDaemon, header: bytes
) -> None:
    """LOCAL, UNKNOWN and a family that is not told: its own address counts, for the lists too."""
    served = balanced(daemon, access={"deny": ["203.0.113.0/24"]}, log={"level": "debug"})
    client = brought(served, header)
    line = served.wait_for("client.connected")
    assert line["client"] == line["proxy"] == client.name


def test_of_a_balancers_check_only_what_is_wrong_is_logged(daemon: MakeDaemon) -> None:
    """LOCAL is a look whether we live: its usual lines are of level debug, others as ever."""
    served = balanced(daemon)
    client = brought(served, LOCAL)
    client.say(b"nope")
    assert client.quit() == b"quit"
    assert is_let_in(served, ALICE)
    served.wait_for("client.disconnected", client="198.51.100.1:1111")
    served.wait_for("client.invalid", client=client.name, check=True)
    assert [line["event"] for line in served.events(client=client.name)] == ["client.invalid"]
    assert served.status()["accepted"] == 2


def test_at_level_debug_a_check_is_a_session_like_any_other(daemon: MakeDaemon) -> None:
    """From beginning to end, and marked."""
    served = balanced(daemon, log={"level": "debug"})
    assert brought(served, LOCAL).quit() == b"quit"
    served.wait_for("client.disconnected", check=True, level="debug")
    words = [line["event"].removeprefix("client.") for line in served.events(check=True)]
    assert words == ["connected", "command", "command", "disconnected"]


def test_a_client_of_a_unix_socket_is_called_so(daemon: MakeDaemon) -> None:
    """It has no address that a list or a limit could go by."""
    served = balanced(daemon, access={"allow": ["192.0.2.0/24"]})
    brought(served, version_2(UNIX, address=b"/run/app"))
    served.wait_for("client.connected", client="unix:/run/app")
    brought(served, version_2(UNIX))
    served.wait_for("client.connected", count=2)
    (nameless,) = {line["client"] for line in served.events("client.connected")} - {"unix:/run/app"}
    assert nameless.removeprefix("unix:").isalnum()


def test_access_lists_are_for_whom_the_header_brings(daemon: MakeDaemon) -> None:
    """The balancer's own address is not what they judge."""
    served = balanced(daemon, access={"allow": ["198.51.100.0/24"], "deny": [BOB[0]]})
    assert is_let_in(served, ALICE)
    assert not is_let_in(served, BOB)
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"]) == ("access", "198.51.100.2:2222")
    assert line["proxy"].startswith("127.0.0.1:")
    assert served.tetrad("explain", BOB[0]).status == 1


def test_limits_of_a_source_are_for_whom_the_header_brings(daemon: MakeDaemon) -> None:
    """Clients and rates are counted by real addresses, though all come from one balancer."""
    served = balanced(daemon, limits={"clients_per_source": 1, "rate_per_source": "2/h"})
    held = brought(served, version_1(ALICE))
    assert not is_let_in(served, ALICE)
    assert is_let_in(served, BOB)
    held.quit()
    until(lambda: served.status()["clients"]["now"] == 0, "room")
    assert is_let_in(served, ALICE)
    until(lambda: served.status()["clients"]["now"] == 0, "room again")
    assert not is_let_in(served, ALICE)
    served.wait_for("client.refused", count=2)
    reasons = [line["reason"] for line in served.events("client.refused")]
    assert reasons == ["clients_per_source", "rate"]


def test_status_and_ps_know_whom_the_header_brings(daemon: MakeDaemon) -> None:
    """What an operator sees of a session is the client's own address, and the balancer's."""
    served = balanced(daemon)
    client = brought(served, checked(version_2(TCP4, thing(5, b"7F:1"))))
    until(lambda: client.was_read() and served.handlers, "a handler")
    session = served.status()["sessions"][0]
    assert (session["client"], session["proxy"]) == (NAMES[TCP4], client.name)
    assert session["unique_id"] == "7F:1"
    assert "(command, proxy)\n" in served.tetrad("status").out
    assert NAMES[TCP4] in served.tetrad("status", "--clients").out
    title = until(lambda: served._titled(f"tetrad: handler {NAMES[TCP4]}"), "its title")  # noqa: SLF001
    assert title == served.handlers


def test_a_unique_id_is_on_every_line_and_forges_none(daemon: MakeDaemon) -> None:
    """Whatever bytes it has, it is one field of the session's lines."""
    served = balanced(daemon)
    nasty = b'","client":"x"}\n{"event":"forged\xff%d%s'
    assert brought(served, version_2(TCP4, thing(5, nasty))).quit() == b"quit"
    last = served.wait_for("client.disconnected")
    lines = served.events(connection=last["connection"])
    shown = nasty.decode("latin-1").replace("\n", "\\x0a").replace("\xff", "\\xff")
    assert {line["unique_id"] for line in lines} == {shown}
    assert {line["client"] for line in lines} == {NAMES[TCP4]}
    assert len(lines) == 4


@pytest.mark.parametrize("handlers", [{"spare": 1}, {"clients_each": 5}])
def test_handlers_that_wait_serve_them_too(daemon: MakeDaemon, handlers: dict[str, int]) -> None:
    """A socket whose header has been read is like any other."""
    served = balanced(daemon, handlers=handlers)
    for peer, name in ((ALICE, "198.51.100.1:1111"), (BOB, "198.51.100.2:2222"), *NAMES.items()):
        assert brought(served, version_2(peer, thing(5, b"u" * 128))).quit() == b"quit"
        served.wait_for("client.disconnected", client=name, unique_id="u" * 128)


def test_echo_behind_a_balancer_and_a_listener_without_one(daemon: MakeDaemon) -> None:
    """The other services and listeners are what they were."""
    served = daemon(listen=[behind(service="echo"), {"port": 0}, behind("::1", address="::1")])
    client = served.connect(0)
    client.send(version_2(TCP4) + b"PROXY")
    assert client.read(5) == b"PROXY"
    assert ANSWER.fullmatch(served.connect(1).ask())
    client = served.connect(2, host="::1")
    client.send(version_1(TCP4))
    assert ANSWER.fullmatch(client.ask())


def test_a_unix_socket_trusts_whom_its_permissions_let_in(daemon: MakeDaemon) -> None:
    """A balancer beside us may connect there, and brings real addresses."""
    served = daemon(listen=[{"address": "unix:p.sock", "proxy": {}}])
    client = served.connect_to_path("p.sock")
    client.send(version_2(TCP4))
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.connected")
    assert (line["client"], line["proxy"]) == (NAMES[TCP4], "unix:1")
    assert served.connect_to_path("p.sock").socket.send(b"x") == 1
    assert served.wait_for("client.refused")["reason"] == "proxy"


def test_many_wait_and_others_are_served_meanwhile(daemon: MakeDaemon) -> None:
    """Two hundred that say half of it take no processor, and stand in nobody's way."""
    served = daemon(listen=[behind(timeout="1h")])
    waiting = [served.connect() for _ in range(200)]
    for client in waiting:
        client.send(b"PROXY TCP4 198.51")
    until(lambda: served.status()["clients"]["now"] == 200, "two hundred")
    until(lambda: all(client.was_read() for client in waiting), "what they have said")
    states = [state_of(served.pid) for _ in range(50)]
    assert states.count("S") > 25, "what they have said wakes the master again and again"
    assert all(is_let_in(served, (f"203.0.113.{last}", 1)) for last in range(20))
    for client in waiting:
        client.send(b".100.3 127.0.0.1 5 6\r\ntime")
    assert all(ANSWER.fullmatch(client.read(ANSWER_BYTES)) for client in waiting)
    assert served.status()["clients"]["now"] == 200


def test_those_who_wait_are_bounded_by_the_limit_of_clients(daemon: MakeDaemon) -> None:
    """They take places that clients would have, and give them back."""
    served = balanced(daemon, limits={"clients": 2})
    waiting = [served.connect(), served.connect()]
    until(lambda: served.status()["clients"]["now"] == 2, "both")
    third = served.connect()
    assert third.is_refused()
    assert served.wait_for("client.refused", client=third.name)["reason"] == "clients"
    waiting[0].end()
    assert waiting[0].is_refused()
    waiting[1].send(version_1(ALICE))
    assert ANSWER.fullmatch(waiting[1].ask())
    assert is_let_in(served, BOB)


def test_a_stop_refuses_those_who_wait(daemon: MakeDaemon) -> None:
    """They are told apart from those whose headers were bad, and keep nobody waiting."""
    served = balanced(daemon)
    client = served.connect()
    say(client, b"PROXY TCP4")
    until(lambda: served.status()["clients"]["now"] == 1, "the guest")
    served.signal(signal.SIGTERM)
    assert client.is_refused()
    assert served.is_gone()
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"]) == ("stopping", client.name)


def test_a_reload_switches_it_on_and_off(daemon: MakeDaemon) -> None:
    """From then on newcomers come by the new rules; those who wait go on by theirs."""
    served = daemon()
    plain = served.served()
    served.configure(listen=[behind()])
    assert "listen[0].proxy" in served.tetrad("reload").out
    waiting = served.connect()
    say(waiting, b"PROXY TCP4 ")
    until(lambda: served.status()["clients"]["now"] == 2, "the guest")
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").status == 0
    assert ANSWER.fullmatch(served.connect().ask())
    waiting.send(b"198.51.100.1 127.0.0.1 1111 1\r\n")
    assert ANSWER.fullmatch(waiting.ask())
    assert served.wait_for("client.connected", client="198.51.100.1:1111")
    assert ANSWER.fullmatch(plain.ask())


def test_a_reload_changes_who_is_trusted(daemon: MakeDaemon) -> None:
    """A balancer that is not trusted any more is refused."""
    served = balanced(daemon)
    assert is_let_in(served, ALICE)
    served.configure(listen=[behind("127.0.0.2")])
    assert served.tetrad("reload").status == 0
    assert not is_let_in(served, ALICE)
    assert served.wait_for("client.refused")["reason"] == "access"


def test_who_waits_where_nobody_listens_any_more_is_refused(daemon: MakeDaemon) -> None:
    """A listener that a reload takes away takes them along, and the others stay what they are."""
    served = daemon(listen=[{"port": 0}, behind("127.0.0.0/8", address="127.0.0.95")])
    waiting = served.connect(1, host="127.0.0.95")
    say(waiting, b"PROXY")
    until(lambda: served.status()["clients"]["now"] == 1, "the guest")
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").status == 0
    assert waiting.is_refused()
    assert served.wait_for("client.refused")["reason"] == "stopping"
    assert ANSWER.fullmatch(served.connect().ask())


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ({"proxy": {}}, "listen[0].proxy: name the balancers that are trusted"),
        ({"proxy": {"trusted": []}}, "listen[0].proxy: name the balancers that are trusted"),
        ({"proxy": {"trust": []}}, "listen[0].proxy.trust: there is no such key"),
        ({"proxy": True}, "listen[0].proxy: expected keys and values, got true"),
        ({"proxy": {"trusted": ["x"]}}, "listen[0].proxy.trusted[0]: expected an address"),
        ({"proxy": {"trusted": ["::1"], "timeout": 0}}, "listen[0].proxy.timeout: expected"),
        (
            {"address": "unix:x", "proxy": {"trusted": ["::1"]}},
            "listen[0].proxy: at a Unix socket its permissions say who is trusted",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(
    prepared: MakeDaemon, listener: dict[str, Any], problem: str
) -> None:
    """As of any other key."""
    ran = prepared(listen=[listener]).tetrad("check")
    assert ran.status == 78
    assert problem in ran.err


def test_metrics_count_them(daemon: MakeDaemon) -> None:
    """A refusal for its header has a counter of its own."""
    served = balanced(daemon)
    refused(served, b"x")
    assert 'refused_total{reason="proxy"} 1' in served.tetrad("status", "--format=openmetrics").out
    assert json.loads(served.tetrad("status", "--json").out)["refused"]["proxy"] == 1
