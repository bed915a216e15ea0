"""The service under systemd: starting, stopping, reloading, failures and killed processes."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.daemons import children_of, title_of, until
from tests.support.systemd_service import UNIT_TYPES, Service


@pytest.fixture(params=UNIT_TYPES)
def service(service: Service, request: pytest.FixtureRequest) -> Service:
    """Return the service with each type of unit."""
    service.use(request.param)
    return service


def test_systemctl_start_returns_when_clients_are_accepted(service: Service) -> None:
    """The unit is active, and the first client is served."""
    service.do("start", "tetrad")
    assert service.serves()
    assert service.state == "active"


def test_systemctl_stop_returns_when_all_processes_have_ended(service: Service) -> None:
    """A stop is not a failure."""
    service.do("start", "tetrad")
    service.do("stop", "tetrad")
    assert (service.state, service.get_property("Result")) == ("inactive", "success")
    assert service.events()[-1]["event"] == "server.stopped"


def test_a_restart_starts_another_master(service: Service) -> None:
    """`systemctl restart` returns when the new master accepts clients."""
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
    """The unit's sandbox allows two upgrades in a row; systemd sees the same service."""
    service.do("start", "tetrad")
    before = service.master
    client = service.connect()
    with client.socket:
        for _ in range(2):
            ran = service.container.tetrad("upgrade")
            assert f"(pid {before}, 1 session kept)" in ran.out, ran.err
        assert client.quit() == b"quit"
    assert (service.state, service.master, service.get_property("NRestarts")) == (
        "active",
        before,
        "0",
    )
    assert service.serves()


def test_run_commands_work_in_the_sandbox(service: Service) -> None:
    """The program is executed, its exit status is logged, and no process is left."""
    commands = {"echo": {"run": ["printf", "hello"]}, "fail": {"run": ["sh", "-c", "exit 3"]}}
    service.configure(commands=commands)
    service.do("start", "tetrad")
    client = service.connect()
    with client.socket:
        client.send(b"echofailquit")
        assert client.read_all() == b"helloquit"
    until(lambda: service.commands() == 3, "the log")
    logged = [event for event in service.events() if event["event"] == "client.command"]
    assert [event.get("status") for event in logged] == [0, 3, None]


def test_a_bad_file_fails_the_reload(service: Service) -> None:
    """`systemctl reload` fails with the reason, and the old configuration stays in use."""
    service.do("start", "tetrad")
    service.configure(listen=[{"port": 70000}])
    assert service.systemctl("reload", "tetrad").status != 0
    service.wait_for_status_text("listen[0].port")
    assert service.state == "active"
    assert service.serves()


def test_an_enabled_service_starts_at_boot(service: Service) -> None:
    """It is active after a reboot."""
    service.do("enable", "tetrad")
    try:
        service.container.reboot()
        assert service.state == "active"
        assert service.serves()
    finally:
        service.do("disable", "tetrad")


def test_a_taken_port_fails_the_start(service: Service) -> None:
    """`systemctl status` shows the reason; once the port is free, systemd starts the service."""
    with service.container.listening(65000):
        assert service.systemctl("start", "tetrad").status != 0
        service.wait_for_status_text("127.0.0.1:65000: address already in use")
    until(lambda: service.state == "active", "the start at a free port")
    assert service.serves()


def test_a_bad_file_fails_the_start(service: Service) -> None:
    """`systemctl start` fails with all problems."""
    service.configure(listen=[{"port": 70000, "servce": "echo"}])
    assert service.systemctl("start", "tetrad").status != 0
    service.wait_for_status_text("listen[0].port")
    service.wait_for_status_text("did you mean service?")


def test_a_missing_user_fails_the_start(service: Service) -> None:
    """Without its user the service does not start as another user."""
    service.drop_in("[Service]\nUser=ghost\n")
    assert service.systemctl("start", "tetrad").status != 0
    service.wait_for_status_text("USER")


def test_a_killed_master_is_replaced(service: Service) -> None:
    """After `kill -9` all processes of the old daemon end, and a new one serves."""
    service.do("start", "tetrad")
    with service.connect().socket as client:
        before = service.master
        os.kill(service.outside("master"), signal.SIGKILL)
        assert client.recv(1) == b""
    service.wait_for_new_master(before)
    assert service.serves()


def test_a_killed_logger_is_replaced_by_the_master(service: Service) -> None:
    """The service is not restarted for it, and the log continues."""
    service.do("start", "tetrad")
    before = service.outside("logger")
    os.kill(before, signal.SIGKILL)
    until(lambda: _is_replaced(service, before), "another logger")
    assert service.serves()
    until(service.commands, "the log of it")
    assert service.get_property("NRestarts") == "0"


def test_a_killed_handler_ends_one_session(service: Service) -> None:
    """Other sessions and the service continue."""
    service.do("start", "tetrad")
    one, other = service.connect(), service.connect()
    assert one.ask()
    assert other.ask()
    os.kill(service.outside(f"handler {one.name}"), signal.SIGKILL)
    assert one.read(1) == b""
    assert other.ask()
    one.close()
    other.close()
    assert service.get_property("NRestarts") == "0"


def test_the_watchdog_replaces_a_hanging_master(service: Service) -> None:
    """The watchdog kills a stopped master, and systemd starts another one."""
    service.drop_in("[Service]\nWatchdogSec=2\n")
    service.do("start", "tetrad")
    before = service.master
    os.kill(service.outside("master"), signal.SIGSTOP)
    service.wait_for_new_master(before)
    service.wait_for_journal_text("Watchdog timeout")
    assert service.serves()


def test_the_watchdog_accepts_a_working_master(service: Service) -> None:
    """The master sends keep-alive notifications for longer than WatchdogSec."""
    service.drop_in("[Service]\nWatchdogSec=1\n")
    service.do("start", "tetrad")
    before = service.master
    began = int(service.get_property("ActiveEnterTimestampMonotonic"))

    def was_notified() -> bool:
        return int(service.get_property("WatchdogTimestampMonotonic")) > began + 3_000_000

    until(was_notified, "three seconds of watchdog notifications")
    assert service.master == before


def test_the_status_text_shows_listeners_and_clients(service: Service) -> None:
    """`systemctl status` shows the listeners and the number of clients."""
    service.do("start", "tetrad")
    with service.connect().socket:
        wanted = "127.0.0.1:65000 (command); 1 client"
        until(lambda: service.get_property("StatusText") == wanted, "a status with its client")
    wanted = "127.0.0.1:65000 (command); 0 clients"
    until(lambda: service.get_property("StatusText") == wanted, "a status without it")


def _is_replaced(service: Service, logger: int) -> bool:
    children = children_of(service.outside("master"))
    return logger not in children and "tetrad: logger" in [title_of(pid) for pid in children]
