"""`tetrad upgrade` of a daemon whose release does not know how to become a given version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.installations import Installation

if TYPE_CHECKING:
    import pathlib

    from tests.support.upgrades import Edit, Upgradable

UNKNOWN: Edit = ("master/process.py", 'b"upgrade-to"', 'b"other-request"')
SHORT: Edit = ("master/control_server.py", "MAX_REQUEST_BYTES = 65536", "MAX_REQUEST_BYTES = 64")
"""What an earlier release answers: that the request is unknown, or, if it is too long, nothing."""


@pytest.mark.parametrize("edits", [(UNKNOWN,), (UNKNOWN, SHORT)])
def test_it_becomes_what_is_installed_in_its_place(
    upgradable: Upgradable, edits: tuple[Edit, ...]
) -> None:
    """The usual case: the new release has replaced the old one."""
    served, installed = upgradable(*edits)
    client = served.served()
    version = installed.publish()
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.err) == (0, "")
    assert f"upgraded 0.1.1 -> {version} (pid {served.pid}, 1 session kept)" in ran.out
    assert served.status()["version"] == version
    assert ANSWER.fullmatch(client.ask())


def test_the_version_in_another_folder_needs_a_restart(
    upgradable: Upgradable, compiled_package: str, tmp_path: pathlib.Path
) -> None:
    """The command says what the daemon has become."""
    served, installed = upgradable(UNKNOWN)
    client = served.served()
    own = installed.publish()
    (tmp_path / "other").mkdir()
    other = Installation(str(tmp_path / "other"), compiled_package)
    served.environment |= other.environment
    for _ in range(3):
        version = other.publish()
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        f"tetrad: the daemon became version {own}, which is installed in its own place, not"
        f" version {version} of this command: use tetrad restart\n"
    )
    assert served.status()["version"] == own
    assert ANSWER.fullmatch(client.ask())
