"""What the unit allows the service: the processes' credentials, and systemd's own analysis."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import status_of, title_of, until
from tests.support.project import ROOT

if TYPE_CHECKING:
    import pathlib

    from tests.support.systemd_service import Service


WRITABLE = {"/run/tetrad", "/var/lib/tetrad", "/var/log/tetrad"}
"""The only writable folders besides the private temporary ones."""

PRIVATE = {"/tmp", "/var/tmp", "/dev/mqueue"}  # noqa: S108 - private to the service


def test_its_processes_are_unprivileged(service: Service) -> None:
    """Master, logger and handler run as the service's user, and cannot gain privileges."""
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


def test_only_its_own_folders_are_writable(service: Service) -> None:
    """Other folders are read-only even where their mode would allow writing."""
    service.do("start", "tetrad")
    find = "find / -path /proc -prune -o -type d -writable -print"
    as_service = ["nsenter", "-t", str(service.master), "-m", "--"]
    as_service += ["setpriv", "--reuid=tetrad", "--regid=tetrad", "--clear-groups"]
    found = service.container.run(*as_service, *find.split()).out.splitlines()
    assert set(found) - PRIVATE == WRITABLE


def test_process_titles_work(service: Service) -> None:
    """The sandbox allows processes to change their titles."""
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


def test_systemd_analyze_verify_accepts_the_units(service: Service) -> None:
    """`systemd-analyze verify` prints nothing."""
    units = ["tetrad.service", "tetrad.socket"]
    ran = service.container.run("systemd-analyze", "verify", "--man=no", *units)
    assert (ran.status, ran.out + ran.err) == (0, "")


@pytest.mark.parametrize(("drop_ins", "most"), [((), 10), (("socket.conf",), 3)])
def test_systemd_analyze_security_exposure_is_low(
    service: Service, tmp_path: pathlib.Path, drop_ins: tuple[str, ...], most: int
) -> None:
    """The exposure, in tenths, is at most this; even less with socket activation."""
    folder = tmp_path / "tetrad.service.d"
    folder.mkdir()
    shutil.copy(ROOT / "systemd" / "tetrad.service", tmp_path)
    for name in drop_ins:
        shutil.copy(ROOT / "systemd" / "tetrad.service.d" / name, folder)
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
    """Return the pids of master, logger and handler, once all have their titles."""

    def find() -> list[int]:
        ours = [one for one in service.container.processes() if title_of(one).startswith("tetrad:")]
        return ours if len(ours) == 3 else []

    return until(find, "three processes with their titles")
