"""The portable service: an image of the installed tetrad is attached, used and detached."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import status_of, until
from tests.support.system_programs import require
from tests.support.systemd_container import PREFIX
from tests.support.systemd_service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_container import Container

SHIPPED = f"{PREFIX}/lib/python3*/site-packages/tetrad/data/systemd/portable"
PROFILES = "/etc/systemd/portable/profile"
IMAGE = "/var/lib/portables/tetrad_1"
NEXT = "/var/lib/portables/tetrad_2"

FOLDERS = "/var/log/tetrad /var/log/private/tetrad /var/lib/tetrad /var/lib/private/tetrad"


@pytest.fixture(scope="module")
def machine(container: Container) -> Iterator[Container]:
    """Return a container with an image, but without an installed tetrad and its user."""
    require("portablectl", "dbus-daemon")  # the container has this machine's programs
    if os.path.realpath(sys.executable).startswith(("/root/", "/home/")):
        pytest.skip("portable services cannot read a Python in a home: use /usr/bin/python3")
    sh = ("sh", "-euc")
    container.do(*container.tetrad_command("uninstall"))
    container.do(*sh, f"userdel tetrad; rm -rf {FOLDERS}")
    container.do(*sh, f"sh {SHIPPED}/build {IMAGE} {PREFIX}")
    container.do("cp", "-a", IMAGE, NEXT)
    container.do(*sh, f"mkdir -p {PROFILES}; cp -r {SHIPPED}/profile/tetrad {PROFILES}")
    yield container
    container.do(*sh, f"rm -rf {IMAGE} {NEXT} {PROFILES} {FOLDERS}")
    container.do(*container.tetrad_command("install"))


@pytest.fixture
def portable(machine: Container) -> Iterator[Service]:
    """Attach the image; its service is not started."""
    machine.do("portablectl", "attach", "--profile=tetrad", IMAGE)
    service = Service(machine)
    service.systemctl("reset-failed", "tetrad.service", "tetrad.socket")
    service.configure()
    yield service
    service.stop()
    machine.do("portablectl", "detach", IMAGE)


def test_it_runs_from_its_image(portable: Service) -> None:
    """The service sees only those of the host's files that its profile allows."""
    portable.do("start", "tetrad")
    assert portable.serves()
    assert portable.container.do("portablectl", "is-attached", IMAGE) == "running\n"
    root = f"/proc/{portable.outside('master')}/root"
    assert "PORTABLE_PREFIXES=tetrad" in pathlib.Path(root, "usr/lib/os-release").read_text("utf-8")
    assert not os.path.exists(f"{root}/usr/bin/env")
    until(portable.commands, "the log in the host's folder")


def test_it_runs_as_a_dynamic_user(portable: Service) -> None:
    """Its user exists while it runs, and has no privileges."""
    portable.do("start", "tetrad")
    status = status_of(portable.outside("master"))
    (user,) = set(status["Uid"].split())
    assert int(user) not in {0, os.getuid()}
    assert f":x:{user}:" not in portable.container.read("/etc/passwd")
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_its_configuration_is_outside_the_image(portable: Service) -> None:
    """A reload applies the operator's /etc/tetrad."""
    portable.do("start", "tetrad")
    portable.configure(listen=[{"port": 65000}, {"port": 65001}])
    portable.do("reload", "tetrad")
    assert portable.serves(65001)


def test_its_socket_unit_starts_the_service(portable: Service) -> None:
    """The first client starts the service."""
    portable.do("start", "tetrad.socket")
    assert portable.serves()
    until(lambda: portable.state == "active", "the end of the start")


def test_reattach_switches_to_another_image(portable: Service) -> None:
    """`portablectl reattach --now` restarts the service from the next image."""
    portable.do("start", "tetrad")
    before = portable.master
    reattach = ("portablectl", "reattach", "--now", "--profile=tetrad")
    portable.container.do(*reattach, NEXT)
    portable.wait_for_new_master(before)
    assert portable.serves()
    assert portable.container.do("portablectl", "is-attached", NEXT) == "running\n"
    portable.container.do(*reattach, IMAGE)


def test_the_commands_of_the_readme_work(machine: Container) -> None:
    """The README's commands attach the image, replace it and detach it."""
    text = machine.do("sh", "-c", f"cat {SHIPPED}/README.md")
    (commands,) = re.findall(r"```sh\n(mkdir.*?)```", text, re.DOTALL)
    output = machine.do("sh", "-euxc", f"cd {SHIPPED}; {commands}")
    assert "Active: active (running)" in output
    assert Service(machine).get_property("LoadState") == "not-found"


def test_detach_removes_the_units(portable: Service) -> None:
    """`portablectl detach --now` stops the service and removes its units."""
    portable.do("start", "tetrad")
    portable.container.do("portablectl", "detach", "--now", IMAGE)
    assert portable.get_property("LoadState") == "not-found"
    attached = portable.container.path("/etc/systemd/system.attached")
    assert not os.path.exists(f"{attached}/tetrad.service")
    portable.container.do("portablectl", "attach", "--profile=tetrad", IMAGE)
