"""The master's log: which events are shown to the service manager too, and how."""

from __future__ import annotations

import os

import pytest

from tetrad.ipc import log_protocol
from tetrad.master.daemon_log import DaemonLog, describe


def problems_of(level: str, event: str, **fields: object) -> list[str]:
    """Return what is reported for an event."""
    found: list[str] = []
    fd = os.memfd_create("events")
    DaemonLog(fd, "error", found.append).event(level, event, **fields)
    os.close(fd)
    return found


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_problem_of_the_daemon_is_reported(level: str) -> None:
    """Whatever `log.level` is."""
    assert problems_of(level, log_protocol.SERVER_OVERLOADED, error="too many open files") == [
        "server.overloaded: error=too many open files"
    ]


@pytest.mark.parametrize(
    ("level", "event"),
    [
        ("info", log_protocol.SERVER_RELOADED),
        ("warning", log_protocol.CLIENT_REFUSED),
        ("warning", log_protocol.CLIENT_INVALID),
        ("error", log_protocol.CLIENT_DISCONNECTED),
    ],
)
def test_other_events_are_not_reported(level: str, event: str) -> None:
    """Neither information nor what is about one client."""
    assert problems_of(level, event) == []


def test_a_loss_that_must_not_be_lost_is_reported() -> None:
    """The end of a logger is such an event; an order is none."""
    found: list[str] = []
    fd = os.memfd_create("events")
    log = DaemonLog(fd, "info", found.append)
    log.enqueue_reliable("error", log_protocol.LOG_LOST, count=None, why="killed")
    log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    os.close(fd)
    assert found == ["log.lost: why=killed"]


def test_errors_are_shown_as_texts() -> None:
    """The list of a failed reload, one after the other, and shortened."""
    event = log_protocol.SERVER_RELOAD_FAILED
    assert describe(event, {"errors": ["one", "two"]}) == "server.reload_failed: one; two"
    assert len(describe(event, {"errors": ["x" * 1000]})) < 500
