"""`tetrad check` and the checks before systemctl: what the service's user would meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.systemd_service import LOG, LOG_FOLDER

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.systemd_service import Service

KEY = "/etc/tetrad/ours.key"


@pytest.fixture
def tls(service: Service, tmp_path: pathlib.Path) -> Iterator[dict[str, str]]:
    """Return TLS settings whose key only root can read; the file has them."""
    ours = Authority(str(tmp_path / "ca")).issue("ours")
    settings = {"certificate": "/etc/tetrad/ours.pem", "key": KEY}
    for path, target in zip(ours, settings.values(), strict=True):
        with open(path, encoding="ascii") as file:
            service.container.write(target, file.read())
    service.container.do("chmod", "600", KEY)
    service.configure(listen=[{"tls": settings}])
    yield settings
    service.container.do("rm", *settings.values())


def test_a_correct_file_has_no_warnings(service: Service) -> None:
    """Neither that daemon.user is not set: the unit has a user."""
    ran = service.container.tetrad("check")
    assert (ran.status, ran.err) == (0, "")


def test_a_start_by_hand_does_not_advise_to_set_daemon_user(service: Service) -> None:
    """The unit would not start with it."""
    ran = service.container.tetrad("start", "--no-systemd")
    stopped = service.container.tetrad("stop", "--no-systemd")
    assert (ran.status, ran.err, stopped.status) == (0, "", 0)


def test_a_log_of_root_in_the_services_folder_is_no_obstacle(service: Service) -> None:
    """The unit gives it to its user before it starts."""
    service.container.do("mkdir", "-p", LOG_FOLDER)
    service.container.do("install", "-m", "600", "/dev/null", LOG)
    assert service.container.tetrad("check").status == 0
    assert "tetrad: started" in service.container.tetrad("start").out
    service.stop()


@needs_openssl
def test_a_key_that_the_service_cannot_read_is_refused(
    service: Service, tls: dict[str, str]
) -> None:
    """By check and before a restart, which leaves the service running."""
    service.configure()
    service.do("start", "tetrad")
    before = service.master
    service.configure(listen=[{"tls": tls}])
    text = f"tls.key: {KEY}: permission denied (as user tetrad of tetrad.service)"
    check, restart = service.container.tetrad("check"), service.container.tetrad("restart")
    assert text in check.err
    assert check.status == 78
    assert "not stopped, because" in restart.err
    assert text in restart.err
    assert service.master == before
    service.container.do("chgrp", "tetrad", KEY)
    service.container.do("chmod", "640", KEY)
    assert service.container.tetrad("check").status == 0


@needs_openssl
@pytest.mark.parametrize("setting", ["Group", "SupplementaryGroups"])
def test_groups_of_the_unit_count(service: Service, tls: dict[str, str], setting: str) -> None:
    """As for a key that a group of certificates may read."""
    del tls
    service.container.do("chgrp", "games", KEY)
    service.container.do("chmod", "640", KEY)
    assert service.container.tetrad("check").status == 78
    service.drop_in(f"[Service]\n{setting}=games\n")
    assert service.container.tetrad("check").status == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"log": {"file": "/var/log/missing/tetrad.log"}}, "create the directory /var/log/missing"),
        ({"log": {"file": "/var/log/own.log"}}, "user tetrad needs write access to directory /var"),
        ({"log": {"file": None}}, "log.file is null"),
        ({"daemon": {"pidfile": "/run/own.pid"}}, "user tetrad needs write access to directory /r"),
        ({"listen": [{"address": "unix:/run/missing/a"}]}, "create the directory /run/missing"),
        ({"listen": [{"address": "192.0.2.99"}]}, "192.0.2.99:65000: cannot assign"),
    ],
)
def test_what_prevents_a_start_is_refused(
    service: Service, settings: dict[str, object], text: str
) -> None:
    """With its place and the way out; the start fails for the same reason."""
    service.configure(**settings)
    check = service.container.tetrad("check")
    assert text in check.err
    assert check.status == 78
    assert text in service.container.tetrad("start").err


def test_folders_that_systemd_creates_need_not_exist(service: Service) -> None:
    """As those of a unit that has not started since the boot."""
    service.drop_in("[Service]\nPIDFile=/run/new/pid\nRuntimeDirectory=new\nLogsDirectory=new\n")
    service.configure(
        daemon={"pidfile": "/run/new/pid", "control": "/run/new/sock"},
        log={"file": "/var/log/new/log"},
    )
    assert service.container.tetrad("check").status == 0
    assert service.container.tetrad("check", "--user", "tetrad").status == 0
    assert service.container.tetrad("check", "--user", "daemon").status == 78
    assert "tetrad: started" in service.container.tetrad("start").out
    service.stop()
    service.container.do("rm", "-r", "/var/log/new")


def test_a_port_that_the_unit_may_bind_is_accepted(service: Service) -> None:
    """The unit has a capability for it; the check does not know of all of these."""
    service.drop_in(
        "[Service]\nPrivateUsers=no\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"
    )
    service.configure(listen=[{"port": 80}])
    assert service.container.tetrad("check").status == 0
    assert "127.0.0.1:80" in service.container.tetrad("start").out


def test_a_file_that_the_service_cannot_read_is_refused(service: Service) -> None:
    """The configuration itself."""
    file = "/etc/tetrad/tetrad.yaml"
    service.container.do("chmod", "600", file)
    try:
        ran = service.container.tetrad("check")
    finally:
        service.container.do("chmod", "644", file)
    assert f"{file}: permission denied; user tetrad needs read access" in ran.err
