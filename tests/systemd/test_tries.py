"""A start that fails is tried again, without a limit, until what was missing is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.daemons import ANSWER, until
from tests.support.systemd_service import UNIT_TYPES, Service

if TYPE_CHECKING:
    import pathlib

    from tests.support.systemd_container import Container

MANY = 6
"""More tries than systemd's own limit of five."""

LATE = "192.0.2.77"
"""An address that the container gets later."""


@pytest.fixture(params=UNIT_TYPES)
def service(service: Service, request: pytest.FixtureRequest) -> Service:
    """Return the service with each type of unit, with short pauses between the tries."""
    service.use(request.param)
    service.drop_in("[Service]\nRestartSec=100ms\n", "fast")
    return service


def fail(service: Service) -> None:
    """Start it in vain, and wait for some more tries."""
    assert service.systemctl("start", "tetrad").status != 0
    until(lambda: int(service.get_property("NRestarts")) >= MANY, "more tries")


def wait_for_reason(service: Service, text: str) -> None:
    """Wait for a text in the status; it is empty while a try is made."""
    until(lambda: text in service.get_property("StatusText"), text)


def test_a_repaired_file_starts_with_one_restart(service: Service) -> None:
    """However many tries have failed; nothing of the mistake is left."""
    service.configure(listen=[{"port": 70000}])
    fail(service)
    service.configure()
    service.do("restart", "tetrad")
    assert service.serves()
    wanted = "127.0.0.1:65000 (command)"
    until(lambda: service.get_property("StatusText").startswith(wanted), "the status")


def test_a_repaired_file_starts_by_itself(service: Service) -> None:
    """With the next try."""
    service.configure(listen=[{"port": 70000}])
    fail(service)
    service.configure()
    until(lambda: service.state == "active", "the next try")
    assert service.serves()


def test_the_status_is_that_of_the_last_try(service: Service) -> None:
    """A second mistake replaces the first one."""
    for key in ("prot", "adress"):
        service.configure(listen=[{key: "x"}])
        assert service.systemctl("restart", "tetrad").status != 0
        wait_for_reason(service, f"].{key}: unknown key")


def test_an_address_that_comes_late_is_waited_for(service: Service) -> None:
    """As one that a network configures after the boot."""
    service.configure(listen=[{"address": LATE}])
    fail(service)
    wait_for_reason(service, "no network interface")
    service.container.do("ip", "address", "add", f"{LATE}/32", "dev", "lo")
    try:
        until(lambda: service.state == "active", "the next try")
        client = service.container.connect(LATE)
        assert ANSWER.fullmatch(client.ask())
        client.close()
    finally:
        service.stop()
        service.container.do("ip", "address", "del", f"{LATE}/32", "dev", "lo")


def test_an_interface_that_comes_late_is_waited_for(service: Service) -> None:
    """A link-local address belongs to an interface, which a network adds after the boot."""
    container = service.container
    service.configure(listen=[{"address": "fe80::77%late0"}])
    fail(service)
    wait_for_reason(service, "there is no network interface late0")
    container.do("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    try:
        container.do("ip", "address", "add", "fe80::77/64", "dev", "late0", "nodad")
        for name in ("late0", "late1"):
            container.do("ip", "link", "set", name, "up")
        until(lambda: service.state == "active", "the next try")
        assert container.tetrad("client", "time").status == 0
    finally:
        service.stop()
        container.do("ip", "link", "del", "late0")


@needs_openssl
def test_a_clock_that_is_set_late_is_waited_for(service: Service, tmp_path: pathlib.Path) -> None:
    """A certificate that is not valid yet becomes valid."""
    ours = Authority(str(tmp_path / "ca")).issue("ours", since=10.0)
    tls = {"certificate": "/etc/tetrad/ours.pem", "key": "/etc/tetrad/ours.key"}
    for path, target in zip(ours, tls.values(), strict=True):
        with open(path, encoding="ascii") as file:
            service.container.write(target, file.read())
    service.configure(listen=[{"tls": tls}])
    assert service.systemctl("start", "tetrad").status != 0
    wait_for_reason(service, "not valid before")
    until(lambda: service.state == "active", "a valid certificate")
    service.stop()
    service.container.do("rm", *tls.values())


def test_the_tries_have_a_pace(container: Container) -> None:
    """With the unit as it is installed: one every few seconds, without a limit."""
    Service(container).reset()
    show = ("systemctl", "show", "--property=RestartUSec,StartLimitIntervalUSec", "tetrad.service")
    assert set(container.do(*show).split()) == {"RestartUSec=5s", "StartLimitIntervalUSec=0"}
