"""What is installed can be read by all users, whatever the umask of root is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tetrad.cli import install
from tetrad.cli.install import Target

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def _strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.quick
@pytest.mark.usefixtures("_strict_umask")
def test_folders_and_files_are_for_all_users(tmp_path: pathlib.Path) -> None:
    """The folder of the configuration above all: commands of other users read it."""
    list(install.install_files(Target(str(tmp_path)), by_socket_only=True))
    for top, _, files in os.walk(tmp_path):
        if top != str(tmp_path):
            assert stat.S_IMODE(os.stat(top).st_mode) == 0o755, top
        for name in files:
            path = os.path.join(top, name)
            assert os.path.islink(path) or stat.S_IMODE(os.stat(path).st_mode) == 0o644, path
    assert (tmp_path / "etc/tetrad/tetrad.yaml").is_file()
    (tmp_path / "after").touch()
    assert stat.S_IMODE(os.stat(tmp_path / "after").st_mode) == 0o600
