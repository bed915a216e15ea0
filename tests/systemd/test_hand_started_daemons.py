"""Which file is the unit's own, and a daemon that was started by hand beside the unit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.daemons import until

if TYPE_CHECKING:
    from tests.support.systemd_service import Service

FOLDER = "/etc/tetrad"
FILE = f"{FOLDER}/other.yaml"
VARIABLES = f"{FOLDER}/environment"
PORT = 65007


def test_an_environment_file_decides_which_file_is_the_units_own(service: Service) -> None:
    """Root's commands about that file go through systemctl, and those about the default do not."""
    container = service.container
    container.write(FILE, yaml.safe_dump({"listen": [{"port": PORT}]}))
    container.write(VARIABLES, f'# the file\nTETRAD_CONFIG="{FILE}"\n')
    service.drop_in(f"[Service]\nEnvironmentFile={VARIABLES}\n")
    try:
        started = container.tetrad("-c", FILE, "start")
        assert started.out.startswith("tetrad: systemctl start tetrad.service\n"), started
        assert service.serves(PORT)
        assert f"(pid {service.master})" in container.tetrad("-c", FILE, "status").out
        default = container.tetrad("start")
        assert (default.status, "systemctl" in default.out) == (1, False)
        assert f"runs with {FILE}, not with {FOLDER}/tetrad.yaml" in default.err
        stopped = container.tetrad("-c", FILE, "stop")
        assert stopped.out.startswith("tetrad: systemctl stop tetrad.service\n"), stopped
    finally:
        service.stop()
        container.do("rm", FILE, VARIABLES)


@pytest.mark.parametrize("unit_type", ["forking", "notify"])
def test_systemctl_start_hides_no_daemon(service: Service, unit_type: str) -> None:
    """It fails, whatever the type of the unit, and the status still names the daemon."""
    service.use(unit_type)
    container = service.container
    ran = container.tetrad("start", "--no-systemd")
    (pid,) = re.findall(r"started \(pid (\d+)\)", ran.out)
    try:
        assert service.systemctl("start", "tetrad").status != 0
        service.wait_for_status_text(f"(pid {pid}) was started by hand")
        for _ in range(2):
            status = container.tetrad("status")
            assert (status.status, f"(pid {pid}" in status.out) == (0, True), status
            assert service.serves()
            service.do("stop", "tetrad")  # removes the folders that systemd has made
        other = container.run(
            "setpriv", "--reuid=nobody", "--clear-groups", *container.tetrad_command("status")
        )
        assert other.status == 4
        assert "not running" not in other.out + other.err
    finally:
        stopped = container.tetrad("stop", "--no-systemd")
        container.run("sh", "-c", f"kill -QUIT {pid}")
    assert f"stopped (pid {pid})" in stopped.out
    until(lambda: container.tetrad("status").status == 3, "its end")
