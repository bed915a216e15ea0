"""`tetrad check` refuses what a start would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"log": {"file": "/missing/tetrad.log"}}, "log.file: /missing/tetrad.log: no such file"),
        ({"listen": [{"address": "unix:/missing/a"}]}, "unix:/missing/a: no such file"),
        ({"listen": [{"address": "192.0.2.99", "port": 0}]}, "192.0.2.99:0: cannot assign"),
        ({"daemon": {"pidfile": "/missing/pid"}}, "daemon.pidfile: /missing/pid: no such file"),
        ({"daemon": {"control": "/missing/sock"}}, "daemon.control: /missing/sock: no such file"),
        ({"daemon": {"working_directory": "/missing"}}, "daemon.working_directory: /missing: no"),
    ],
)
def test_what_prevents_a_start_is_refused(
    prepared: MakeDaemon, settings: dict[str, Any], text: str
) -> None:
    """With the same text as the start, and exit status 78."""
    asked = prepared(**settings)
    check, start = asked.tetrad("check"), asked.tetrad("start")
    assert (check.status, check.out) == (78, "")
    assert text in check.err
    assert text in start.err


def test_everything_is_reported_in_one_run(prepared: MakeDaemon) -> None:
    """One line for each problem."""
    asked = prepared(log={"file": "/missing/a"}, daemon={"working_directory": "/missing"})
    assert len(asked.tetrad("check").err.splitlines()) == 2
