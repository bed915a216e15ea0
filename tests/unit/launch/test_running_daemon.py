"""Which file a running daemon has, by its title."""

from __future__ import annotations

import pytest

from tetrad.launch.running_daemon import RunningDaemon

FILE = "/größe €/tetrad.yaml"


@pytest.mark.parametrize(
    "title",
    [
        f"tetrad: master {FILE}".encode(),
        f"tetrad: master {FILE}".encode("ascii", "backslashreplace"),  # of version 0.1.0
    ],
)
def test_a_title_has_a_path_in_utf_8(title: bytes) -> None:
    """Or in ASCII, of a daemon of an earlier version."""
    daemon = RunningDaemon(1, 0, title)
    assert daemon.runs_with(FILE)
    assert not daemon.runs_with("/gröben €/tetrad.yaml")


def test_messages_have_the_path_as_it_is() -> None:
    """Not its escapes."""
    assert RunningDaemon(1, 0, f"tetrad: master {FILE}".encode()).file == FILE
