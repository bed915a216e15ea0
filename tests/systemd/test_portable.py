"""The portable service: an image made of the installed tetrad, attached, served from, detached."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

from daemons import status_of, until

from .container import PREFIX
from .service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .container import Container

SHIPPED = f"{PREFIX}/lib/python3*/site-packages/tetrad/data/systemd/portable"
PROFILES = "/etc/systemd/portable/profile"
IMAGE = "/var/lib/portables/tetrad_1"
NEXT = "/var/lib/portables/tetrad_2"

FOLDERS = "/var/log/tetrad /var/log/private/tetrad /var/lib/tetrad /var/lib/private/tetrad"


@pytest.fixture(scope="module")
def machine(container: Container) -> Iterator[Container]:
    """Return a machine with an image, where tetrad itself is not installed, nor its user."""
    if container.run("sh", "-c", "command -v portablectl && command -v dbus-daemon").status:
        pytest.skip("portablectl or dbus-daemon: not installed (systemd-container, dbus)")
    if os.path.realpath(sys.executable).startswith(("/root/", "/home/")):
        pytest.skip("this Python is in a home, where no service of an image looks: use one in /usr")
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
    """Attach the image; its service is not started yet."""
    machine.do("portablectl", "attach", "--profile=tetrad", IMAGE)
    service = Service(machine)
    service.systemctl("reset-failed", "tetrad.service", "tetrad.socket")
    service.configure()
    yield service
    service.stop()
    machine.do("portablectl", "detach", IMAGE)


def test_it_serves_from_its_image(portable: Service) -> None:
    """The service has nothing of the machine's but what its profile shows it."""
    portable.do("start", "tetrad")
    assert portable.serves()
    assert portable.container.do("portablectl", "is-attached", IMAGE) == "running\n"
    root = f"/proc/{portable.outside('master')}/root"
    assert "PORTABLE_PREFIXES=tetrad" in pathlib.Path(root, "usr/lib/os-release").read_text("utf-8")
    assert not os.path.exists(f"{root}/usr/bin/env")
    until(portable.commands, "the log, in the machine's own folder")


def test_it_is_a_user_that_the_machine_has_not(portable: Service) -> None:
    """Its user is there for as long as it runs, and may do nothing."""
    portable.do("start", "tetrad")
    status = status_of(portable.outside("master"))
    (user,) = set(status["Uid"].split())
    assert int(user) not in {0, os.getuid()}
    assert f":x:{user}:" not in portable.container.read("/etc/passwd")
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_its_configuration_is_the_machines(portable: Service) -> None:
    """A reload applies what the operator has written to /etc/tetrad, outside the image."""
    portable.do("start", "tetrad")
    portable.configure(listen=[{"port": 65000}, {"port": 65001}])
    portable.do("reload", "tetrad")
    assert portable.serves(65001)


def test_its_socket_is_attached_too(portable: Service) -> None:
    """The first client starts the service."""
    portable.do("start", "tetrad.socket")
    assert portable.serves()
    until(lambda: portable.state == "active", "the end of the start")


def test_another_image_takes_its_place(portable: Service) -> None:
    """`portablectl reattach --now` has the service run from the next version's image."""
    portable.do("start", "tetrad")
    before = portable.master
    reattach = ("portablectl", "reattach", "--now", "--profile=tetrad")
    portable.container.do(*reattach, NEXT)
    portable.replaced(before)
    assert portable.serves()
    assert portable.container.do("portablectl", "is-attached", NEXT) == "running\n"
    portable.container.do(*reattach, IMAGE)


def test_it_is_done_as_the_readme_says(machine: Container) -> None:
    """The commands that stand there attach it, replace it by another image, and detach it."""
    text = machine.do("sh", "-c", f"cat {SHIPPED}/README.md")
    (commands,) = re.findall(r"```sh\n(mkdir.*?)```", text, re.DOTALL)
    said = machine.do("sh", "-euxc", f"cd {SHIPPED}; {commands}")
    assert "Active: active (running)" in said
    assert Service(machine).shows("LoadState") == "not-found"


def test_nothing_is_left_when_it_is_detached(portable: Service) -> None:
    """`portablectl detach --now` stops the service and takes its units away."""
    portable.do("start", "tetrad")
    portable.container.do("portablectl", "detach", "--now", IMAGE)
    assert portable.shows("LoadState") == "not-found"
    attached = portable.container.path("/etc/systemd/system.attached")
    assert not os.path.exists(f"{attached}/tetrad.service")
    portable.container.do("portablectl", "attach", "--profile=tetrad", IMAGE)
