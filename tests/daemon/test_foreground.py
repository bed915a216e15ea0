"""`tetrad run`: serving in the foreground."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS, assert_no_traceback, title_of, until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


class Foreground:
    """A `tetrad run` in a process group of its own, as from a terminal."""

    def __init__(self, daemon: Daemon) -> None:
        self._output = os.path.join(daemon.folder, "output")
        self.process = daemon.run(self._output)
        until(lambda: "Ctrl-C" in self.text() or self.process.poll() is not None, "its first lines")
        until(lambda: os.path.getsize(daemon.pidfile), "its pid")
        daemon.ports = [int(port) for port in re.findall(r" at [\d.]+:(\d+);", self.text())]

    def text(self) -> str:
        """Return the output."""
        with open(self._output, encoding="utf-8") as file:
            return file.read()

    def interrupt(self) -> int:
        """Send SIGINT to the process group, as Ctrl-C does; return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        status = self.process.wait(TIMEOUT_SECONDS)
        assert_no_traceback(self.text())
        return status


def in_foreground(
    prepared: MakeDaemon, log: dict[str, str | None] | None = None
) -> tuple[Daemon, Foreground]:
    """Serve in the foreground, with the section `log` of the configuration."""
    asked = prepared(log={} if log is None else log)
    if log is None:
        asked.settings["log"] = {}
        asked.configure()
    return asked, Foreground(asked)


@pytest.mark.quick
def test_serving_in_the_foreground_is_readable(prepared: MakeDaemon) -> None:
    """`tetrad run` prints its listeners with a command to try them; its log is readable."""
    served, foreground = in_foreground(prepared)
    assert f"nc 127.0.0.1 {served.port}" in foreground.text()
    assert foreground.process.pid == served.pid
    assert ANSWER.fullmatch(served.connect().ask())
    until(lambda: "client.command" in foreground.text(), "the log")
    assert not any(line.startswith("{") for line in foreground.text().splitlines())
    assert foreground.interrupt() == 0
    assert "server.stopped" in foreground.text()


def test_an_interrupt_completes_a_started_command(prepared: MakeDaemon) -> None:
    """Handlers and logger, which receive SIGINT too, finish their work."""
    served, foreground = in_foreground(prepared)
    client = served.connect()
    client.send_and_wait(b"ti")
    os.killpg(foreground.process.pid, signal.SIGINT)
    until(lambda: "server.stopping" in foreground.text(), "the stop")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert foreground.process.wait(TIMEOUT_SECONDS) == 0


def test_only_the_logger_has_standard_error(prepared: MakeDaemon) -> None:
    """The standard streams of all other processes are the null device, also after an upgrade."""
    served, foreground = in_foreground(prepared)
    served.served()
    for event in ("client.connected", "server.upgraded"):
        until(partial(_contains, foreground, event), "the log")
        assert served.logger
        for pid in served.processes:
            targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)]
            expected = ["/dev/null"] * 3
            if title_of(pid) == "tetrad: logger":
                expected[2] = os.path.join(served.folder, "output")
            assert targets == expected
        assert served.tetrad("upgrade").status == 0
    assert foreground.interrupt() == 0


def _contains(foreground: Foreground, event: str) -> bool:
    return event in foreground.text()


def test_a_log_file_that_is_set_is_written_in_the_foreground(prepared: MakeDaemon) -> None:
    """With `log.file` the log is not on the terminal."""
    served, foreground = in_foreground(prepared, log={"file": "tetrad.log"})
    served.wait_for("server.started")
    assert foreground.interrupt() == 0
    assert "server.started" not in foreground.text()
    assert served.events()[-1]["event"] == "server.stopped"


def test_the_foreground_keeps_the_format_that_is_set(prepared: MakeDaemon) -> None:
    """With `log.file: null` and a format, standard error has that format."""
    _, foreground = in_foreground(prepared, log={"file": None, "format": "json"})
    until(lambda: '"event":"server.started"' in foreground.text(), "JSON")
    assert foreground.interrupt() == 0


def test_the_foreground_does_not_start_a_second_one(shared_daemon: MakeDaemon) -> None:
    """`tetrad run` fails if the daemon already runs, unlike `tetrad start`."""
    served = shared_daemon()
    ran = served.tetrad("run")
    assert ran.status != 0
    assert f"already running (pid {served.pid})" in ran.err


def test_stop_works_for_the_foreground(prepared: MakeDaemon) -> None:
    """A daemon in the foreground has a pidfile and a control socket too."""
    served, foreground = in_foreground(prepared)
    assert served.status()["state"] == "running"
    assert served.tetrad("stop").status == 0
    assert foreground.process.wait(TIMEOUT_SECONDS) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run as root")
def test_a_start_beside_it_creates_nothing(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Not even the default folder of the log, which `run` does not need."""
    served = prepared(folder=nobodys_folder, log={"file": None})
    del served.settings["log"]["file"]
    served.configure()
    os.chown(served.environment["HOME"], *os.stat(nobodys_folder)[4:6])
    served.command = [*BECOME_NOBODY, *served.command]
    Foreground(served)
    ran = served.tetrad("start")
    assert (ran.status, ran.out) == (0, f"tetrad: already running (pid {served.pid})\n")
    assert not os.path.exists(os.path.join(served.environment["HOME"], ".local/state/tetrad"))
