"""The folder of the system's file cannot be read: that is an error, and does not mean defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemon.test_system_places import in_namespace, needs_namespaces

if TYPE_CHECKING:
    import pathlib


@needs_namespaces
def test_the_configuration_stays_in_effect(tmp_path: pathlib.Path) -> None:
    """A reload by the user of the daemon, and commands of other users, are refused."""
    ran = in_namespace(
        tmp_path,
        """
        echo 'access: {deny: [127.0.0.0/8]}' >>/etc/tetrad/tetrad.yaml
        root start >/dev/null 2>&1
        chmod 700 /etc/tetrad
        say root reload
        say root explain 127.0.0.1
        for command in status check start; do say other $command; done
        """,
    )
    said = [line for line in ran.out.splitlines() if " -> " in line]
    assert said == [
        "root reload -> 78",
        "root explain 127.0.0.1 -> 1",
        "other status -> 4",
        "other check -> 4",
        "other start -> 4",
    ], ran
    denied = "/etc/tetrad/tetrad.yaml: permission denied; user"
    assert ran.err.count(f"{denied} nobody needs read access") == 1
    assert ran.err.count(f"{denied} 54321 needs read access") == 3
