"""Socket activation: systemd listens, so that no client is refused while the daemon is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import until
from tests.support.session_load import Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service


@pytest.fixture(params=["", "--socket"], ids=["open", "by socket only"])
def activated(service: Service, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Return the service with its socket started, with the default and the tightened unit."""
    install = service.container.tetrad_command("install")
    service.container.do(*install, *filter(None, [request.param]))
    service.do("start", "tetrad.socket")
    yield service
    service.stop()
    service.container.do(*install, "--no-socket")


def test_a_client_starts_the_service(activated: Service) -> None:
    """A connection to the stopped service starts it and is served."""
    assert activated.state == "inactive"
    assert activated.serves()
    until(lambda: activated.state == "active", "the end of the start")


def test_a_restart_under_load_loses_no_client(activated: Service) -> None:
    """Clients that connect while there is no daemon wait for the next one."""
    with Load(activated.connect, clients=4) as load:
        for _ in range(3):
            activated.do("restart", "tetrad")
            load.wait_for_sessions()
    assert not load.failures


def test_a_listener_without_a_socket_is_reported(activated: Service) -> None:
    """A listener that exists only in the configuration fails the start."""
    activated.configure(listen=[{"port": 65000}, {"port": 65001}])
    assert activated.systemctl("start", "tetrad").status != 0
    activated.wait_for_status_text("no socket for listen[1]: add ListenStream= to tetrad.socket")


def test_a_socket_without_a_listener_is_reported(activated: Service) -> None:
    """A socket that exists only in the unit fails the start."""
    activated.configure(listen=[{"port": 65001}])
    assert activated.systemctl("start", "tetrad").status != 0
    activated.wait_for_status_text("127.0.0.1:65001: systemd passed no socket for")


def test_a_reload_cannot_change_systemds_sockets(activated: Service) -> None:
    """The reload fails and names the unit to change; the old listeners stay in use."""
    activated.do("start", "tetrad")
    activated.configure(listen=[{"port": 65000}, {"port": 65001}])
    assert activated.systemctl("reload", "tetrad").status != 0
    activated.wait_for_status_text("change tetrad.socket too")
    assert activated.serves()
