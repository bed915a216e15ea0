"""The service in the container as an operator sees it: systemctl, files and clients."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.daemons import Process, title_of, until
from tests.support.session_load import converse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Client, Event, Ran
    from tests.support.systemd_container import Container

CONFIGURATION = "/etc/tetrad/tetrad.yaml"
LOG_FOLDER = "/var/log/tetrad"
LOG = f"{LOG_FOLDER}/tetrad.log"

UNIT_TYPES = ("forking", "notify")
"""The unit as it is installed, and with its example of a drop-in."""

_DROP_INS = "/run/systemd/system/tetrad.service.d"


class Service:
    """tetrad.service and tetrad.socket in a container."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self._always: dict[str, Any] = {}

    def reset(self) -> None:
        """Stop it, remove its log, and restore the installed configuration."""
        self.stop()
        self.container.do("rm", "-rf", _DROP_INS)
        self.container.do("sh", "-c", f"rm -f {LOG_FOLDER}/*")
        self.container.do("systemctl", "daemon-reload")
        self.systemctl("reset-failed", "tetrad.service", "tetrad.socket")
        self.configure()

    def finish(self) -> None:
        """Stop it, and check that all its processes have ended."""
        pids = [pid for pid in self.container.processes() if title_of(pid).startswith("tetrad:")]
        with contextlib.ExitStack() as stack:
            left = [stack.enter_context(_followed(pid)) for pid in pids]
            self.stop()
            assert all(process.has_ended() for process in left), "processes outlive the service"

    def stop(self) -> None:
        """Stop the service and its socket."""
        self.systemctl("stop", "tetrad.socket", "tetrad.service")

    def systemctl(self, *arguments: str) -> Ran:
        """Run systemctl, and return the result."""
        return self.container.run("systemctl", *arguments)

    def do(self, *arguments: str) -> None:
        """Run systemctl, which must succeed."""
        self.container.do("systemctl", *arguments)

    def configure(self, **settings: Any) -> None:  # noqa: ANN401
        """Write the configuration."""
        settings = self._always | settings
        self.container.write(CONFIGURATION, yaml.safe_dump(settings))

    def use(self, unit_type: str) -> None:
        """Use a type of unit; the log is in its file with both."""
        if unit_type == "notify":
            self.drop_in(self.container.example("notify.conf"), "notify")
            self._always = {"log": {"file": LOG}}
            self.configure()

    def drop_in(self, text: str, name: str = "test") -> None:
        """Change the unit, as `systemctl edit` does."""
        self.container.do("mkdir", "-p", _DROP_INS)
        self.container.write(f"{_DROP_INS}/{name}.conf", text)
        self.do("daemon-reload")

    def get_property(self, name: str) -> str:
        """Return a property of the service in systemd."""
        command = ("systemctl", "show", "--value", "--property", name, "tetrad.service")
        return self.container.do(*command).strip()

    @property
    def state(self) -> str:
        """Whether the service is active, failed, inactive or in between."""
        return self.get_property("ActiveState")

    @property
    def master(self) -> int:
        """The pid of the master in the container."""
        return int(self.get_property("MainPID"))

    def outside(self, title: str) -> int:
        """Return the pid, in this pid namespace, of the process with this title prefix."""

        def find() -> list[int]:
            pids = self.container.processes()
            return [pid for pid in pids if title_of(pid).startswith(f"tetrad: {title}")]

        return until(find, f"a process tetrad: {title}")[0]

    def wait_for_new_master(self, master: int) -> int:
        """Wait until systemd has replaced a master, and return the new one's pid."""
        until(lambda: self.state == "active" and self.master not in {0, master}, "another master")
        return self.master

    def wait_for_status_text(self, text: str) -> None:
        """Wait until `systemctl status` shows a text; the journal is asynchronous."""
        status = ("status", "--no-pager", "--full", "--lines=20", "tetrad.service")
        until(lambda: text in self.systemctl(*status).out, f"{text} in systemctl status")

    def wait_for_journal_text(self, text: str) -> None:
        """Wait until the service's journal contains a text."""
        command = ("journalctl", "--no-pager", "--boot", "--unit=tetrad.service")
        until(lambda: text in self.container.do(*command), f"{text} in the journal")

    def connect(self, port: int = 65000) -> Client:
        """Connect to the service."""
        return self.container.connect(port=port)

    def serves(self, port: int = 65000) -> bool:
        """Tell whether a client gets an answer."""
        with contextlib.closing(self.connect(port)) as client:
            return not converse(client)

    def events(self) -> list[Event]:
        """Return the lines of the log, those of rotated files first."""
        folder = self.container.path(LOG_FOLDER)
        names = sorted(os.listdir(folder), key=_age, reverse=True)
        return [json.loads(line) for name in names for line in _lines(os.path.join(folder, name))]

    def commands(self) -> int:
        """Return how many commands are logged."""
        return sum(event["event"] == "client.command" for event in self.events())


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
    # The part after the last newline is incomplete.
    return data.rpartition(b"\n")[0].splitlines()
