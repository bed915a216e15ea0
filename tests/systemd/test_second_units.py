"""Units beside tetrad.service whose file names no paths: their default paths are the unit's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.daemons import Ran
    from tests.support.systemd_container import Container
    from tests.support.systemd_service import Service

FILE = "/etc/tetrad/b.yaml"
TEMPLATE = "/etc/systemd/system/tetrad@.service"
INSTANCE = "tetrad@b.service"
PORT = 65008
FOLDER, PIDFILE = "/run/tetrad-b", "/run/tetrad-b/tetrad/tetrad.pid"

EDITS = (
    (r"^(Exec\w+=.* -m tetrad) (\w+)$", r"\1 -c /etc/tetrad/%i.yaml \2"),
    (r"^(\w+Directory=tetrad)$", r"\1-%i"),
    (r"^PIDFile=.*$", "PIDFile=/run/tetrad-%i/tetrad/tetrad.pid"),
    (r"^Environment=.*$", "Environment=XDG_RUNTIME_DIR=/run/tetrad-%i"),
    (r"^(Environment=.*)$", r"\1 XDG_STATE_HOME=/var/log/tetrad-%i"),
)
"""What turns the unit into a template whose instances have the files of their names."""


@pytest.fixture
def template(service: Service) -> Iterator[Callable[..., Container]]:
    """Return a function that writes the template, with more edits, beside the service."""
    container = service.container
    service.do("start", "tetrad")

    def write(*more: tuple[str, str]) -> Container:
        text = container.read("/usr/local/lib/systemd/system/tetrad.service")
        for pattern, replacement in (*EDITS, *more):
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert count, pattern
        container.write(TEMPLATE, text)
        container.write(FILE, yaml.safe_dump({"listen": [{"port": PORT}]}))
        service.do("daemon-reload")
        return container

    try:
        yield write
    finally:
        container.run("systemctl", "stop", INSTANCE)
        container.do("rm", FILE, TEMPLATE)
        service.do("daemon-reload")


def of_file(container: Container, *arguments: str) -> Ran:
    """Run a command of root about the file of the instance."""
    return container.tetrad("-c", FILE, *arguments)


def test_roots_commands_use_the_default_paths_of_an_instance(
    template: Callable[..., Container], service: Service
) -> None:
    """Also of one that never ran, which systemd does not know of yet."""
    container = template()
    absent = of_file(container, "status")
    assert (absent.status, f"(pidfile {PIDFILE})" in absent.out) == (3, True), absent
    started = of_file(container, "start")
    assert started.out.startswith(f"tetrad: systemctl start {INSTANCE}\n"), started
    (pid,) = re.findall(r"started \(pid (\d+)\)", started.out)
    for command, answer in {
        "status": f"running (pid {pid})",
        "reload": "reloaded; nothing changed",
        "logs": f"pid={pid} address=127.0.0.1 port={PORT}",
        "start": f"already running (pid {pid})\n",
        "stop": f"stopped (pid {pid})",
    }.items():
        ran = of_file(container, command)
        assert (ran.status, answer in ran.out) == (0, True), ran
    assert service.serves()


def test_a_unit_that_looks_for_another_pidfile_is_refused(
    template: Callable[..., Container],
) -> None:
    """Otherwise systemd would wait for the pidfile, and end the daemon."""
    container = template((r"^PIDFile=.*$", "PIDFile=/run/tetrad-%i/tetrad.pid"))
    text = f"daemon.pidfile: {PIDFILE}, but the unit has PIDFile={FOLDER}/tetrad.pid"
    for command, status in {"check": 78, "start": 1}.items():
        ran = of_file(container, command)
        assert (ran.status, text in ran.err) == (status, True), ran


def test_a_unit_with_the_paths_of_another_daemon_is_refused(
    template: Callable[..., Container],
) -> None:
    """The error names the files of both, and the keys to set."""
    container = template(
        (r"^(Environment=XDG_RUNTIME_DIR=/run)\S*", r"\1"),
        (r"^(PIDFile=/run)/tetrad-%i", r"\1"),
    )
    text = f"runs with /etc/tetrad/tetrad.yaml, not with {FILE};"
    for command in ("start", "restart"):
        ran = of_file(container, command)
        assert (ran.status, text in ran.err) == (1, True), ran
        assert "a daemon.pidfile, daemon.control and log.file of its own" in ran.err
        assert "by hand" not in ran.err
