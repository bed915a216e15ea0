"""The balancer: HAProxy itself, with the configuration that is shipped."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from processes import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from damage.network_namespaces import Network

CONFIGURATION = pathlib.Path(__file__).parents[2] / "etc" / "haproxy" / "tetrad.cfg"

BACKEND = "tetrads"

Line = dict[str, Any]


class Balancer:
    """A HAProxy that runs in a network, and what it knows and says."""

    def __init__(self, network: Network, folder: str, configuration: pathlib.Path) -> None:
        self._admin = os.path.join(folder, "admin.sock")
        self._log = os.path.join(folder, "haproxy.log")
        command = ["haproxy", "-db", "-f", str(configuration)]
        environment = {**os.environ, "TETRAD_ADMIN": self._admin}
        with open(self._log, "wb") as log:
            self._process = network.do(
                lambda: subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str) -> str:
        """Give it a command of its runtime socket, and return the answer."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(PATIENCE_SECONDS)
            connected.connect(self._admin)
            connected.sendall(f"{command}\n".encode())
            answer = b""
            while more := connected.recv(65536):
                answer += more
        return answer.decode()

    def order(self, command: str) -> None:
        """Give it a command that says nothing if it succeeds."""
        answer = self.ask(command).strip()
        assert not answer, answer

    def servers(self) -> dict[str, dict[str, str]]:
        """Return its statistics about each tetrad."""
        text = self.ask(f"show stat {BACKEND} 4 -1").removeprefix("# ")
        return {row["svname"]: row for row in csv.DictReader(text.splitlines())}

    def status(self, name: str) -> str:
        """Return what it thinks of a tetrad: UP, DOWN, DRAIN, ..."""
        return self.servers()[name]["status"]

    def dropped(self) -> int:
        """Return how many lines it has dropped rather than wait for its other threads."""
        info = dict(line.partition(": ")[::2] for line in self.ask("show info").splitlines())
        return int(info["DroppedLogs"])

    def homes(self) -> dict[str, str]:
        """Return the tetrad of each client who has one, by the client's name."""
        lines = self.ask("show sess").splitlines()
        words = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
        return {one["src"]: one["srv"] for one in words if one.get("be") == BACKEND}

    def sessions_of(self, name: str) -> set[str]:
        """Return the clients whom a tetrad has."""
        return {client for client, home in self.homes().items() if home == name}

    def wait_until_empty(self, name: str) -> None:
        """Wait until a tetrad has no session."""
        until(lambda: not self.sessions_of(name), f"the end of the last session of {name}")

    def wait_for(self, name: str, status: str) -> None:
        """Wait until it thinks so of a tetrad."""
        until(lambda: self.status(name) == status, f"{name} to be {status}:\n{self.log()}")

    def wait_until_open(self) -> None:
        """Wait until it listens and has found every tetrad well."""
        until(lambda: os.path.exists(self._admin) or self._has_ended(), "the balancer")
        # A server is up until its first check; the check says more than the status.
        until(
            lambda: all(row["check_status"] == "L7OK" for row in self.servers().values()),
            f"the first checks: {self.log()}",
        )

    def _has_ended(self) -> bool:
        assert self._process.poll() is None, self.log()
        return False

    def log(self) -> str:
        """Return all that it has said."""
        with open(self._log, encoding="utf-8") as file:
            return file.read()

    def sessions(self) -> list[Line]:
        """Return its lines about sessions."""
        lines = self.log().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
