"""The service in the container, as an operator sees it: systemctl, the files, the clients."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any, Self

import yaml

from daemons import ANSWER, PATIENCE_SECONDS, Process, title_of, until

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from daemons import Client, Event, Ran

    from .container import Container

CONFIGURATION = "/etc/tetrad/tetrad.yaml"
LOG_FOLDER = "/var/log/tetrad"
LOG = f"{LOG_FOLDER}/tetrad.log"

_DROP_INS = "/run/systemd/system/tetrad.service.d"


class Service:
    """tetrad.service and tetrad.socket in a container."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def reset(self) -> None:
        """Have it stopped, without a log, and configured as after its installation."""
        self.stop()
        self.container.do("rm", "-rf", _DROP_INS)
        self.container.do("sh", "-c", f"rm -f {LOG_FOLDER}/*")
        self.container.do("systemctl", "daemon-reload")
        self.systemctl("reset-failed", "tetrad.service", "tetrad.socket")
        self.configure()

    def finish(self) -> None:
        """End it, and see that nothing of it is left."""
        pids = [pid for pid in self.container.processes() if title_of(pid).startswith("tetrad:")]
        with contextlib.ExitStack() as stack:
            left = [stack.enter_context(_followed(pid)) for pid in pids]
            self.stop()
            assert all(process.has_ended() for process in left), "processes outlive the service"

    def stop(self) -> None:
        """Stop the service and its socket."""
        self.systemctl("stop", "tetrad.socket", "tetrad.service")

    def systemctl(self, *arguments: str) -> Ran:
        """Run systemctl, whatever comes of it."""
        return self.container.run("systemctl", *arguments)

    def do(self, *arguments: str) -> None:
        """Run systemctl, which must succeed."""
        self.container.do("systemctl", *arguments)

    def configure(self, **settings: Any) -> None:  # noqa: ANN401
        """Write the configuration."""
        self.container.write(CONFIGURATION, yaml.safe_dump(settings) if settings else "")

    def drop_in(self, text: str) -> None:
        """Change the unit, as `systemctl edit` does."""
        self.container.do("mkdir", "-p", _DROP_INS)
        self.container.write(f"{_DROP_INS}/test.conf", text)
        self.do("daemon-reload")

    def shows(self, name: str) -> str:
        """Return one of the properties that systemd has of the service."""
        command = ("systemctl", "show", "--value", "--property", name, "tetrad.service")
        return self.container.do(*command).strip()

    @property
    def state(self) -> str:
        """Whether it is active, failed, inactive or on the way."""
        return self.shows("ActiveState")

    @property
    def master(self) -> int:
        """The pid of the master, as it is known inside."""
        return int(self.shows("MainPID"))

    def outside(self, title: str) -> int:
        """Return the pid, as it is known here, of the process with a title that begins so."""

        def find() -> list[int]:
            pids = self.container.processes()
            return [pid for pid in pids if title_of(pid).startswith(f"tetrad: {title}")]

        return until(find, f"a process tetrad: {title}")[0]

    def replaced(self, master: int) -> int:
        """Wait until systemd has put another master in the place of one, and return it."""
        until(lambda: self.state == "active" and self.master not in {0, master}, "its replacement")
        return self.master

    def reports(self, text: str) -> None:
        """Wait until `systemctl status` shows this; the journal takes a moment."""
        status = ("status", "--no-pager", "--full", "--lines=20", "tetrad.service")
        until(lambda: text in self.systemctl(*status).out, f"{text} in systemctl status")

    def is_logged(self, text: str) -> None:
        """Wait until systemd's journal has this about the service."""
        command = ("journalctl", "--no-pager", "--boot", "--unit=tetrad.service")
        until(lambda: text in self.container.do(*command), f"{text} in the journal")

    def connect(self, port: int = 65000) -> Client:
        """Connect to it."""
        return self.container.connect(port=port)

    def serves(self, port: int = 65000) -> bool:
        """Tell whether a client gets the time."""
        with contextlib.closing(self.connect(port).socket) as connected:
            return _gets_the_time(connected)

    def events(self) -> list[Event]:
        """Return the lines of the log, those that were rotated away first."""
        folder = self.container.path(LOG_FOLDER)
        names = sorted(os.listdir(folder), key=_age, reverse=True)
        return [json.loads(line) for name in names for line in _lines(os.path.join(folder, name))]

    def commands(self) -> int:
        """Return how many commands the log knows of."""
        return sum(event["event"] == "client.command" for event in self.events())


class Load:
    """Clients without a pause, each with a connection of its own, until the context ends."""

    def __init__(self, service: Service, clients: int) -> None:
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        """Begin, and wait until some have been served."""
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the last ones finish."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a client waits for ever"

    def go_on(self, clients: int = 50) -> None:
        """Wait until some more have been served."""
        enough = self.answered + clients
        until(lambda: self.answered >= enough or self.failures, "served clients")

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with contextlib.closing(self._service.connect().socket) as connected:
                    served = _gets_the_time(connected)
            except OSError as error:
                self.failures.append(repr(error))
            else:
                self.answered += served
                self.failures += [] if served else ["no answer"]


def _gets_the_time(connected: socket.socket) -> bool:
    connected.sendall(b"timequit")
    data = b""
    while more := connected.recv(64):
        data += more
    return bool(ANSWER.match(data)) and data.endswith(b"quit")


@contextlib.contextmanager
def _followed(pid: int) -> Iterator[Process]:
    process = Process(pid)
    try:
        yield process
    finally:
        process.close()


def _age(name: str) -> int:
    number = re.search(r"\.(\d+)", name)
    return int(number[1]) if number else 0


def _lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".gz"):
        data = gzip.decompress(data)
    # What follows the last newline is being written.
    return data.rpartition(b"\n")[0].splitlines()
