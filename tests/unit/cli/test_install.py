"""Installing and removing the files of the service, in a folder instead of the system."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import files_below
from tetrad.cli import install
from tetrad.cli.install import InstallError, Target
from tetrad.config import paths

if TYPE_CHECKING:
    import pathlib

INSTALLED = {
    install.SERVICE,
    install.SOCKET,
    install.SYSUSERS,
    install.TMPFILES,
    install.LOGROTATE,
    "/usr/local/share/doc/tetrad/commands.yaml",
    "/usr/local/share/man/man5/tetrad-commands.5",
    "/usr/local/share/man/man5/tetrad-log.5",
    "/usr/local/share/man/man5/tetrad.yaml.5",
    "/usr/local/share/man/man7/tetrad-protocol.7",
    "/usr/local/share/man/man8/tetrad.8",
    "/usr/local/share/bash-completion/completions/tetrad",
    "/usr/local/share/zsh/site-functions/_tetrad",
    "/usr/local/share/fish/vendor_completions.d/tetrad.fish",
    paths.SYSTEM_CONFIGURATION,
    install.LINK,
}


@pytest.fixture
def target(tmp_path: pathlib.Path) -> Target:
    """Return an empty target."""
    return Target(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def plain_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter be in a folder that the unit does not hide, and import tetrad."""
    monkeypatch.setattr(install, "_needed_folders", lambda: {"/opt/tetrad", "/usr"})
    monkeypatch.setattr(install, "_import_error", lambda _interpreter: "")


def files_of(target: Target) -> set[str]:
    """Return the files in the target, as paths of the system."""
    found = {path for path in files_below(target.root) if os.path.isfile(path)}
    return {path.removeprefix(target.root) for path in found}


def text_of(target: Target, path: str) -> str:
    """Return the text of a file in the target."""
    with open(target.path(path), encoding="utf-8") as file:
        return file.read()


def test_all_files_are_installed_and_reported(target: Target) -> None:
    """The steps have the path of each file."""
    messages = list(install.install_files(target))
    assert files_of(target) == INSTALLED
    assert set(messages) == {f"wrote {target.path(path)}" for path in INSTALLED}


def test_a_second_installation_changes_nothing(target: Target) -> None:
    """Files without changes are not written again."""
    list(install.install_files(target))
    before = os.stat(target.path(install.SERVICE)).st_ctime_ns
    assert list(install.install_files(target)) == ["already installed, nothing changed"]
    assert os.stat(target.path(install.SERVICE)).st_ctime_ns == before


def test_a_dry_run_changes_nothing(target: Target) -> None:
    """A dry run reports the same steps, but creates no file."""
    messages = list(install.install_files(target._replace(dry_run=True)))
    assert set(messages) == {f"would write {target.path(path)}" for path in INSTALLED}
    assert not os.path.exists(target.root)


def test_units_name_this_interpreter(target: Target) -> None:
    """The service uses the virtual environment that installed it."""
    list(install.install_files(target))
    service = text_of(target, install.SERVICE)
    assert f"ExecStart={sys.executable} -I -m tetrad start\n" in service
    assert f"ExecReload={sys.executable} -I -m tetrad reload\n" in service


def test_an_interpreter_in_the_target_is_named_without_the_prefix(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an image that is being built, paths are those of the future system."""
    below = target.path(sys.executable)
    os.makedirs(os.path.dirname(below))
    os.symlink(sys.executable, below)
    monkeypatch.setattr(sys, "executable", below)
    list(install.install_files(target))
    assert f"ExecStart={below.removeprefix(target.root)} -I" in text_of(target, install.SERVICE)


def test_a_path_that_needs_quoting_is_refused(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces and percent signs have a meaning in unit files; no file is written."""
    monkeypatch.setattr(sys, "executable", "/opt/100% tetrad/bin/python")
    with pytest.raises(InstallError, match="not usable in unit files"):
        list(install.install_files(target))
    assert not os.path.exists(target.root)


def test_an_interpreter_that_cannot_import_tetrad_is_refused(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package found through PYTHONPATH would not be found by the service."""
    monkeypatch.setattr(install, "_import_error", lambda _: "No module named 'tetrad'")
    with pytest.raises(InstallError, match="install it in a virtual environment"):
        list(install.install_files(target))


def test_an_interpreter_in_a_home_gets_a_drop_in(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit hides home folders; the drop-in makes the needed ones visible, read-only."""
    folders = {"/home/ann/venv", "/home/ann/venv/lib", "/home/ann/.pyenv/versions/3.13", "/usr"}
    monkeypatch.setattr(install, "_needed_folders", lambda: folders)
    list(install.install_files(target))
    shown = "BindReadOnlyPaths=/home/ann/.pyenv/versions/3.13 /home/ann/venv\n"
    assert shown in text_of(target, install.INTERPRETER)


def test_a_drop_in_that_is_no_longer_needed_is_removed(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an interpreter outside of homes, these are hidden again."""
    with monkeypatch.context() as context:
        context.setattr(install, "_needed_folders", lambda: {"/root/venv"})
        list(install.install_files(target))
    assert list(install.install_files(target)) == [f"removed {target.path(install.INTERPRETER)}"]
    assert files_of(target) == INSTALLED


def test_an_edited_configuration_is_kept(target: Target) -> None:
    """The configuration of this version is written beside it, once, and reported."""
    list(install.install_files(target))
    with open(target.path(paths.SYSTEM_CONFIGURATION), "w", encoding="utf-8") as file:
        file.write("limits: {clients: 5}\n")
    (message,) = install.install_files(target)
    assert message.startswith(f"wrote {target.path(install.NEW_CONFIGURATION)} ")
    assert "the edited configuration is kept" in message
    assert text_of(target, paths.SYSTEM_CONFIGURATION) == "limits: {clients: 5}\n"
    assert list(install.install_files(target)) == ["already installed, nothing changed"]


def test_the_restriction_to_socket_activation_is_optional(target: Target) -> None:
    """--socket adds the drop-in, --no-socket removes it, and without both it is kept."""
    list(install.install_files(target, by_socket_only=True))
    assert files_of(target) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install_files(target))
    assert files_of(target) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install_files(target, by_socket_only=False))
    assert files_of(target) == INSTALLED


def test_uninstall_keeps_the_configuration(target: Target) -> None:
    """All other files and the folder of drop-ins are removed; a second run does nothing."""
    list(install.install_files(target, by_socket_only=True))
    messages = list(install.remove_files(target))
    assert f"removed {target.path(install.SERVICE)}" in messages
    assert files_of(target) == {paths.SYSTEM_CONFIGURATION}
    assert not os.path.exists(target.path(f"{install.SERVICE}.d"))
    assert list(install.remove_files(target)) == ["not installed, nothing to remove"]


def test_a_dry_uninstall_removes_nothing(target: Target) -> None:
    """A dry run reports the files that would be removed."""
    list(install.install_files(target))
    messages = list(install.remove_files(target._replace(dry_run=True)))
    assert f"would remove {target.path(install.SERVICE)}" in messages
    assert files_of(target) == INSTALLED


def test_a_folder_that_cannot_be_written_is_an_error(target: Target) -> None:
    """The error has the path, and no incomplete file is left."""
    os.makedirs(os.path.dirname(target.path(install.UNITS)))
    with open(target.path(install.UNITS), "w", encoding="utf-8"):
        pass
    with pytest.raises(OSError, match="systemd/system"):
        list(install.install_files(target))
