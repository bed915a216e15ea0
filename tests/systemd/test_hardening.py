"""What the service may do: little, by the process itself and by systemd's own reckoning."""

from __future__ import annotations

import pathlib
import shutil
from typing import TYPE_CHECKING

import pytest

from daemons import status_of, title_of, until

if TYPE_CHECKING:
    from .service import Service

PROJECT = pathlib.Path(__file__).parents[2]

WRITABLE = {"/run/tetrad", "/var/lib/tetrad", "/var/log/tetrad"}
"""Its own folders, all that it may write to beside temporary ones that nobody else sees."""

PRIVATE = {"/tmp", "/var/tmp", "/dev/mqueue"}  # noqa: S108 - of the service alone


def test_its_processes_are_nobody_in_particular(service: Service) -> None:
    """Master, logger and handler run as the service's user, and can become nobody else."""
    service.do("start", "tetrad")
    with service.connect().socket as client:
        client.sendall(b"time")
        assert client.recv(1)
        pids = _titled(service)
        user = service.container.do("id", "-u", "tetrad").strip()
        for status in map(status_of, pids):
            assert set(status["Uid"].split()) == {user}
            assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd")} == {0}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_it_can_write_to_its_own_folders_only(service: Service) -> None:
    """Its user may write nothing else, even where permissions would let it."""
    service.do("start", "tetrad")
    find = "find / -path /proc -prune -o -type d -writable -print"
    as_service = ["nsenter", "-t", str(service.master), "-m", "--"]
    as_service += ["setpriv", "--reuid=tetrad", "--regid=tetrad", "--clear-groups"]
    found = service.container.run(*as_service, *find.split()).out.splitlines()
    assert set(found) - PRIVATE == WRITABLE


def test_titles_work_in_spite_of_it(service: Service) -> None:
    """Processes can still be told apart in `ps`."""
    service.do("start", "tetrad")
    with service.connect().socket as client:
        client.sendall(b"time")
        assert client.recv(1)
        host, port = client.getsockname()
        service.outside(f"handler {host}:{port}")
        titles = [title_of(pid) for pid in _titled(service)]
    assert sorted(titles) == [
        f"tetrad: handler {host}:{port}",
        "tetrad: logger",
        "tetrad: master /etc/tetrad/tetrad.yaml",
    ]


def test_the_units_are_without_fault(service: Service) -> None:
    """`systemd-analyze verify` has nothing to say."""
    units = ["tetrad.service", "tetrad.socket"]
    ran = service.container.run("systemd-analyze", "verify", "--man=no", *units)
    assert (ran.status, ran.out + ran.err) == (0, "")


@pytest.mark.parametrize(("drop_ins", "most"), [((), 12), (("socket.conf",), 5)])
def test_systemd_finds_it_hardened(
    service: Service, tmp_path: pathlib.Path, drop_ins: tuple[str, ...], most: int
) -> None:
    """Its exposure, in tenths, is small, and next to none where systemd listens for it."""
    folder = tmp_path / "tetrad.service.d"
    folder.mkdir()
    shutil.copy(PROJECT / "systemd" / "tetrad.service", tmp_path)
    for name in drop_ins:
        shutil.copy(PROJECT / "systemd" / "tetrad.service.d" / name, folder)
    inside = "/var/lib/units"
    shutil.copytree(tmp_path, service.container.path(inside), dirs_exist_ok=True)
    try:
        service.container.do(
            *("systemd-analyze", "security", "--offline=true", f"--threshold={most}"),
            f"{inside}/tetrad.service",
        )
    finally:
        shutil.rmtree(service.container.path(inside))


def _titled(service: Service) -> list[int]:
    """Return the master, the logger and the handler, once all of them have their titles."""

    def find() -> list[int]:
        ours = [one for one in service.container.processes() if title_of(one).startswith("tetrad:")]
        return ours if len(ours) == 3 else []

    return until(find, "three processes with their titles")
