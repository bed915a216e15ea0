"""System calls that fail: strace makes them, early, later on, and for as long as it is there.

Whatever fails, the daemon goes on: the next client is served as soon as it is over, nothing spins
meanwhile, the log is not flooded, and nothing is left behind.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from processes import PATIENCE_SECONDS

from .fault_injection import ONCE, SETTINGS, Episode, Pair, Patient, Row
from .strace import Trace, needs_strace, strace
from .triggers import (
    a_command,
    a_goodbye,
    a_new_listener,
    a_new_logger,
    a_refusal,
    a_reload,
    a_reopening,
    a_status,
    an_outlook,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

pytestmark = needs_strace

RECOVERY_SECONDS = 1.0
"""How soon after the end of a fault the next client has its answer."""

MOST_OF_A_CORE = 0.05
"""How much a process may work while there is nothing that it can do."""

MOST_COMPLAINTS = 2
"""How many lines of the log an episode may cost."""

SPARE = {"handlers": {"spare": 1}}
SLOW = {"session": {"idle_timeout": "3s"}}
"""A look that outlasts the second in which a logger is not tried again."""

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
    Row("master", "write", "EINTR EAGAIN", "ENOMEM ENOBUFS", an_outlook),
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
    Row("the handler", "shutdown", "ENOBUFS", "", a_goodbye, ONCE),
    Row("logger", "read", "EINTR", "EIO"),
    Row("logger", "poll", "EINTR", "ENOMEM"),
    Row("logger", "write", "EINTR EAGAIN", "ENOSPC EIO EPERM ENOMEM"),
    Row("logger", "openat", "EINTR", "EMFILE ENFILE ENOMEM ENOSPC EIO EPERM", a_reopening),
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
"""One of each kind; the long test does all of them."""

AT_ONCE = 3
"""How many daemons suffer at the same time: most of it is waiting."""


ENDS_A_LOGGER = {"read", "poll", "pread64", "pwrite64"}
"""The calls without which a logger cannot go on: another one does."""


def suffer(daemon: Daemon, pairs: Sequence[Pair]) -> dict[str, Episode]:
    """Have a daemon suffer all of this, one after another."""
    patient = Patient(daemon.start())
    logger = daemon.logger
    episodes = {f"{pair}, {when}": (pair, when) for pair in pairs for when in pair.episodes}
    outcome = {name: patient.suffer(*episode) for name, episode in episodes.items()}
    assert not daemon.events("server.failed")
    row = pairs[0].row
    if row.call not in ENDS_A_LOGGER and row.rouse is not a_new_logger:
        assert daemon.logger == logger
    daemon.stop()
    return outcome


def problems_of(outcome: Mapping[str, Episode]) -> list[str]:
    """Return what an episode should not have cost."""
    return [
        f"{name}: {episode}"
        for name, episode in outcome.items()
        if episode.recovery_seconds > RECOVERY_SECONDS
        or episode.share_of_a_core > MOST_OF_A_CORE
        or episode.complaints > MOST_COMPLAINTS
    ]


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_a_call_that_fails_costs_little(prepared: MakeDaemon, name: str) -> None:
    """The daemon serves on, does not spin, says so in a line or two, and is then as before."""
    pair = PAIRS[name]
    assert not problems_of(suffer(prepared(**{**SETTINGS, **pair.row.settings}), [pair]))


def test_nobody_waits_for_a_client_that_could_not_be_passed(prepared: MakeDaemon) -> None:
    """Neither does a master that rehearses that, nor one that has spares: it forks another."""
    daemon = prepared(handlers={"spare": 1})
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        under = strace(file.name, "sendmsg", "error=ETOOMANYREFS")
        tracer = daemon.run(os.path.join(daemon.folder, "output"), under)
        listening = daemon.wait_for("server.listening")
        daemon.ports = [listening["port"]]
        assert daemon.connect().quit() == b"quit"
        assert Trace(file.name, tracer).faults
        os.kill(listening["pid"], signal.SIGTERM)
        assert tracer.wait(PATIENCE_SECONDS) == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_call_that_fails_costs_little(prepared: MakeDaemon, figure: Figure) -> None:
    """Each pair of a call and an error of the table, early, in the middle, and late."""
    assert len(PAIRS) >= 60
    daemons = [prepared(**{**SETTINGS, **row.settings}) for row in TABLE]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(suffer, daemons, [row.pairs for row in TABLE])
    outcome = {name: episode for one in outcomes for name, episode in one.items()}
    faults, seconds, shares, complaints = zip(*outcome.values(), strict=True)
    figure(
        f"{len(PAIRS)} pairs in {len(outcome)} episodes, {sum(faults)} calls failed; "
        f"the next client was served after {max(seconds) * 1000:.0f} ms at most, "
        f"{max(shares):.1%} of a core, {max(complaints)} complaints"
    )
    assert not problems_of(outcome)
