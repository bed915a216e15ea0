"""System calls that fail: strace injects errors early, later, and for as long as it is attached.

The daemon must keep serving, answer the next client soon afterwards, not spin, not flood the log,
and leave nothing behind.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_injection import ONCE, SETTINGS, Episode, FaultyDaemon, Pair, Row
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.strace import Trace, needs_strace, strace
from tests.support.triggers import (
    a_command,
    a_log_reopen,
    a_new_listener,
    a_new_logger,
    a_quit,
    a_refusal,
    a_reload,
    a_source_request,
    a_status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

pytestmark = needs_strace

RECOVERY_SECONDS = 1.0
"""How soon the next client must be answered after the failures end."""

MOST_OF_A_CORE = 0.05
"""How much of a core a process may use while it cannot make progress."""

MOST_COMPLAINTS = 2
"""How many error events an episode may log."""

SPARE = {"handlers": {"spare": 1}}
SLOW = {"session": {"idle_timeout": "3s"}}
"""Idle for longer than the second after which the master restarts a logger."""

TABLE = (
    Row(
        "master",
        "accept4",
        "ECONNABORTED EPROTO EINTR EAGAIN",
        "EMFILE ENFILE ENOMEM ENOBUFS EPERM",
    ),
    Row("master", "accept4", "EINTR ECONNABORTED", "EMFILE ENFILE ENOMEM", a_status),
    Row("master", "clone", "", "EAGAIN ENOMEM EPERM"),
    Row("master", "clone", "", "EAGAIN ENOMEM", a_status),
    Row("master", "clone", "", "EAGAIN ENOMEM", a_reload),
    Row("master", "clone", "", "EAGAIN", a_new_logger, ONCE),
    Row("master", "epoll_wait", "EINTR", ""),
    Row("master", "epoll_ctl", "ENOMEM ENOSPC", "", a_status, ONCE),
    Row("master", "read", "EINTR EAGAIN", ""),
    Row("master", "write", "EINTR EAGAIN", "ENOMEM", a_refusal),
    Row("master", "recvfrom", "EINTR EAGAIN", "ENOMEM", a_status),
    Row("master", "write", "EINTR EAGAIN", "ENOMEM ENOBUFS", a_source_request),
    Row("master", "pipe2", "", "EMFILE ENFILE ENOMEM", a_reload),
    Row("master", "socket", "", "EMFILE ENFILE ENOMEM ENOBUFS EPERM", a_new_listener, ONCE),
    Row("master", "bind", "", "ENOMEM ENOSPC EIO", a_new_listener, ONCE),
    Row("master", "socketpair", "", "EMFILE ENFILE ENOMEM", when=ONCE, settings=SPARE),
    Row("master", "sendmsg", "EINTR EAGAIN", "ENOMEM ENOBUFS", settings=SPARE),
    Row("a newborn", "close_range", "", "ENOMEM EPERM ENOSYS", when=ONCE),
    Row("a newborn", "openat", "EINTR", "EMFILE ENFILE ENOMEM EPERM", when=ONCE),
    Row("a newborn", "openat", "EINTR", "EMFILE ENFILE ENOMEM EIO EPERM", a_reload, ONCE),
    Row("a newborn", "pwrite64", "EINTR", "EIO EPERM", when=ONCE),
    Row("a newborn", "recvmsg", "EINTR", "ENOMEM", when=ONCE, settings=SPARE),
    Row("the handler", "recvfrom", "EINTR EAGAIN", "ENOMEM EIO", a_command),
    Row("the handler", "sendto", "EINTR EAGAIN", "ENOMEM ENOBUFS EPERM", a_command),
    Row("the handler", "poll", "EINTR", "ENOMEM", a_command),
    Row("the handler", "write", "EINTR EAGAIN", "ENOMEM", a_command),
    Row("the handler", "shutdown", "ENOBUFS", "", a_quit, ONCE),
    Row("logger", "read", "EINTR", "EIO"),
    Row("logger", "poll", "EINTR", "ENOMEM"),
    Row("logger", "write", "EINTR EAGAIN", "ENOSPC EIO EPERM ENOMEM"),
    Row("logger", "openat", "EINTR", "EMFILE ENFILE ENOMEM ENOSPC EIO EPERM", a_log_reopen),
    Row("logger", "newfstatat", "", "ENOMEM EIO EACCES"),
    Row("logger", "pread64", "EINTR", "EIO"),
    Row("master", "pidfd_open", "", "EMFILE ENFILE ENOMEM", a_new_logger, ONCE, SLOW),
    Row("logger", "pwrite64", "EINTR", "ENOSPC ENOMEM"),
)

PAIRS = {str(pair): pair for row in TABLE for pair in row.pairs}

BY_DEFAULT = (
    "master, accept4, a_client, EMFILE",
    "master, accept4, a_client, ECONNABORTED",
    "master, accept4, a_status, EMFILE",
    "master, clone, a_client, EAGAIN",
    "master, epoll_ctl, a_status, ENOSPC",
    "a newborn, close_range, a_client, ENOSYS",
    "the handler, recvfrom, a_command, EIO",
    "logger, write, a_client, ENOSPC",
)
"""One case of each kind; the long test runs all of them."""

PARALLEL = 3
"""How many daemons are tested in parallel: most of the time is spent waiting."""


ENDS_A_LOGGER = {"read", "poll", "pread64", "pwrite64"}
"""Calls without which a logger exits; the master starts another one."""


def inject(daemon: Daemon, pairs: Sequence[Pair]) -> dict[str, Episode]:
    """Inject these failures into a daemon, one after another."""
    faulty = FaultyDaemon(daemon.start())
    logger = daemon.logger
    episodes = {f"{pair}, {when}": (pair, when) for pair in pairs for when in pair.episodes}
    outcome = {name: faulty.inject(*episode) for name, episode in episodes.items()}
    assert not daemon.events("server.failed")
    row = pairs[0].row
    if row.call not in ENDS_A_LOGGER and row.trigger is not a_new_logger:
        assert daemon.logger == logger
    daemon.stop()
    return outcome


def problems_of(outcome: Mapping[str, Episode]) -> list[str]:
    """Return the episodes that cost too much."""
    return [
        f"{name}: {episode}"
        for name, episode in outcome.items()
        if episode.recovery_seconds > RECOVERY_SECONDS
        or episode.share_of_a_core > MOST_OF_A_CORE
        or episode.complaints > MOST_COMPLAINTS
    ]


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_a_failed_call_costs_little(prepared: MakeDaemon, name: str) -> None:
    """The daemon keeps serving, does not spin, logs at most two events, and recovers fully."""
    pair = PAIRS[name]
    assert not problems_of(inject(prepared(**{**SETTINGS, **pair.row.settings}), [pair]))


def test_a_client_that_cannot_be_passed_gets_another_handler(prepared: MakeDaemon) -> None:
    """If sendmsg fails, neither the warm-up nor a session hangs: the master forks a handler."""
    daemon = prepared(handlers={"spare": 1})
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        under = strace(file.name, "sendmsg", "error=ETOOMANYREFS")
        tracer = daemon.run(os.path.join(daemon.folder, "output"), under)
        listening = daemon.wait_for("server.listening")
        daemon.ports = [listening["port"]]
        assert daemon.connect().quit() == b"quit"
        assert Trace(file.name, tracer).injected_failures
        os.kill(listening["pid"], signal.SIGTERM)
        assert tracer.wait(TIMEOUT_SECONDS) == 0


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_every_failed_call_costs_little(prepared: MakeDaemon, figure: Figure) -> None:
    """Every pair of call and error in the table, early, in the middle and late."""
    assert len(PAIRS) >= 60
    daemons = [prepared(**{**SETTINGS, **row.settings}) for row in TABLE]
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        outcomes = pool.map(inject, daemons, [row.pairs for row in TABLE])
    outcome = {name: episode for one in outcomes for name, episode in one.items()}
    faults, seconds, shares, complaints = zip(*outcome.values(), strict=True)
    figure(
        f"{len(PAIRS)} pairs in {len(outcome)} episodes, {sum(faults)} failed calls; "
        f"the next client was answered after {max(seconds) * 1000:.0f} ms at most, "
        f"{max(shares):.1%} of a core, {max(complaints)} error events"
    )
    assert not problems_of(outcome)
