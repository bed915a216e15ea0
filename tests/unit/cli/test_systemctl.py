"""Which commands may go through systemctl, and what units say about their file."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tetrad.cli import systemctl
from tetrad.cli.exit_status import CommandError
from tetrad.cli.parser import parser
from tetrad.config import paths

if TYPE_CHECKING:
    import pathlib

PYTHON = "/opt/tetrad/bin/python"

UNIT = """\
MainPID=87
ExecStart={{ path={python} ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}
ControlGroup=/system.slice/{name}
PIDFile=/run/tetrad/tetrad.pid
TriggeredBy=tetrad.socket
Environment={environment}
User=tetrad
Group=tetrad
SupplementaryGroups=ssl-cert
RuntimeDirectory=tetrad
StateDirectory=tetrad
LogsDirectory=tetrad tetrad/old
Id={name}
LoadState={load}
ActiveState={state}"""


def unit(
    command: str = f"{PYTHON} -I -m tetrad start",
    name: str = "tetrad.service",
    environment: str = "XDG_RUNTIME_DIR=/run XDG_STATE_HOME=/var/log",
    state: str = "active",
    load: str = "loaded",
) -> str:
    """Return what `systemctl show` prints for a unit."""
    return UNIT.format(
        python=PYTHON, command=command, name=name, environment=environment, state=state, load=load
    )


@pytest.fixture(autouse=True)
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[str]:
    """Let root run the commands on a system with these units."""
    units: list[str] = []

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        listed = "tetrad.service disabled enabled\ntetrad@.service static -\n"
        shown = "\n\n".join(units) + "\n"
        output = listed if command[1] == "list-unit-files" else shown
        return subprocess.CompletedProcess(command, 0, output, "")

    monkeypatch.setattr(systemctl, "_run", run)
    monkeypatch.setattr(systemctl, "_SYSTEMD_IS_RUNNING", str(tmp_path))
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", f"{tmp_path}/missing.yaml")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    monkeypatch.delenv(paths.CONFIGURATION_VARIABLE, raising=False)
    return units


def unit_of(*arguments: str) -> systemctl.Unit | None:
    """Return the unit of `tetrad start` with these arguments."""
    return systemctl.unit_of(parser().parse_args(["start", *arguments]))


def test_a_unit_with_the_default_file_is_found(systemd: list[str]) -> None:
    """Also without any file, which means the built-in defaults for both."""
    systemd.append(unit())
    assert unit_of() == systemctl.Unit(
        "tetrad.service",
        "active",
        main_pid=87,
        control_group="/system.slice/tetrad.service",
        pidfile="/run/tetrad/tetrad.pid",
        user="tetrad",
        groups=("tetrad", "ssl-cert"),
        environment={"XDG_RUNTIME_DIR": "/run", "XDG_STATE_HOME": "/var/log"},
        folders=("/run/tetrad", "/var/lib/tetrad", "/var/log/tetrad", "/var/log/tetrad/old"),
        program=(PYTHON, "-I", "-m", "tetrad"),
        is_foreground=False,
        has_socket=True,
    )


def test_the_same_file_by_another_name_is_the_same(
    systemd: list[str], tmp_path: pathlib.Path
) -> None:
    """Links are followed."""
    (tmp_path / "one.yaml").touch()
    (tmp_path / "two.yaml").symlink_to("one.yaml")
    systemd.append(unit(f"{PYTHON} -I -m tetrad start -c {tmp_path}/one.yaml"))
    assert unit_of("-c", f"{tmp_path}/two.yaml") is not None
    assert unit_of("-c", f"{tmp_path}/three.yaml") is None
    assert unit_of() is None


@pytest.mark.parametrize(
    "command",
    [
        "/opt/tetrad/bin/tetrad --config=/a.yaml start",
        f"{PYTHON} -m tetrad run -c /a.yaml",
        "/bin/sh -c exec tetrad -c/a.yaml start",
    ],
)
def test_the_file_is_an_option_of_the_command(systemd: list[str], command: str) -> None:
    """As the command line itself reads it."""
    systemd.append(unit(command))
    found = unit_of("-c", "/a.yaml")
    assert found is not None
    assert found.is_foreground == ("run" in command)


def test_the_file_is_in_the_environment(systemd: list[str]) -> None:
    """Values with spaces are quoted."""
    systemd.append(unit(environment='"A=b c" "TETRAD_CONFIG=/etc/my tetrad.yaml"'))
    assert unit_of("-c", "/etc/my tetrad.yaml") is not None


@pytest.mark.parametrize(
    "other",
    [
        unit("/usr/bin/tetrad-exporter start", name="tetrad-exporter.service"),
        unit("/usr/bin/tetrad status --json", name="tetrad-watch.service"),
        unit("/usr/bin/tetrad start --later", name="tetrad-later.service"),
        unit(load="masked"),
        "Id=tetrad.service\nLoadState=not-found",
        "",
    ],
    ids=["another program", "another command", "unknown option", "masked", "not found", "none"],
)
def test_other_units_are_not_taken(systemd: list[str], other: str) -> None:
    """Only a loaded unit that starts tetrad counts."""
    systemd.append(other)
    assert unit_of() is None


def test_of_two_units_the_running_one_is_taken(systemd: list[str]) -> None:
    """A copy with the same file that is stopped does not count."""
    systemd += [unit(name="tetrad-old.service", state="inactive"), unit()]
    found = unit_of()
    assert found is not None
    assert found.name == "tetrad.service"


def test_without_systemd_there_is_no_unit(
    systemd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By option, for other users, where systemd does not run, and for systemd itself."""
    systemd.append(unit())
    assert unit_of("--no-systemd") is None
    with monkeypatch.context() as context:
        context.setattr(os, "geteuid", lambda: 1000)
        assert unit_of() is None
    with monkeypatch.context() as context:
        context.setattr(systemctl, "_SYSTEMD_IS_RUNNING", "/missing")
        assert unit_of() is None
    with monkeypatch.context() as context:
        context.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
        assert unit_of() is None
    with monkeypatch.context() as context:
        context.setattr(systemctl.Unit, "owns", lambda _self, _pid: True)
        assert unit_of() is None


def test_without_systemctl_there_is_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that has the host's /run/systemd."""

    def missing(*_: str) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError

    monkeypatch.setattr(systemctl, "_run", missing)
    assert unit_of() is None


def test_a_failing_systemctl_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a reason to start a second daemon; the way out is in the text."""
    failed = subprocess.CompletedProcess([], 1, "", "Failed to connect to bus:\n no such file\n")
    monkeypatch.setattr(systemctl, "_run", lambda *_: failed)
    with pytest.raises(CommandError, match=r"connect to bus: no such file; --no-systemd"):
        unit_of()
