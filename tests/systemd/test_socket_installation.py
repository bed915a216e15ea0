"""`tetrad install --socket` and `--no-socket` do all that socket activation needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import ANSWER, until
from tests.support.session_load import Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service


@pytest.fixture
def activated(service: Service) -> Iterator[Service]:
    """Return the enabled, running service after `install --socket`."""
    service.do("enable", "--now", "tetrad")
    service.container.do(*service.container.tetrad_command("install", "--socket"))
    yield service
    service.container.do(*service.container.tetrad_command("install", "--no-socket"))
    service.do("disable", "--now", "tetrad")


def state_of_socket(service: Service) -> list[str]:
    """Return whether systemd listens, now and at boot."""
    states = [service.systemctl(f"is-{one}", "tetrad.socket").out for one in ("active", "enabled")]
    return [state.strip() for state in states]


def test_it_switches_a_running_service(activated: Service) -> None:
    """No client is refused during a restart."""
    assert state_of_socket(activated) == ["active", "enabled"]
    assert activated.state == "active"
    with Load(activated.connect, clients=2) as load:
        activated.do("restart", "tetrad")
        load.wait_for_sessions()
    assert not load.failures


def test_a_second_installation_changes_nothing(activated: Service) -> None:
    """The service is not restarted for it."""
    before = activated.master
    ran = activated.container.tetrad("install", "--socket")
    assert "already installed, nothing changed" in ran.out
    assert activated.master == before


def test_it_takes_the_listeners_of_the_file(activated: Service) -> None:
    """After a change of the file, the same command applies it to both."""
    path = "/run/tetrad/echo.sock"
    listen = [{"address": "::", "port": 65002}, {"address": f"unix:{path}", "service": "echo"}]
    activated.configure(listen=listen)
    activated.container.do(*activated.container.tetrad_command("install", "--socket"))
    for host in ("127.0.0.1", "::1"):
        assert activated.container.tetrad("client", "--host", host, "--port", "65002", "time").out
    ran = activated.container.tetrad("client", "--host", f"unix:{path}", "--service", "echo", "hi")
    assert ran.out == "hi\n"
    assert activated.container.do("stat", "-c", "%U %a", path) == "tetrad 750\n"
    activated.configure()


def test_a_stopped_service_stays_stopped_until_a_client_comes(service: Service) -> None:
    """The service itself need not be enabled."""
    service.container.do(*service.container.tetrad_command("install", "--socket"))
    assert (service.state, state_of_socket(service)) == ("inactive", ["active", "enabled"])
    client = service.connect()
    assert ANSWER.fullmatch(client.ask())
    client.close()
    until(lambda: service.state == "active", "the end of the start")
    service.container.do(*service.container.tetrad_command("install", "--no-socket"))


def test_no_socket_switches_back(activated: Service) -> None:
    """The service listens itself."""
    activated.container.do(*activated.container.tetrad_command("install", "--no-socket"))
    assert state_of_socket(activated) == ["inactive", "disabled"]
    assert activated.state == "active"
    assert activated.serves()
    activated.configure(listen=[{"port": 65000}, {"port": 65001}])
    activated.do("reload", "tetrad")
    assert activated.serves(65001)
    activated.configure()


def test_tetrad_stop_says_that_the_socket_starts_it_again(activated: Service) -> None:
    """It is systemctl's warning."""
    ran = activated.container.tetrad("stop")
    assert ran.status == 0
    assert "tetrad.socket" in ran.err


def test_the_command_is_in_the_path_of_root(service: Service) -> None:
    """After `tetrad install`."""
    assert service.container.do("sh", "-lc", "command -v tetrad") == "/usr/local/bin/tetrad\n"
    service.do("start", "tetrad")
    assert "running" in service.container.do("tetrad", "status")
