"""The warm-up of a handler in the master: it leaves no trace outside of the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest

from tetrad.handler import commands
from tetrad.handler.process import Handler
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system.proctitle import ProcessTitle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.ipc.runtime_config import RuntimeConfig

TITLE = ProcessTitle(os.devnull)
"""The title of the master, which is not shown."""

DEADLINES = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
COMMANDS: dict[str, Any] = {
    "time": {"kind": "clock", "text": "%Y", "timezone": "UTC"},
    "quit": {"kind": "close", "text": "quit", "timezone": ""},
}
CONFIG = cast(
    "RuntimeConfig",
    {
        "listeners": [
            {"service": service, "tls": None, "reply_terminator": ""}
            for service in ("command", "echo")
        ],
        "session": dict.fromkeys([*DEADLINES, "log_rate"]),
        "log": {"level": "debug"},
    },
)


class Master:
    """A handler as in the master, and the read ends of the pipes that it writes to."""

    def __init__(self) -> None:
        self._pipes = [os.pipe() for _ in range(3)]
        (self.events, events_fd), (self.notices, notices_fd), (shutdown_fd, _) = self._pipes
        os.set_blocking(self.events, False)
        os.set_blocking(self.notices, False)
        self.shutdown_pipe = ShutdownPipe(shutdown_fd, 0.0)
        made = commands.make(COMMANDS)
        self.handler = Handler(
            CONFIG, made, [None, None], TITLE, self.shutdown_pipe, events_fd, notices_fd
        )

    def close(self) -> None:
        """Close the pipes."""
        for fd in [fd for pipe in self._pipes for fd in pipe]:
            os.close(fd)


@pytest.fixture
def master() -> Iterator[Master]:
    """Return a master that collects no garbage."""
    gc.collect()
    gc.disable()
    master = Master()
    yield master
    master.close()
    gc.enable()


def test_the_warm_up_writes_no_event_and_no_notice(master: Master) -> None:
    """A second handler serves the dummy clients, and writes to /dev/null."""
    master.handler.warm_up()
    for fd in (master.events, master.notices):
        with pytest.raises(BlockingIOError):
            os.read(fd, 1)


def test_the_warm_up_serves_sessions_on_both_paths(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the slow path sets the title of a handler, and not that of the master."""
    titles: list[tuple[ProcessTitle, bytes]] = []
    monkeypatch.setattr(ProcessTitle, "show", lambda *shown: titles.append(shown))
    master.handler.warm_up()
    assert b"handler " in {text for _, text in titles}
    assert TITLE not in [title for title, _ in titles]


def test_the_warm_up_leaves_signals_as_they_were(master: Master) -> None:
    """The wakeup descriptor, the signal mask, and the state of the live shutdown pipe."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    before = signal.set_wakeup_fd(write_end)
    try:
        master.handler.warm_up()
    finally:
        assert signal.set_wakeup_fd(before) == write_end
        os.close(read_end)
        os.close(write_end)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert not master.shutdown_pipe.signals_unblocked
    assert not master.shutdown_pipe.stopping


def test_the_warm_up_leaks_no_descriptor(master: Master) -> None:
    """Neither sockets, nor pipes, nor /dev/null."""
    before = os.listdir("/proc/self/fd")
    master.handler.warm_up()
    assert os.listdir("/proc/self/fd") == before


def test_a_handler_is_freed_without_garbage_collection(master: Master) -> None:
    """The second one after the warm-up, the live one when a reload replaces it."""
    master.handler.warm_up()
    assert [one for one in gc.get_objects() if isinstance(one, Handler)] == [master.handler]
    live = weakref.ref(master.handler)
    del master.handler
    assert live() is None
