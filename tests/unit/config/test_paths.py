"""Where the configuration file is searched."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tetrad.config import paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("config_path", "variable", "system", "found"),
    [
        ("a.yaml", "/b.yaml", True, "{}/a.yaml"),
        ("/a.yaml", None, False, "/a.yaml"),
        (None, "b.yaml", True, "{}/b.yaml"),
        (None, "", True, "{}/system.yaml"),
        (None, None, True, "{}/system.yaml"),
        (None, None, False, None),
        ("", "", False, None),
    ],
)
def test_the_file_is_searched_in_order(  # noqa: PLR0913 - a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_path: str | None,
    variable: str | None,
    *,
    system: bool,
    found: str | None,
) -> None:
    """-c comes first, then $TETRAD_CONFIG, then the system's file if it exists, then none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", str(tmp_path / "system.yaml"))
    monkeypatch.delenv("TETRAD_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("TETRAD_CONFIG", variable)
    if system:
        (tmp_path / "system.yaml").touch()
    assert paths.configuration(config_path) == (found and found.format(tmp_path))


@pytest.mark.parametrize(
    ("error", "is_there"),
    [
        (errno.ENOENT, False),
        (errno.ENOTDIR, False),
        (errno.EACCES, True),
        (errno.ELOOP, True),
        (errno.EIO, True),
        (errno.ESTALE, True),
    ],
)
def test_only_an_absent_file_is_no_file(
    monkeypatch: pytest.MonkeyPatch, error: int, *, is_there: bool
) -> None:
    """Any other error is for whoever reads it."""

    def lstat(path: str) -> None:
        raise OSError(error, os.strerror(error), path)

    monkeypatch.delenv("TETRAD_CONFIG", raising=False)
    monkeypatch.setattr(os, "lstat", lstat)
    assert (paths.configuration(None) is not None) is is_there


def test_a_dangling_link_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be read, but somebody has put it there."""
    (tmp_path / "system.yaml").symlink_to("missing")
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", str(tmp_path / "system.yaml"))
    assert paths.system_configuration() == str(tmp_path / "system.yaml")


def test_the_file_of_the_system_is_in_etc() -> None:
    """Its path is fixed."""
    assert paths.SYSTEM_CONFIGURATION == "/etc/tetrad/tetrad.yaml"
