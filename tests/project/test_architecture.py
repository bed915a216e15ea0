"""ARCHITECTURE.md is true: its modules exist, its files and figures are the real ones."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pwd
import re
import stat
from typing import TYPE_CHECKING

import pytest

import tetrad
from tests.support import markdown_pages as pages
from tests.support.project import ROOT
from tetrad.config.model import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
SOURCE = os.path.dirname(tetrad.__file__)

XDG = {"XDG_RUNTIME_DIR": "/xdg/runtime", "XDG_STATE_HOME": "/xdg/state"}

FOLDERS = sorted(
    name for name in os.listdir(SOURCE) if os.path.isfile(f"{SOURCE}/{name}/__init__.py")
)


def rows(heading: str) -> Iterator[list[str]]:
    """Return the rows of the first table of a section, without the backticks of their cells."""
    lines = pages.section(ARCHITECTURE, heading).splitlines()
    lines = list(itertools.dropwhile(lambda line: not line.startswith("|"), lines))
    for row in itertools.takewhile(lambda line: line.startswith("|"), lines[2:]):
        yield [cell.strip().strip("`") for cell in row.strip("|").split("|")]


def files() -> dict[str, list[str]]:
    """Return the rows of the table of files by the key of the configuration."""
    return {row[0].partition(":")[0]: row[1:] for row in rows("## Files")}


def test_every_role_has_its_entry_point() -> None:
    """The modules in the table of roles have the functions and classes that it names."""
    for _, module, name, _ in rows("## Roles"):
        assert callable(getattr(importlib.import_module(module), name)), f"{module}.{name}"


def test_the_modules_that_it_names_exist() -> None:
    """A module is written as `folder/name`, a folder as `folder/`."""
    assert sorted(row[0].rstrip("/") for row in rows("## Folders")) == FOLDERS
    named = re.findall(rf"`({'|'.join(FOLDERS)})/(\w*)`", ARCHITECTURE.read_text("utf-8"))
    paths = {os.path.join(SOURCE, folder, name and f"{name}.py") for folder, name in named}
    assert {path for path in paths if not os.path.exists(path)} == set()


def test_the_files_have_the_modes_that_it_names(
    daemon: MakeDaemon, request: pytest.FixtureRequest
) -> None:
    """Those of a running daemon, with the owner that `daemon.user` names; a stop removes some."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    folder, settings = "", {}
    if os.geteuid() == 0:
        folder, user = request.getfixturevalue("nobodys_folder"), "nobody"
        settings = {"daemon": {"user": user}}
    before = os.umask(0o022)
    try:
        served = daemon(folder=folder, listen=[{"address": "unix:t.sock"}], **settings)
    finally:
        os.umask(before)
    paths = {
        "daemon.pidfile": served.pidfile,
        "daemon.control": os.path.join(served.folder, "control.sock"),
        "log.file": served.log_file,
        "listen[].address": os.path.join(served.folder, "t.sock"),
    }
    served.wait_for("server.listening")
    found = {key: os.stat(path) for key, path in paths.items()}
    modes = {key: f"{stat.S_IMODE(status.st_mode):04o}" for key, status in found.items()}
    assert modes == {key: files()[key][2] for key in paths}
    users = {key: pwd.getpwuid(status.st_uid).pw_name for key, status in found.items()}
    starter = pwd.getpwuid(os.geteuid()).pw_name
    of_starter = dict.fromkeys(("daemon.pidfile", "daemon.control"), starter)
    assert users == {**dict.fromkeys(paths, user), **of_starter}
    served.stop()
    left = {key: "no" if os.path.exists(path) else "yes" for key, path in paths.items()}
    assert left == {key: files()[key][3] for key in paths}


@pytest.mark.parametrize(("column", "user"), [(0, 0), (1, 1000)], ids=["root", "others"])
def test_the_default_places_are_those_that_it_names(
    monkeypatch: pytest.MonkeyPatch, column: int, user: int
) -> None:
    """For root, and for other users with XDG folders."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    for name, value in XDG.items():
        monkeypatch.setenv(name, value)
    config = Config()
    defaults = {
        "daemon.pidfile": config.daemon.pidfile,
        "daemon.control": config.daemon.control,
        "log.file": config.log.file,
    }
    for key, default in defaults.items():
        expected = re.sub(r"\$(\w+)", lambda match: XDG[match[1]], files()[key][column])
        assert str(default) == expected


@pytest.mark.parametrize("key", ["client-memory", "handler-memory"])
def test_figures_are_those_of_the_results(key: str) -> None:
    """The memory per client is the median of the last run of the benchmarks."""
    results = json.loads((ROOT / "benchmarks" / "results" / "results.json").read_text("utf-8"))
    (median,) = [row["medians"]["tetrad"] for row in results["rows"] if row["key"] == key]
    assert f"{median:.0f} KiB" in ARCHITECTURE.read_text("utf-8")
