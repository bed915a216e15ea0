"""The link in the PATH, the listeners of the socket unit, and what an uninstallation leaves."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tetrad.cli import install
from tetrad.cli.install import InstallError, Target
from tetrad.config import paths
from tetrad.config.diagnostics import ConfigError

if TYPE_CHECKING:
    import pathlib

SCRIPT = os.path.join(os.path.dirname(sys.executable), "tetrad")


@pytest.fixture
def target(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Return an empty target; the interpreter is in a folder that the unit does not hide."""
    monkeypatch.setattr(install, "_needed_folders", lambda: {"/opt/tetrad", "/usr"})
    return Target(str(tmp_path / "root"))


def link_of(target: Target) -> str:
    """Return the path of the link in the target."""
    path = target.path(install.LINK)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def configure(target: Target, text: str) -> None:
    """Write the configuration of the target."""
    path = target.path(paths.SYSTEM_CONFIGURATION)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def test_the_command_is_linked(target: Target) -> None:
    """The link leads to the command beside the interpreter, and is removed again."""
    list(install.install_files(target))
    assert os.readlink(link_of(target)) == SCRIPT
    list(install.remove_files(target))
    assert not os.path.lexists(link_of(target))


def test_an_own_link_is_replaced(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an installation from another virtual environment."""
    with monkeypatch.context() as context:
        context.setattr(install, "_interpreter", lambda _target: "/opt/old/bin/python3")
        list(install.install_files(target))
    assert os.readlink(link_of(target)) == "/opt/old/bin/tetrad"
    assert f"wrote {link_of(target)}" in list(install.install_files(target))
    assert os.readlink(link_of(target)) == SCRIPT


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "link"])
def test_a_foreign_file_is_kept(target: Target, is_link: bool) -> None:  # noqa: FBT001
    """It is neither replaced nor removed, and the message has the command's path."""
    path = link_of(target)
    if is_link:
        os.symlink("/usr/games/bin/tetrad", path)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n")
    before = os.lstat(path)
    messages = list(install.install_files(target))
    assert messages[-1] == (f"kept {path}, which is not of tetrad install: the command is {SCRIPT}")
    assert next(install.install_files(target)) == "already installed, nothing changed"
    list(install.remove_files(target))
    assert os.path.samestat(os.lstat(path), before)


def test_a_command_that_pip_has_put_into_the_path_needs_no_link(
    target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """There is none beside the interpreter then."""
    monkeypatch.setattr(install, "_interpreter", lambda _target: "/usr/bin/python3")
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/python3")
    assert not any("bin/tetrad" in line for line in install.install_files(target))
    assert not os.path.lexists(link_of(target))


def test_the_socket_unit_gets_the_listeners_of_the_file(target: Target) -> None:
    """Each address and path; a file with the default listener needs no drop-in."""
    configure(
        target,
        "listen:\n- port: 7000\n- address: '::'\n  port: 7001\n- address: unix:/run/tetrad/100%\n"
        "daemon: {umask: '007'}\n",
    )
    list(install.install_files(target, by_socket_only=True))
    with open(target.path(install.LISTENERS), encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert [line.partition("=")[2] for line in lines if line.startswith("ListenStream")] == [
        "",
        "127.0.0.1:7000",
        "[::]:7001",
        "/run/tetrad/100%%",
    ]
    assert "SocketMode=0770" in lines
    configure(target, "{}")
    list(install.install_files(target))
    assert os.path.exists(target.path(install.LISTENERS))
    list(install.install_files(target, by_socket_only=True))
    assert not os.path.exists(target.path(install.LISTENERS))


def test_no_socket_removes_the_listeners(target: Target) -> None:
    """With the folder of the drop-in."""
    configure(target, "listen: [{port: 7000}]")
    list(install.install_files(target, by_socket_only=True))
    assert os.path.exists(target.path(install.LISTENERS))
    list(install.install_files(target, by_socket_only=False))
    assert not os.path.exists(os.path.dirname(target.path(install.LISTENERS)))
    list(install.install_files(target, by_socket_only=True))
    list(install.remove_files(target))
    assert not os.path.exists(os.path.dirname(target.path(install.LISTENERS)))


def test_a_configuration_with_mistakes_has_no_listeners(target: Target) -> None:
    """Nothing is written then."""
    configure(target, "listen: [{prot: 1}]")
    with pytest.raises(ConfigError):
        list(install.install_files(target, by_socket_only=True))
    configure(target, "listen: [{port: 0}]")
    with pytest.raises(InstallError, match=r"listen\[0\].port: 0 is not possible"):
        list(install.install_files(target, by_socket_only=True))
    assert not os.path.exists(target.path(install.SERVICE))


def test_uninstall_says_what_it_leaves(target: Target) -> None:
    """What exists: configuration, logs, and the operator's own units and drop-ins."""
    list(install.install_files(target))
    own = target.path("/etc/systemd/system/tetrad.service.d")
    log = target.path("/var/log/tetrad")
    os.makedirs(own)
    os.makedirs(log)
    left = f"{target.path('/etc/tetrad')}, {log}, {own}"
    to_remove = f"rm -r {left.replace(',', '')}"
    dry = list(install.remove_files(target._replace(dry_run=True)))
    assert dry[-1] == f"would leave {left}; to remove: {to_remove}"
    assert list(install.remove_files(target))[-1] == f"left {left}; to remove: {to_remove}"
