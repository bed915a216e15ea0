"""`tetrad install` and `uninstall` write and remove the service's files below a given root."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from daemons import files_below
from tetrad.cli import install
from tetrad.cli.install import InstallError, Place
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
}


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    """Return an empty root folder."""
    return Place(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def plain_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the interpreter is in a folder that a service can read."""
    monkeypatch.setattr(install, "_folders", lambda: {"/opt/tetrad", "/usr"})


def files_of(place: Place) -> set[str]:
    """Return the files below a root, relative to it."""
    found = {path for path in files_below(place.root) if os.path.isfile(path)}
    return {path.removeprefix(place.root) for path in found}


def text_of(place: Place, path: str) -> str:
    """Return the text of a file."""
    with open(place.path(path), encoding="utf-8") as file:
        return file.read()


def test_install_writes_and_lists_all_files(place: Place) -> None:
    """Each file is reported with its path."""
    lines = list(install.install(place))
    assert files_of(place) == INSTALLED
    assert set(lines) == {f"wrote {place.path(path)}" for path in INSTALLED}


def test_a_second_install_writes_nothing(place: Place) -> None:
    """Unchanged files are not written again."""
    list(install.install(place))
    before = os.stat(place.path(install.SERVICE)).st_ctime_ns
    assert list(install.install(place)) == ["everything is in place already"]
    assert os.stat(place.path(install.SERVICE)).st_ctime_ns == before


def test_a_dry_run_writes_nothing(place: Place) -> None:
    """It prints the same lines as a real run."""
    lines = list(install.install(place._replace(dry_run=True)))
    assert set(lines) == {f"would write {place.path(path)}" for path in INSTALLED}
    assert not os.path.exists(place.root)


def test_units_name_this_interpreter(place: Place) -> None:
    """The service uses the virtual environment that has installed it."""
    list(install.install(place))
    service = text_of(place, install.SERVICE)
    assert f"ExecStart={sys.executable} -I -m tetrad start\n" in service
    assert f"ExecReload={sys.executable} -I -m tetrad reload\n" in service


def test_paths_in_the_units_are_relative_to_the_root(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an image that is being built, paths are those of the future system."""
    below = place.path(sys.executable)
    os.makedirs(os.path.dirname(below))
    os.symlink(sys.executable, below)
    monkeypatch.setattr(install, "_finds_tetrad", lambda _interpreter: True)
    monkeypatch.setattr(sys, "executable", below)
    list(install.install(place))
    assert f"ExecStart={below.removeprefix(place.root)} -I" in text_of(place, install.SERVICE)


def test_a_path_with_blanks_or_percent_signs_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have a meaning in unit files; nothing is written."""
    monkeypatch.setattr(sys, "executable", "/opt/100% tetrad/bin/python")
    with pytest.raises(InstallError, match="choose a folder with a plain name"):
        list(install.install(place))
    assert not os.path.exists(place.root)


def test_an_interpreter_without_tetrad_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has no PYTHONPATH."""
    monkeypatch.setattr(install, "_finds_tetrad", lambda _interpreter: False)
    with pytest.raises(InstallError, match="install it in a virtual environment"):
        list(install.install(place))


def test_an_interpreter_in_a_home_folder_is_bind_mounted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProtectHome hides home folders, so the needed part is mounted read-only."""
    folders = {"/home/ann/venv", "/home/ann/venv/lib", "/home/ann/.pyenv/versions/3.13", "/usr"}
    monkeypatch.setattr(install, "_folders", lambda: folders)
    list(install.install(place))
    shown = "BindReadOnlyPaths=/home/ann/.pyenv/versions/3.13 /home/ann/venv\n"
    assert shown in text_of(place, install.INTERPRETER)


def test_an_unneeded_drop_in_is_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the interpreter has moved out of a home folder, the mount is removed."""
    with monkeypatch.context() as context:
        context.setattr(install, "_folders", lambda: {"/root/venv"})
        list(install.install(place))
    assert list(install.install(place)) == [f"removed {place.path(install.INTERPRETER)}"]
    assert files_of(place) == INSTALLED


def test_an_edited_configuration_is_not_overwritten(place: Place) -> None:
    """The new version is written beside it and reported, once."""
    list(install.install(place))
    with open(place.path(paths.SYSTEM_CONFIGURATION), "w", encoding="utf-8") as file:
        file.write("limits: {clients: 5}\n")
    (lines,) = install.install(place)
    assert lines.startswith(f"wrote {place.path(install.NEW_CONFIGURATION)} ")
    assert "stays as it is" in lines
    assert text_of(place, paths.SYSTEM_CONFIGURATION) == "limits: {clients: 5}\n"
    assert list(install.install(place)) == ["everything is in place already"]


def test_the_socket_activation_drop_in_is_optional(place: Place) -> None:
    """--socket adds it, --no-socket removes it, without either it stays as it is."""
    list(install.install(place, by_socket_only=True))
    assert files_of(place) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install(place))
    assert files_of(place) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install(place, by_socket_only=False))
    assert files_of(place) == INSTALLED


def test_uninstall_keeps_the_configuration(place: Place) -> None:
    """All other files are removed, and the drop-in folder; a second run does nothing."""
    list(install.install(place, by_socket_only=True))
    lines = list(install.uninstall(place))
    assert f"removed {place.path(install.SERVICE)}" in lines
    assert files_of(place) == {paths.SYSTEM_CONFIGURATION}
    assert not os.path.exists(place.path(f"{install.SERVICE}.d"))
    assert list(install.uninstall(place)) == ["nothing of it is installed"]


def test_a_dry_run_of_uninstall_removes_nothing(place: Place) -> None:
    """It lists what it would remove."""
    list(install.install(place))
    lines = list(install.uninstall(place._replace(dry_run=True)))
    assert f"would remove {place.path(install.SERVICE)}" in lines
    assert files_of(place) == INSTALLED


def test_an_unwritable_folder_is_an_error(place: Place) -> None:
    """The error names it, and no partial file is left."""
    os.makedirs(os.path.dirname(place.path(install.UNITS)))
    with open(place.path(install.UNITS), "w", encoding="utf-8"):
        pass
    with pytest.raises(OSError, match="systemd/system"):
        list(install.install(place))
