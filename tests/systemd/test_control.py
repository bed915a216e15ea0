"""The control socket of the service: root, members of `daemon.control_group`, other users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.processes import Ran
    from tests.support.systemd_service import Service

ALL_USERS = "[Service]\nPrivateUsers=no\n"


def ask(service: Service, group: str, command: str = "status") -> Ran:
    """Run a command as a user with this group only."""
    become = ("setpriv", "--reuid=54321", f"--regid={group}", "--clear-groups")
    return service.container.run(*become, *service.container.tetrad_command(command))


@pytest.mark.parametrize(("group", "drop_in"), [("tetrad", ""), ("daemon", ALL_USERS)])
def test_members_of_the_group_are_answered(service: Service, group: str, drop_in: str) -> None:
    """The unit's own group as it is, every other one with PrivateUsers=no."""
    if drop_in:
        service.drop_in(drop_in)
    service.configure(daemon={"control_group": group})
    service.do("start", "tetrad")
    assert ask(service, group).status == 0
    assert service.container.tetrad("status").status == 0
    ran = ask(service, "users")
    assert (ran.status, ran.out) == (4, "")
    assert "nor in daemon.control_group" in ran.err
    assert "PrivateUsers" not in ran.err
    assert ask(service, group, "stop").status == 4
    assert service.state == "active"


def test_a_group_that_the_service_cannot_see_is_explained(service: Service) -> None:
    """With PrivateUsers=yes the groups of the host have no ids in the service."""
    service.configure(daemon={"control_group": "daemon"})
    service.do("start", "tetrad")
    ran = ask(service, "daemon")
    assert ran.status == 4
    assert "PrivateUsers=yes in the unit hides" in ran.err


def test_the_services_daemon_is_found_by_every_user(service: Service) -> None:
    """Who may not ask is told that; nobody is told that it does not run."""
    service.do("start", "tetrad")
    for command in ("status", "stop", "reload", "upgrade"):
        ran = ask(service, "users", command)
        assert (ran.status, ran.out) == (4, ""), (command, ran)
    service.container.do("rm", "/run/tetrad/tetrad.pid")
    assert ask(service, "users", "stop").status == 4
    service.stop()
    ran = ask(service, "users")
    assert (ran.status, ran.out) == (3, "tetrad: not running (pidfile /run/tetrad/tetrad.pid)\n")
