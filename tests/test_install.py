"""Putting the service's files in place, below a folder that stands for the system."""

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
    """Return a system with nothing in it."""
    return Place(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def plain_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter lie where a service can see it, wherever the tests' own lies."""
    monkeypatch.setattr(install, "_folders", lambda: {"/opt/tetrad", "/usr"})


def files_of(place: Place) -> set[str]:
    """Return the files that a system has, as paths of its own."""
    found = {path for path in files_below(place.root) if os.path.isfile(path)}
    return {path.removeprefix(place.root) for path in found}


def text_of(place: Place, path: str) -> str:
    """Return what is in a file."""
    with open(place.path(path), encoding="utf-8") as file:
        return file.read()


def test_everything_is_put_in_place_and_said(place: Place) -> None:
    """Each file is told by the path at which it was written."""
    said = list(install.install(place))
    assert files_of(place) == INSTALLED
    assert set(said) == {f"wrote {place.path(path)}" for path in INSTALLED}


def test_the_second_time_nothing_is_done(place: Place) -> None:
    """What is in place already is not written again."""
    list(install.install(place))
    before = os.stat(place.path(install.SERVICE)).st_ctime_ns
    assert list(install.install(place)) == ["everything is in place already"]
    assert os.stat(place.path(install.SERVICE)).st_ctime_ns == before


def test_a_dry_run_only_talks(place: Place) -> None:
    """It tells the same things as what would be done, and does none."""
    said = list(install.install(place._replace(dry_run=True)))
    assert set(said) == {f"would write {place.path(path)}" for path in INSTALLED}
    assert not os.path.exists(place.root)


def test_units_name_this_interpreter(place: Place) -> None:
    """The service runs from the virtual environment that installed it, and from no other."""
    list(install.install(place))
    service = text_of(place, install.SERVICE)
    assert f"ExecStart={sys.executable} -I -m tetrad start\n" in service
    assert f"ExecReload={sys.executable} -I -m tetrad reload\n" in service


def test_an_interpreter_below_the_root_is_named_as_seen_from_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an image that is being made, paths are those of the system that it will be."""
    below = place.path(sys.executable)
    os.makedirs(os.path.dirname(below))
    os.symlink(sys.executable, below)
    monkeypatch.setattr(install, "_finds_tetrad", lambda _interpreter: True)
    monkeypatch.setattr(sys, "executable", below)
    list(install.install(place))
    assert f"ExecStart={below.removeprefix(place.root)} -I" in text_of(place, install.SERVICE)


def test_a_path_that_no_unit_can_name_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks and percent signs mean something in a unit; nothing is written then."""
    monkeypatch.setattr(sys, "executable", "/opt/100% tetrad/bin/python")
    with pytest.raises(InstallError, match="choose a folder with a plain name"):
        list(install.install(place))
    assert not os.path.exists(place.root)


def test_an_interpreter_that_finds_no_tetrad_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tetrad that is found through PYTHONPATH would not be found by the service."""
    monkeypatch.setattr(install, "_finds_tetrad", lambda _interpreter: False)
    with pytest.raises(InstallError, match="install it in a virtual environment"):
        list(install.install(place))


def test_an_interpreter_in_a_home_is_shown_to_the_service(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardening hides homes, so that much of one as is needed is shown, once, and read-only."""
    folders = {"/home/ann/venv", "/home/ann/venv/lib", "/home/ann/.pyenv/versions/3.13", "/usr"}
    monkeypatch.setattr(install, "_folders", lambda: folders)
    list(install.install(place))
    shown = "BindReadOnlyPaths=/home/ann/.pyenv/versions/3.13 /home/ann/venv\n"
    assert shown in text_of(place, install.INTERPRETER)


def test_what_is_not_needed_any_more_is_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the interpreter lies elsewhere, homes are hidden again."""
    with monkeypatch.context() as context:
        context.setattr(install, "_folders", lambda: {"/root/venv"})
        list(install.install(place))
    assert list(install.install(place)) == [f"removed {place.path(install.INTERPRETER)}"]
    assert files_of(place) == INSTALLED


def test_an_edited_configuration_is_left_alone(place: Place) -> None:
    """What this version would install is put beside it, and that is said; and only once."""
    list(install.install(place))
    with open(place.path(paths.SYSTEM_CONFIGURATION), "w", encoding="utf-8") as file:
        file.write("limits: {clients: 5}\n")
    (said,) = install.install(place)
    assert said.startswith(f"wrote {place.path(install.NEW_CONFIGURATION)} ")
    assert "stays as it is" in said
    assert text_of(place, paths.SYSTEM_CONFIGURATION) == "limits: {clients: 5}\n"
    assert list(install.install(place)) == ["everything is in place already"]


def test_the_tightening_for_socket_activation_is_a_choice(place: Place) -> None:
    """It is there when it is asked for, stays when nothing is said, and goes when told to."""
    list(install.install(place, by_socket_only=True))
    assert files_of(place) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install(place))
    assert files_of(place) == INSTALLED | {install.BY_SOCKET_ONLY}
    list(install.install(place, by_socket_only=False))
    assert files_of(place) == INSTALLED


def test_uninstalling_leaves_the_configuration(place: Place) -> None:
    """All else goes, with the folder of drop-ins, and a second time there is nothing to do."""
    list(install.install(place, by_socket_only=True))
    said = list(install.uninstall(place))
    assert f"removed {place.path(install.SERVICE)}" in said
    assert files_of(place) == {paths.SYSTEM_CONFIGURATION}
    assert not os.path.exists(place.path(f"{install.SERVICE}.d"))
    assert list(install.uninstall(place)) == ["nothing of it is installed"]


def test_a_dry_uninstall_removes_nothing(place: Place) -> None:
    """It tells what it would remove."""
    list(install.install(place))
    said = list(install.uninstall(place._replace(dry_run=True)))
    assert f"would remove {place.path(install.SERVICE)}" in said
    assert files_of(place) == INSTALLED


def test_a_folder_that_cannot_be_written_is_an_error(place: Place) -> None:
    """The error says which, and nothing half-written is left."""
    os.makedirs(os.path.dirname(place.path(install.UNITS)))
    with open(place.path(install.UNITS), "w", encoding="utf-8"):
        pass
    with pytest.raises(OSError, match="systemd/system"):
        list(install.install(place))
