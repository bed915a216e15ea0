"""Runs HAProxy with the shipped configuration."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.processes import TIMEOUT_SECONDS, until
from tests.support.project import ROOT

if TYPE_CHECKING:
    import pathlib

    from tests.support.network_namespaces import Network

CONFIGURATION = ROOT / "etc" / "haproxy" / "tetrad.cfg"

BACKEND = "tetrads"

Line = dict[str, Any]


class Balancer:
    """A HAProxy in a network namespace, with its runtime socket and its log."""

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
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()

    def ask(self, command: str) -> str:
        """Send a command to the runtime socket, and return the answer."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(TIMEOUT_SECONDS)
            connected.connect(self._admin)
            connected.sendall(f"{command}\n".encode())
            answer = b""
            while more := connected.recv(65536):
                answer += more
        return answer.decode()

    def run(self, command: str) -> None:
        """Run a command that prints nothing on success."""
        answer = self.ask(command).strip()
        assert not answer, answer

    def servers(self) -> dict[str, dict[str, str]]:
        """Return the statistics of each tetrad."""
        text = self.ask(f"show stat {BACKEND} 4 -1").removeprefix("# ")
        return {row["svname"]: row for row in csv.DictReader(text.splitlines())}

    def status(self, name: str) -> str:
        """Return the state of a tetrad in HAProxy: UP, DOWN, DRAIN, ..."""
        return self.servers()[name]["status"]

    def dropped(self) -> int:
        """Return how many log lines HAProxy has dropped."""
        info = dict(line.partition(": ")[::2] for line in self.ask("show info").splitlines())
        return int(info["DroppedLogs"])

    def server_of_clients(self) -> dict[str, str]:
        """Return the tetrad of each connected client, by the client's name."""
        lines = self.ask("show sess").splitlines()
        words = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
        return {one["src"]: one["srv"] for one in words if one.get("be") == BACKEND}

    def sessions_of(self, name: str) -> set[str]:
        """Return the clients of a tetrad."""
        return {client for client, server in self.server_of_clients().items() if server == name}

    def wait_until_empty(self, name: str) -> None:
        """Wait until a tetrad has no session."""
        until(lambda: not self.sessions_of(name), f"the end of the last session of {name}")

    def wait_for(self, name: str, status: str) -> None:
        """Wait for a state of a tetrad in HAProxy."""
        until(lambda: self.status(name) == status, f"{name} to be {status}:\n{self.log()}")

    def wait_until_open(self) -> None:
        """Wait until it listens and every tetrad has passed a check."""
        until(lambda: os.path.exists(self._admin) or self._has_ended(), "the balancer to start")
        # A server counts as UP before its first check, so look at the check's result.
        until(
            lambda: all(row["check_status"] == "L7OK" for row in self.servers().values()),
            f"the first checks: {self.log()}",
        )

    def _has_ended(self) -> bool:
        assert self._process.poll() is None, self.log()
        return False

    def log(self) -> str:
        """Return everything it has written."""
        with open(self._log, encoding="utf-8") as file:
            return file.read()

    def sessions(self) -> list[Line]:
        """Return its log lines about sessions."""
        lines = self.log().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
