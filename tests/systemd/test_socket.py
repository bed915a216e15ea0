"""Socket activation: systemd listens, so nobody who comes at a bad moment is turned away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemons import until

from .service import Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .service import Service


@pytest.fixture(params=["", "--socket"], ids=["open", "by socket only"])
def activated(service: Service, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Return the service with its socket started: as it is, and tightened."""
    install = service.container.tetrad_command("install")
    service.container.do(*install, *filter(None, [request.param]))
    service.do("start", "tetrad.socket")
    yield service
    service.stop()
    service.container.do(*install, "--no-socket")


def test_a_client_starts_the_service(activated: Service) -> None:
    """A connection that comes while the service is down is served."""
    assert activated.state == "inactive"
    assert activated.serves()
    until(lambda: activated.state == "active", "the end of the start")


def test_a_restart_under_load_loses_nobody(activated: Service) -> None:
    """Whoever comes while there is no daemon waits for the next one."""
    with Load(activated, clients=4) as load:
        for _ in range(3):
            activated.do("restart", "tetrad")
            load.go_on()
    assert not load.failures


def test_a_listener_that_systemd_has_not_is_told(activated: Service) -> None:
    """A listener that is only in the configuration fails the start, and the reason is told."""
    activated.configure(listen=[{"port": 65000}, {"port": 65001}])
    assert activated.systemctl("start", "tetrad").status != 0
    activated.reports("none for listen[1]: add it to tetrad.socket")


def test_a_listener_that_only_systemd_has_is_told(activated: Service) -> None:
    """A socket that nobody would accept from fails the start, and the reason is told."""
    activated.configure(listen=[{"port": 65001}])
    assert activated.systemctl("start", "tetrad").status != 0
    activated.reports("127.0.0.1:65001: systemd passed listeners, but none")


def test_a_reload_cannot_move_what_systemd_opened(activated: Service) -> None:
    """A reload with other listeners fails with what to do instead, and everything serves on."""
    activated.do("start", "tetrad")
    activated.configure(listen=[{"port": 65000}, {"port": 65001}])
    assert activated.systemctl("reload", "tetrad").status != 0
    activated.reports("change tetrad.socket, too")
    assert activated.serves()
