"""The service under systemd: its life, its failures, and what happens when parts of it die."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from daemons import children_of, title_of, until

if TYPE_CHECKING:
    from .service import Service


def test_it_serves_as_soon_as_it_is_started(service: Service) -> None:
    """`systemctl start` returns when clients are accepted."""
    service.do("start", "tetrad")
    assert service.serves()
    assert service.state == "active"


def test_it_is_gone_when_it_is_stopped(service: Service) -> None:
    """`systemctl stop` returns when nothing is left, and that is no failure."""
    service.do("start", "tetrad")
    service.do("stop", "tetrad")
    assert (service.state, service.shows("Result")) == ("inactive", "success")
    assert service.events()[-1]["event"] == "server.stopped"


def test_a_restart_is_another_master(service: Service) -> None:
    """`systemctl restart` returns when the next master accepts clients."""
    service.do("start", "tetrad")
    before = service.master
    service.do("restart", "tetrad")
    assert service.master != before
    assert service.serves()


def test_a_reload_applies_the_file(service: Service) -> None:
    """`systemctl reload` returns when the new listener accepts clients; the master stays."""
    service.do("start", "tetrad")
    before = service.master
    service.configure(listen=[{"port": 65000}, {"port": 65001}])
    service.do("reload", "tetrad")
    assert service.serves(65001)
    assert service.master == before


def test_an_upgrade_keeps_the_master_and_its_sessions(service: Service) -> None:
    """What the unit forbids does not matter to it, twice, and systemd sees the same service."""
    service.do("start", "tetrad")
    before = service.master
    client = service.connect()
    with client.socket:
        for _ in range(2):
            ran = service.container.tetrad("upgrade")
            assert f"(pid {before}, 1 session kept)" in ran.out, ran.err
        assert client.quit() == b"quit"
    assert (service.state, service.master, service.shows("NRestarts")) == ("active", before, "0")
    assert service.serves()


def test_a_program_runs_within_what_the_unit_allows(service: Service) -> None:
    """It is executed, its true status is known, and nothing of it is left."""
    commands = {"echo": {"run": ["printf", "hello"]}, "fail": {"run": ["sh", "-c", "exit 3"]}}
    service.configure(commands=commands)
    service.do("start", "tetrad")
    client = service.connect()
    with client.socket:
        client.send(b"echofailquit")
        assert client.read_all() == b"helloquit"
    until(lambda: service.commands() == 3, "the log")
    told = [event for event in service.events() if event["event"] == "client.command"]
    assert [event.get("status") for event in told] == [0, 3, None]


def test_a_bad_file_fails_the_reload(service: Service) -> None:
    """`systemctl reload` fails with the reason, and the old configuration serves on."""
    service.do("start", "tetrad")
    service.configure(listen=[{"port": 70000}])
    assert service.systemctl("reload", "tetrad").status != 0
    service.reports("listen[0].port")
    assert service.state == "active"
    assert service.serves()


def test_it_comes_back_with_the_machine(service: Service) -> None:
    """Enabled, it is started by a boot."""
    service.do("enable", "tetrad")
    try:
        service.container.reboot()
        assert service.state == "active"
        assert service.serves()
    finally:
        service.do("disable", "tetrad")


def test_a_port_that_is_taken_fails_the_start(service: Service) -> None:
    """`systemctl start` fails, and `systemctl status` says why; once the port is free it starts."""
    with service.container.listening(65000):
        assert service.systemctl("start", "tetrad").status != 0
        service.reports("127.0.0.1:65000: address already in use")
    until(lambda: service.state == "active", "the start at a free port")
    assert service.serves()


def test_a_bad_file_fails_the_start(service: Service) -> None:
    """`systemctl start` fails with every problem, and the trying has an end."""
    service.configure(listen=[{"port": 70000, "servce": "echo"}])
    assert service.systemctl("start", "tetrad").status != 0
    until(lambda: service.state == "failed", "the end of the trying")
    service.reports("listen[0].port")
    service.reports("did you mean service?")


def test_in_the_newer_style_a_bad_file_is_not_tried_again(service: Service) -> None:
    """With `Type=notify` systemd knows the exit status of a bad configuration."""
    service.drop_in(service.container.example("notify.conf"))
    service.configure(listen=[{"port": 70000}])
    assert service.systemctl("start", "tetrad").status != 0
    service.reports("listen[0].port")
    assert (service.state, service.shows("NRestarts")) == ("failed", "0")


def test_a_user_that_is_not_there_fails_the_start(service: Service) -> None:
    """Without its user the service does not start as somebody else."""
    service.drop_in("[Service]\nUser=ghost\n")
    assert service.systemctl("start", "tetrad").status != 0
    service.reports("USER")


def test_a_killed_master_is_replaced(service: Service) -> None:
    """After `kill -9` nothing of the old daemon is left, and a new one serves."""
    service.do("start", "tetrad")
    with service.connect().socket as client:
        before = service.master
        os.kill(service.outside("master"), signal.SIGKILL)
        assert client.recv(1) == b""
    service.replaced(before)
    assert service.serves()


def test_a_killed_logger_is_replaced_by_the_master(service: Service) -> None:
    """The service does not restart for it, and the log goes on."""
    service.do("start", "tetrad")
    before = service.outside("logger")
    os.kill(before, signal.SIGKILL)
    until(lambda: _is_replaced(service, before), "another logger")
    assert service.serves()
    until(service.commands, "the log of it")
    assert service.shows("NRestarts") == "0"


def test_a_killed_handler_is_one_lost_session(service: Service) -> None:
    """The others, and the service, go on."""
    service.do("start", "tetrad")
    one, other = service.connect(), service.connect()
    assert one.ask()
    assert other.ask()
    os.kill(service.outside(f"handler {one.name}"), signal.SIGKILL)
    assert one.read(1) == b""
    assert other.ask()
    one.close()
    other.close()
    assert service.shows("NRestarts") == "0"


def test_a_master_that_stands_still_is_replaced(service: Service) -> None:
    """The watchdog ends it, and another one is started."""
    service.drop_in("[Service]\nWatchdogSec=2\n")
    service.do("start", "tetrad")
    before = service.master
    os.kill(service.outside("master"), signal.SIGSTOP)
    service.replaced(before)
    service.is_logged("Watchdog timeout")
    assert service.serves()


def test_a_master_that_works_is_left_alone(service: Service) -> None:
    """It is heard for longer than the watchdog's patience lasts."""
    service.drop_in("[Service]\nWatchdogSec=1\n")
    service.do("start", "tetrad")
    before = service.master
    began = int(service.shows("ActiveEnterTimestampMonotonic"))

    def heard() -> bool:
        return int(service.shows("WatchdogTimestampMonotonic")) > began + 3_000_000

    until(heard, "three seconds of signs of life")
    assert service.master == before


def test_its_status_is_what_it_does(service: Service) -> None:
    """`systemctl status` shows the listeners and how many clients there are."""
    service.do("start", "tetrad")
    with service.connect().socket:
        wanted = "127.0.0.1:65000 (command); 1 client"
        until(lambda: service.shows("StatusText") == wanted, "a status with its client")
    wanted = "127.0.0.1:65000 (command); 0 clients"
    until(lambda: service.shows("StatusText") == wanted, "a status without it")


@pytest.mark.parametrize("order", ["start", "restart"])
def test_it_runs_in_the_newer_style(service: Service, order: str) -> None:
    """With `Type=notify` systemd watches the process that it started itself."""
    service.drop_in(service.container.example("notify.conf"))
    service.do(order, "tetrad")
    assert service.serves()
    service.do("reload", "tetrad")
    service.do("stop", "tetrad")
    assert service.shows("Result") == "success"


def _is_replaced(service: Service, logger: int) -> bool:
    children = children_of(service.outside("master"))
    return logger not in children and "tetrad: logger" in [title_of(pid) for pid in children]
