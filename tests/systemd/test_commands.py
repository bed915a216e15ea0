"""Root's `tetrad start`, `stop` and `restart` where the service is installed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import status_of, until
from tests.support.systemd_service import CONFIGURATION, LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Ran
    from tests.support.systemd_service import Service

STARTED = r"tetrad: started \(pid (\d+)\), listening on 127\.0\.0\.1:65000 \(command\)\n"


@pytest.fixture
def by_hand(service: Service) -> Iterator[int]:
    """Start a daemon by hand beside the service, and return its pid."""
    ran = done(service, "start", "--no-systemd")
    (pid,) = re.findall(STARTED, ran.out)
    yield int(pid)
    service.stop()
    service.container.tetrad("stop", "--no-systemd")
    service.container.run("sh", "-c", f"! kill -QUIT {pid}")


def done(service: Service, *arguments: str) -> Ran:
    """Run a tetrad command that must succeed."""
    ran = service.container.tetrad(*arguments)
    assert ran.status == 0, ran.err
    return ran


@pytest.mark.parametrize("options", [[], ["-c", CONFIGURATION]], ids=["default file", "-c"])
def test_they_go_through_systemctl(service: Service, options: list[str]) -> None:
    """The daemon is the unit's: its user, its process group, its state in systemd."""
    started = done(service, *options, "start")
    assert re.fullmatch(f"tetrad: systemctl start tetrad.service\n{STARTED}", started.out)
    assert service.state == "active"
    first = service.master
    restarted = done(service, *options, "restart")
    assert restarted.out == (
        "tetrad: systemctl restart tetrad.service\n"
        f"tetrad: started (pid {service.master}), listening on 127.0.0.1:65000 (command)\n"
    )
    assert service.master != first
    user = service.container.do("id", "-u", "tetrad").strip()
    assert set(status_of(service.outside("master"))["Uid"].split()) == {user}
    last = service.master
    stopped = done(service, *options, "stop")
    assert stopped.out == (f"tetrad: systemctl stop tetrad.service\ntetrad: stopped (pid {last})\n")
    assert (service.state, service.get_property("Result")) == ("inactive", "success")


def test_what_is_so_already_needs_no_systemctl(service: Service) -> None:
    """A second start, and a stop of a stopped service, change nothing."""
    service.do("start", "tetrad")
    before = service.master
    assert done(service, "start").out == f"tetrad: already running (pid {before})\n"
    assert service.master == before
    service.do("stop", "tetrad")
    assert done(service, "stop").out.startswith("tetrad: not running")


def test_the_first_start_leaves_the_log_to_the_service(service: Service) -> None:
    """The service writes the log that root's `tetrad start` has begun."""
    service.container.do("rm", "-rf", LOG)
    done(service, "start")
    service.do("restart", "tetrad")
    owner = service.container.do("stat", "-c", "%U:%G", LOG)
    assert owner == "tetrad:tetrad\n"


@pytest.mark.parametrize("unit", ["default", "notify.conf"])
def test_files_that_root_has_left_do_not_keep_the_service_from_starting(
    service: Service, unit: str
) -> None:
    """A log and a pidfile of root in the service's folders, as an earlier daemon of root left."""
    if unit != "default":
        service.drop_in(service.container.example(unit))
        service.configure(log={"file": LOG})
    leave = f"mkdir -p /run/tetrad; umask 077; touch {LOG} /run/tetrad/tetrad.pid"
    service.container.do("sh", "-euc", leave)
    service.do("start", "tetrad")
    assert service.serves()
    until(service.commands, "the log")


def test_a_bad_file_is_refused_before_systemctl(service: Service) -> None:
    """The service keeps running, and the mistake is printed with its place."""
    service.do("start", "tetrad")
    before = service.master
    service.configure(listen=[{"port": 70000}])
    ran = service.container.tetrad("restart")
    assert (ran.status, ran.out) == (78, "")
    assert "listen[0].port" in ran.err
    assert (service.state, service.master) == ("active", before)


def test_what_prevents_a_start_is_found_before_systemctl(service: Service) -> None:
    """The service is not stopped for an address that does not exist."""
    service.do("start", "tetrad")
    before = service.master
    service.configure(listen=[{"address": "192.0.2.99"}])
    ran = service.container.tetrad("restart")
    assert ran.status == 1
    assert "not stopped, because the daemon could not start again; 192.0.2.99:65000" in ran.err
    assert service.master == before


def test_a_failed_start_has_the_reason(service: Service) -> None:
    """The reason of the service, whose tries go on; `tetrad stop` ends them."""
    with service.container.listening(65000):
        ran = service.container.tetrad("start")
    assert ran.status == 1
    assert "systemctl start tetrad.service failed: 127.0.0.1:65000: address already" in ran.err
    assert "systemd tries again" in ran.err
    assert "tetrad: systemctl stop tetrad.service\ntetrad: not running" in done(service, "stop").out
    assert service.state == "inactive"


def test_stop_ends_the_tries_with_a_bad_file(service: Service) -> None:
    """The pidfile is not needed for it."""
    service.configure(daemon={"pidfile": 5})
    assert service.systemctl("start", "tetrad").status != 0
    done(service, "stop")
    assert service.state == "inactive"


def test_they_use_the_unit_that_runs_in_the_foreground(service: Service) -> None:
    """With Type=notify, a daemon may log to standard error."""
    service.drop_in(service.container.example("notify.conf"))
    service.configure(log={"file": None})
    assert re.search(STARTED, done(service, "start").out)
    assert re.search(STARTED, done(service, "restart").out)
    assert f"stopped (pid {service.master})" in done(service, "stop").out


def test_another_file_is_by_hand(service: Service) -> None:
    """The unit has nothing to do with a daemon of another file."""
    file = "/etc/tetrad/other.yaml"
    settings = "{pidfile: /run/other.pid, control: /run/other.sock}"
    listen = "[{port: 65001}]"
    service.container.write(
        file, f"listen: {listen}\ndaemon: {settings}\nlog: {{file: /run/other.log}}\n"
    )
    assert "systemctl" not in done(service, "-c", file, "start").out
    assert service.serves(65001)
    assert service.state == "inactive"
    assert "tetrad: stopped" in done(service, "-c", file, "stop").out
    service.container.do("rm", file, "/run/other.log")


def test_the_file_of_a_unit_may_be_in_its_environment_or_command(service: Service) -> None:
    """`TETRAD_CONFIG` of the unit counts, not root's; and -c before it."""
    folder = "/etc/tetrad"
    python = service.container.do("sh", "-c", "systemctl cat tetrad | grep -m1 ExecStart=").strip()
    service.drop_in(f"[Service]\nEnvironment=TETRAD_CONFIG={folder}/one.yaml\n")
    service.container.write(f"{folder}/one.yaml", "{}")
    service.container.write(f"{folder}/two.yaml", "{}")
    assert "systemctl start" in done(service, "-c", f"{folder}/one.yaml", "start").out
    assert "systemctl stop" in done(service, "-c", f"{folder}/one.yaml", "stop").out
    service.drop_in(f"[Service]\nExecStart=\n{python} -c {folder}/two.yaml\n")
    assert "systemctl start" in done(service, "-c", f"{folder}/two.yaml", "start").out
    assert "systemctl stop" in done(service, "-c", f"{folder}/two.yaml", "stop").out
    service.container.do("rm", f"{folder}/one.yaml", f"{folder}/two.yaml")


def test_a_daemon_that_was_started_by_hand_is_not_touched(service: Service, by_hand: int) -> None:
    """Each command names it and the way out."""
    start = done(service, "start")
    assert start.out.startswith(f"tetrad: already running (pid {by_hand}); ")
    ran = {verb: service.container.tetrad(verb) for verb in ("restart", "stop")}
    text = f"(pid {by_hand}) was started by hand and does not belong to tetrad.service"
    for one in (start.out, ran["restart"].err, ran["stop"].err):
        assert text in one
        assert "tetrad stop --no-systemd" in one
    assert {one.status for one in ran.values()} == {1}
    assert service.serves()
    assert "tetrad: stopped" in done(service, "stop", "--no-systemd").out


def test_the_service_does_not_take_a_foreign_daemon_for_its_own(
    service: Service, by_hand: int
) -> None:
    """`systemctl start` fails and names it, and the next try after its end succeeds."""
    assert service.systemctl("start", "tetrad").status != 0
    service.wait_for_status_text(f"(pid {by_hand}) was started by hand")
    assert service.serves()
    service.container.do("kill", str(by_hand))
    until(lambda: service.state == "active", "the start after its end")
    assert service.serves()


def test_systemd_itself_does_not_use_systemctl(service: Service) -> None:
    """A unit of root is started without a second job for the same unit."""
    service.drop_in("[Service]\nUser=root\nGroup=root\n")
    service.do("start", "tetrad")
    assert service.serves()
    service.wait_for_journal_text("tetrad: started")
    service.do("stop", "tetrad")
    service.container.do("chown", "-R", "tetrad:tetrad", "/var/log/tetrad")
