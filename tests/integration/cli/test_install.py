"""The interpreter of the service is started once to see whether it can import tetrad."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tetrad.cli import install
from tetrad.cli.install import InstallError, Target

if TYPE_CHECKING:
    import pathlib

pytestmark = pytest.mark.quick


def test_an_interpreter_that_can_import_tetrad_is_in_the_unit(tmp_path: pathlib.Path) -> None:
    """It is the one that runs this test."""
    target = Target(str(tmp_path))
    list(install.install_files(target))
    with open(target.path(install.SERVICE), encoding="utf-8") as file:
        assert f"ExecStart={sys.executable} -I -m tetrad start\n" in file.read()


def test_an_interpreter_without_tetrad_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, a program that fails as such an interpreter does."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InstallError, match="install it in a virtual environment"):
        list(install.install_files(Target(str(tmp_path))))
