"""`tetrad explain`: listeners that differ, and the file that the daemon has read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

CHANGED = "the file has changed since the last reload; tetrad reload applies it"


def lines(daemon: Daemon, address: str, status: int) -> list[str]:
    """Return the lines about an address, with `FILE` instead of the file's path."""
    ran = daemon.tetrad("explain", address)
    assert (ran.status, ran.err) == (status, "")
    return ran.out.replace(daemon.file, "FILE").splitlines()


def line_of(daemon: Daemon, text: str) -> int:
    """Return the number of the line in the file that ends with a text."""
    with open(daemon.file, encoding="utf-8") as file:
        return next(n for n, line in enumerate(file, 1) if line.rstrip().endswith(text))


def balanced(make: MakeDaemon, **settings: Any) -> Daemon:  # noqa: ANN401
    """Return a daemon with a listener for everybody and one for a load balancer."""
    proxy = {"port": 0, "proxy": {"trusted": ["192.0.2.1", "127.0.0.8/31"]}}
    return make(listen=[{"port": 0}, proxy], **settings)


def names(daemon: Daemon) -> list[str]:
    """Return the names of the listeners."""
    return [one["name"] for one in daemon.status()["listeners"]]


def test_a_listener_for_load_balancers_refuses_others(daemon: MakeDaemon) -> None:
    """The verdict at each listener is that of a real client."""
    served = balanced(daemon)
    plain, proxy = names(served)
    where = f"listen[1].proxy.trusted, FILE:{line_of(served, 'trusted:')}"
    assert lines(served, "127.0.0.2", 0) == [
        "127.0.0.2: let in",
        "  ok  access: allowed, no rule matches and access.allow is empty",
        "  ok  clients: 0 of 1000 connected (limits.clients, default)",
        "  ok  clients of this source: 0 of 500 connected (limits.clients_per_source, default)",
        f"  ok  {plain}: as above",
        f"  NO  {proxy}: not a load balancer ({where}); behind one, as above",
    ]
    assert served.connect(source="127.0.0.2").quit() == b"quit"
    assert served.connect(1, source="127.0.0.2").is_refused()
    served.wait_for("client.refused", reason="access")


def test_a_load_balancer_is_let_in_by_its_rule(daemon: MakeDaemon) -> None:
    """The access lists are not for it, as its header has the client's address."""
    served = balanced(daemon, access={"deny": ["127.0.0.9"]})
    plain, proxy = names(served)
    denied = f"access.deny[0], FILE:{line_of(served, '127.0.0.9')}"
    rule = f"listen[1].proxy.trusted[1], FILE:{line_of(served, '127.0.0.8/31')}"
    assert lines(served, "127.0.0.9", 0) == [
        "127.0.0.9: let in as a load balancer only",
        f"  NO  access: denied by 127.0.0.9/32 ({denied})",
        "  ok  clients: 0 of 1000 connected (limits.clients, default)",
        f"  NO  {plain}: as above",
        f"  ok  {proxy}: a load balancer by 127.0.0.8/31 ({rule}); its header has the client",
    ]


def test_the_file_alone_tells_the_listeners_too(prepared: MakeDaemon) -> None:
    """No daemon is needed; a client of a load balancer has no other way here."""
    proxy = {"port": 65001, "proxy": {"trusted": ["192.0.2.1"]}}
    daemon = prepared(listen=[proxy], access={"deny": ["192.0.2.9"]})
    (_, _, _, listener) = told = lines(daemon, "203.0.113.1", 0)
    assert told[0] == "203.0.113.1: let in through a load balancer only"
    assert listener.startswith("  NO  127.0.0.1:65001: not a load balancer (listen[0].proxy.")
    assert lines(daemon, "192.0.2.9", 1)[0] == "192.0.2.9: refused"


def test_listeners_without_the_address_are_named(prepared: MakeDaemon) -> None:
    """An address cannot come to a Unix socket, nor to a listener of the other family."""
    listen = [{"address": "unix:t.sock"}, {"address": "::1", "port": 1}, {"port": 2}]
    daemon = prepared(listen=[*listen, {"address": "::", "port": 3}])
    unix = f"  --  unix:{daemon.folder}/t.sock: has no addresses"
    dual = "  ok  [::]:3: as above"
    four, six = "  ok  127.0.0.1:2: as above", "  --  [::1]:1: not reachable by IPv4"
    assert lines(daemon, "127.0.0.1", 0)[3:] == [unix, six, four, dual]
    four, six = "  --  127.0.0.1:2: not reachable by IPv6", "  ok  [::1]:1: as above"
    assert lines(daemon, "::1", 0)[3:] == [unix, six, four, dual]


def test_equal_listeners_are_not_listed(prepared: MakeDaemon) -> None:
    """They add nothing."""
    assert len(lines(prepared(listen=[{"port": 1}, {"port": 2}]), "127.0.0.1", 0)) == 3


@pytest.mark.parametrize(
    "changed", [{"session": {"idle_timeout": "9s"}}, {"limits": {"clients": 5}}]
)
def test_every_change_of_the_file_is_told(daemon: MakeDaemon, changed: dict[str, Any]) -> None:
    """The daemon's rule has its network, but no line: the line is of a file that is gone."""
    served = balanced(daemon, access={"deny": ["127.0.0.2"]})
    where = f"access.deny[0], FILE:{line_of(served, '127.0.0.2')}"
    assert lines(served, "127.0.0.2", 1)[1] == f"  NO  access: denied by 127.0.0.2/32 ({where})"
    served.configure(access={"deny": ["127.0.0.0/24"]}, **changed)
    told = lines(served, "127.0.0.2", 1)
    assert told[1] == "  NO  access: denied by 127.0.0.2/32 (access.deny[0] of the running daemon)"
    assert told[2] == "  ok  clients: 0 of 1000 connected (limits.clients of the running daemon)"
    assert told[-2].endswith(
        "(listen[1].proxy.trusted of the running daemon); behind one, as above"
    )
    assert told[-1] == CHANGED
    assert lines(served, "127.0.0.3", 0)[0] == "127.0.0.3: let in"
    served.configure(listen=served.settings["listen"][:1])
    assert served.tetrad("reload").status == 0
    assert CHANGED not in lines(served, "127.0.0.3", 1)


def test_a_file_with_errors_is_a_changed_file(daemon: MakeDaemon) -> None:
    """The daemon decides, by what it has read before."""
    served = daemon(access={"deny": ["127.0.0.2"]})
    served.configure(limits={"clients": "many"})
    told = lines(served, "127.0.0.2", 1)
    assert told[1].endswith("denied by 127.0.0.2/32 (access.deny[0] of the running daemon)")
    assert told[-1] == CHANGED


def test_the_file_of_the_running_daemon_is_named(prepared: MakeDaemon) -> None:
    """Two files may have the same pidfile and control socket."""
    served = prepared().start()
    other = prepared(folder=served.folder)
    other.file = f"{served.folder}/other.yaml"
    other.configure(access={"deny": ["127.0.0.1"]})
    told = other.tetrad("explain", "127.0.0.1")
    assert told.status == 0
    assert told.out.splitlines()[-1] == f"the daemon runs with {served.file}, not with {other.file}"
