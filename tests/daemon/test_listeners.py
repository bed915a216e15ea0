"""Listeners of every kind, and the keys of `daemon`: files, directories, umask, user, group."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.commands import run_here
from tests.support.daemons import Daemon
from tests.support.log_lines import LogLines
from tests.support.processes import run, status_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

EVERY_KIND = [
    {"port": 0},
    {"address": "::1", "port": 0},
    {"address": "::", "port": 0},
    {"address": "unix:tetrad.sock"},
]
IPV6, DUAL_STACK = 1, 2
"""Listeners in EVERY_KIND."""

BACKLOGS = [7, 300]

NOBODY = pwd.getpwnam("nobody")


def test_port_0_is_any_free_port(daemon: MakeDaemon) -> None:
    """The log, the status and the message of the start have its number."""
    served = daemon()
    line = served.wait_for("server.listening")
    assert (line["address"], line["service"]) == ("127.0.0.1", "command")
    assert line["port"] == served.port == served.status()["listeners"][0]["port"]
    assert ANSWER.fullmatch(served.connect().ask())


def test_an_ipv4_client_is_logged_with_its_listener(shared_daemon: MakeDaemon) -> None:
    """Its lines have its address and the listener's."""
    served = shared_daemon(listen=EVERY_KIND)
    client = served.served(source="127.0.0.9")
    line = served.wait_for("client.connected")
    assert line["client"] == client.name
    assert line["listener"] == f"127.0.0.1:{served.port}"


@pytest.mark.quick
def test_an_ipv6_listener_serves_ipv6(shared_daemon: MakeDaemon) -> None:
    """`::1` is served, and its clients are logged in brackets."""
    served = shared_daemon(listen=EVERY_KIND)
    client = served.connect(IPV6, host="::1")
    assert ANSWER.fullmatch(client.ask())
    line = served.wait_for("client.connected")
    assert line["client"] == client.name
    assert line["client"].startswith("[::1]:")
    assert line["listener"] == f"[::1]:{served.ports[IPV6]}"


def test_an_ipv6_address_is_not_dual_stack(shared_daemon: MakeDaemon) -> None:
    """Only `::` also serves IPv4."""
    served = shared_daemon(listen=EVERY_KIND)
    with pytest.raises(ConnectionRefusedError):
        served.connect(IPV6, host="127.0.0.1")


def test_the_ipv6_wildcard_is_dual_stack(shared_daemon: MakeDaemon) -> None:
    """`::` serves both, and an IPv4 client has its IPv4 address."""
    served = shared_daemon(listen=EVERY_KIND)
    clients = [served.connect(DUAL_STACK, host=host) for host in ("127.0.0.1", "::1")]
    for client in clients:
        assert ANSWER.fullmatch(client.ask())
        served.wait_for("client.connected", client=client.name)


@pytest.mark.quick
def test_a_unix_socket_is_served(shared_daemon: MakeDaemon) -> None:
    """The path is relative to the file; the clients have no address."""
    served = shared_daemon(listen=EVERY_KIND)
    assert ANSWER.fullmatch(served.connect_to_path("tetrad.sock").ask())
    line = served.wait_for("client.connected")
    assert line["client"].startswith("unix:")
    assert line["listener"] == f"unix:{served.folder}/tetrad.sock"


def test_a_stopped_daemon_removes_its_unix_sockets(daemon: MakeDaemon) -> None:
    """The path of the listener does not exist afterwards."""
    served = daemon(listen=[{"address": "unix:tetrad.sock"}])
    assert os.path.exists(os.path.join(served.folder, "tetrad.sock"))
    served.stop()
    assert set(os.listdir(served.folder)) == {"home", "tetrad.log", "tetrad.yaml"}


@pytest.mark.quick
def test_several_listeners_serve_together(daemon: MakeDaemon) -> None:
    """Both services, on every kind of address."""
    hosts = ["127.0.0.1", "::1", "127.0.0.2"]
    listen = [
        {"address": host, "port": 0, "service": service}
        for host in hosts
        for service in ("command", "echo")
    ]
    served = daemon(listen=[*listen, {"address": "unix:e.sock", "service": "echo"}])
    for index, host in enumerate(hosts):
        assert ANSWER.fullmatch(served.connect(2 * index, host=host).ask())
        assert served.connect(2 * index + 1, host=host).echo(b"time") == b"time"
    assert served.connect_to_path("e.sock").echo(b"time") == b"time"
    served.wait_for("server.listening", count=7)


@pytest.mark.parametrize("backlog", BACKLOGS)
def test_the_backlog_is_the_listeners(shared_daemon: MakeDaemon, backlog: int) -> None:
    """`backlog` is the argument of listen(2); ss shows it as Send-Q."""
    served = shared_daemon(listen=[{"port": 0, "backlog": length} for length in BACKLOGS])
    port = served.ports[BACKLOGS.index(backlog)]
    try:
        ran = run(["ss", "-Hltn", f"sport = :{port}"], served.environment)
    except FileNotFoundError:
        pytest.skip("ss is not installed: apt-get install iproute2")
    assert ran.out.split()[2] == str(backlog)


def test_a_path_with_a_full_backlog_is_in_use(daemon: MakeDaemon) -> None:
    """The daemon does not wait to find out whether the socket is stale."""
    served = daemon()
    with (
        socket.socket(socket.AF_UNIX) as other,
        socket.socket(socket.AF_UNIX) as waiting,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as refused,
    ):
        other.bind(f"{served.folder}/full.sock")
        other.listen(0)
        waiting.connect(f"{served.folder}/full.sock")
        with pytest.raises(BlockingIOError):
            refused.connect(f"{served.folder}/full.sock")
        served.configure(listen=[{"port": 0}, {"address": "unix:full.sock"}])
        ran = run_here(served, "reload")
    assert ran.status == 1
    assert "full.sock: address already in use" in ran.err
    assert ANSWER.fullmatch(served.connect().ask())


def test_clients_have_keepalive(shared_daemon: MakeDaemon) -> None:
    """The connection of a client that is unreachable ends."""
    served = shared_daemon(listen=EVERY_KIND)
    served.served()
    try:
        ran = run(["ss", "-Htno", f"sport = :{served.port}"], served.environment)
    except FileNotFoundError:
        pytest.skip("ss is not installed: apt-get install iproute2")
    assert "timer:(keepalive" in ran.out


def test_paths_are_relative_to_the_file(prepared: MakeDaemon) -> None:
    """Those of the pidfile, the control socket and the log."""
    served = prepared(daemon={"pidfile": "p", "control": "home/c"}, log={"file": "home/l"})
    served.pidfile = os.path.join(served.folder, "p")
    log = LogLines(os.path.join(served.folder, "home", "l"))
    served.start()
    until(lambda: log.find("server.started"), "the first line of the log")
    assert set(os.listdir(served.folder)) == {"home", "p", "tetrad.yaml"}
    assert set(os.listdir(os.path.join(served.folder, "home"))) == {"c", "l"}
    assert served.status()["pid"] == served.pid


def test_the_working_directory_is_that_of_the_file(daemon: MakeDaemon) -> None:
    """Every process has it, so that no other directory is busy."""
    served = daemon(daemon={"working_directory": "home"})
    served.served()
    places = {os.readlink(f"/proc/{pid}/cwd") for pid in served.processes}
    assert places == {os.path.join(served.folder, "home")}


def test_the_working_directory_is_the_root_by_default(shared_daemon: MakeDaemon) -> None:
    """A daemon does not prevent a file system from being unmounted."""
    served = shared_daemon(listen=EVERY_KIND)
    served.served()
    assert {os.readlink(f"/proc/{pid}/cwd") for pid in served.processes} == {"/"}


@pytest.mark.parametrize(("umask", "mode"), [("027", 0o640), ("077", 0o600), ("000", 0o666)])
def test_the_umask_is_that_of_the_file(daemon: MakeDaemon, umask: str, mode: int) -> None:
    """Every process has it, and the log gets the mode."""
    served = daemon(daemon={"umask": umask})
    served.wait_for("server.started")
    assert stat.S_IMODE(os.stat(served.log_file).st_mode) == mode
    assert {int(status_of(pid)["Umask"], 8) for pid in served.processes} == {int(umask, 8)}


@pytest.fixture(scope="module")
def nobodys(shared_nobodys_folder: str) -> Iterator[Daemon]:
    """Return a daemon of the user nobody, with a spare handler and a port below 1024."""
    settings: dict[str, Any] = {
        "daemon": {"user": "nobody"},
        "handlers": {"spare": 1},
        "listen": [{"port": free_low_port()}],
    }
    served = Daemon(shared_nobodys_folder, settings)
    try:
        yield served.start()
    finally:
        served.finish()


def identities(pid: int) -> tuple[set[str], set[str], list[str]]:
    """Return user ids, group ids and supplementary groups of a process."""
    status = status_of(pid)
    return set(status["Uid"].split()), set(status["Gid"].split()), status["Groups"].split()


@pytest.mark.quick
def test_privileges_are_dropped_permanently(nobodys: Daemon) -> None:
    """Every process has the user's uid, gid and groups, and no capability."""
    nobodys.served()
    groups = [str(group) for group in sorted(os.getgrouplist("nobody", NOBODY.pw_gid))]
    assert len(nobodys.processes) > 2
    for pid in nobodys.processes:
        assert identities(pid) == ({str(NOBODY.pw_uid)}, {str(NOBODY.pw_gid)}, groups)
        assert int(status_of(pid)["CapEff"], 16) == int(status_of(pid)["CapPrm"], 16) == 0
        assert status_of(pid)["NoNewPrivs"] == "1"


def test_the_user_owns_the_files(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """The user owns the log, and removes the pidfile and the control socket, which are root's."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    served.wait_for("server.started")
    names = ("tetrad.pid", "control.sock", "tetrad.log")
    owners = [os.stat(os.path.join(nobodys_folder, name)).st_uid for name in names]
    assert owners == [0, 0, NOBODY.pw_uid]
    served.stop()
    assert not {"tetrad.pid", "control.sock"} & set(os.listdir(nobodys_folder))


def test_a_low_port_is_bound_before_privileges_are_dropped(nobodys: Daemon) -> None:
    """The processes of an ordinary user serve the port."""
    assert [nobodys.port] == [listener["port"] for listener in nobodys.settings["listen"]]
    assert nobodys.port < 1024
    assert ANSWER.fullmatch(nobodys.connect().ask())


def test_the_group_can_be_set(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """`daemon.group` replaces the user's own group in every process."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody", "group": "daemon"})
    gids = {status_of(pid)["Gid"].split()[0] for pid in served.processes}
    assert gids == {"1"}


def test_a_daemon_that_dropped_privileges_stops_cleanly(
    daemon: MakeDaemon, nobodys_folder: str
) -> None:
    """The user can remove the files that root created."""
    served = daemon(
        folder=nobodys_folder, daemon={"user": "nobody"}, listen=[{"address": "unix:t.sock"}]
    )
    served.stop()
    assert set(os.listdir(nobodys_folder)) == {"home", "tetrad.log", "tetrad.yaml"}


def free_low_port() -> int:
    """Return a free port below 1024; tests that run in parallel begin at other numbers."""
    first = 600 + os.getpid() % 400
    for port in range(first, 1024):
        with socket.socket() as bound:
            try:
                bound.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip(
        "no port below 1024 is free, or this user may not bind to one: run the tests as root"
    )
