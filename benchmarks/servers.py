"""The servers that are compared: how each one is started, and a running one."""

from __future__ import annotations

import getpass
import json
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.processes import MeasureError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

PEERS = Path(__file__).parent / "peers"
MAX_CLIENTS = 20_000
"""The client limit of every server: more than any row needs."""
START_SECONDS = 10.0
HANDLER_EXIT_SECONDS = 60.0
"""How long handlers may run after their clients have disconnected."""

TETRAD = "tetrad"
C = "C"
XINETD = "xinetd"
TCPSERVER = "tcpserver"
SOCAT = "socat"
PYTHON = "ForkingTCPServer"
BARE = "bare Python"
EQUIPPED = "equipped Python"
PHP = "PHP"

_XINETD_CONF = """\
defaults
{{
    instances = UNLIMITED
    per_source = UNLIMITED
    cps = 1000000 1
}}
service bench
{{
    type = UNLISTED
    socket_type = stream
    protocol = tcp
    wait = no
    bind = 127.0.0.1
    port = {port}
    user = {user}
    server = {handler}
    flags = NOLIBWRAP NODELAY
}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The port and folder of a server, and the folder of the compiled programs."""

    port: int
    folder: Path
    programs: Path

    def write(self, name: str, text: str) -> str:
        """Write a file into the folder atomically; return its path."""
        path, new = self.folder / name, self.folder / f"{name}.new"
        new.write_text(text)
        new.replace(path)
        return str(path)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started; `needs` is the program that must be installed.

    `header` is the PROXY header that its clients must send, if any.
    """

    name: str
    needs: str
    command: Callable[[Site], list[str]]
    header: bytes = b""

    @property
    def installed(self) -> bool:
        """Whether it can be measured on this machine."""
        return shutil.which(self.needs) is not None


@dataclass(frozen=True, slots=True)
class Handlers:
    """The `handlers` section of tetrad's configuration."""

    spare: int = 0
    clients_each: int = 1


def configure_tetrad(
    site: Site, handlers: Handlers, clients: int = MAX_CLIENTS, proxy: object = None
) -> str:
    """Write tetrad's configuration as JSON, with the log on; return its path."""
    folder = site.folder
    settings = {
        "listen": [{"address": processes.LOOPBACK, "port": site.port, "proxy": proxy}],
        "daemon": {"pidfile": str(folder / "tetrad.pid"), "control": str(folder / "control.sock")},
        "log": {"file": str(folder / "tetrad.log"), "format": "json", "level": "info"},
        "handlers": asdict(handlers),
        "limits": {"clients": clients},
        "session": {"idle_timeout": "1h"},
    }
    return site.write("tetrad.yaml", json.dumps(settings, indent=2))


def tetrad(executable: str, handlers: Handlers) -> Server:
    """Return tetrad with these handler settings."""
    return Server(
        TETRAD, executable, lambda site: [executable, "run", "-c", configure_tetrad(site, handlers)]
    )


def _fork(site: Site) -> list[str]:
    return [str(site.programs / "fork"), str(site.port)]


def _xinetd(site: Site) -> list[str]:
    handler = site.programs / "handler"
    conf = site.write(
        "xinetd.conf", _XINETD_CONF.format(port=site.port, user=getpass.getuser(), handler=handler)
    )
    pidfile, log = str(site.folder / "xinetd.pid"), str(site.folder / "xinetd.log")
    return ["xinetd", "-dontfork", "-f", conf, "-pidfile", pidfile, "-filelog", log]


def _tcpserver(site: Site) -> list[str]:
    """-D: TCP_NODELAY; -H -R -l 0: no look-ups; -c, -b: clients at once, and backlog."""
    flags = ["-D", "-H", "-R", "-l", "0", "-c", str(MAX_CLIENTS), "-b", "1024"]
    return ["tcpserver", *flags, processes.LOOPBACK, str(site.port), str(site.programs / "handler")]


def _socat(site: Site) -> list[str]:
    """With `nofork` socat passes the socket on, instead of copying data between two sockets."""
    listener = (
        f"TCP-LISTEN:{site.port},bind={processes.LOOPBACK},reuseaddr,fork,backlog=1024,nodelay"
    )
    return ["socat", listener, f"EXEC:{site.programs / 'handler'},nofork"]


def _forking(site: Site) -> list[str]:
    return [sys.executable, str(PEERS / "forking.py"), str(site.port)]


def _bare(site: Site) -> list[str]:
    return [sys.executable, "-I", "-S", str(PEERS / "bare.py"), str(site.port)]


def _equipped(site: Site) -> list[str]:
    logger_settings = {"file": str(site.folder / "equipped.log"), "format": "json", "level": "info"}
    code = "from tetrad.logger.process import main; main()"
    logger = [sys.executable, "-I", "-c", code, json.dumps(logger_settings)]
    return [sys.executable, "-I", "-S", str(PEERS / "equipped.py"), str(site.port), *logger]


def _php(site: Site) -> list[str]:
    return ["php", str(PEERS / "fork.php"), str(site.port)]


ALL_PEERS = (
    Server(C, "cc", _fork),
    Server(XINETD, "xinetd", _xinetd),
    Server(TCPSERVER, "tcpserver", _tcpserver),
    Server(SOCAT, "socat", _socat),
    Server(PYTHON, sys.executable, _forking),
    Server(BARE, sys.executable, _bare),
    Server(EQUIPPED, sys.executable, _equipped),
    Server(PHP, "php", _php),
)


class Instance:
    """A running server, which `running` stops with all its processes."""

    def __init__(self, server: Server, site: Site) -> None:
        """Start it, and wait until it answers; `start_ms` is how long that took."""
        self.server = server
        self.site = site
        self.start_ms = 0.0
        self.leader = self._start()

    @property
    def port(self) -> int:
        """The TCP port of the server."""
        return self.site.port

    def restart(self) -> float:
        """Stop it and start it again; return the milliseconds until it answered."""
        processes.stop(self.leader)
        self.leader = self._start()
        return self.start_ms

    def children(self) -> set[int]:
        """Return the pids of all its processes except the first."""
        return processes.descendants(self.leader.pid)

    def child_titled(self, title: str) -> int:
        """Wait for a child process with this title prefix, and return its pid."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for pid in self.children():
                if processes.title(pid).startswith(title):
                    return pid
        raise MeasureError(f"{self.server.name} has no process {title}")

    def wait_for_children(self, most: int) -> None:
        """Wait until at most `most` child processes are left."""
        deadline = time.monotonic() + HANDLER_EXIT_SECONDS
        while (left := len(self.children())) > most:
            if time.monotonic() > deadline:
                raise MeasureError(
                    f"{self.server.name} still has {left} children after all clients left"
                )
            time.sleep(0.1)

    def _start(self) -> subprocess.Popen[bytes]:
        began = time.perf_counter()
        leader = processes.start(self.server.command(self.site), self.site.folder / "output")
        try:
            self._wait_until_accepting(leader)
        except MeasureError:
            processes.stop(leader)
            raise
        self.start_ms = (time.perf_counter() - began) * 1000
        return leader

    def _wait_until_accepting(self, leader: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not processes.answers(self.port, self.server.header):
            if leader.poll() is not None:
                output = (
                    (self.site.folder / "output").read_text(errors="replace").strip().splitlines()
                )
                raise MeasureError(
                    f"{self.server.name} exited: {output[-1] if output else leader.returncode}"
                )
            if time.monotonic() > deadline:
                raise MeasureError(
                    f"{self.server.name} did not accept within {START_SECONDS:.0f} s"
                )
            time.sleep(0.001)


@contextmanager
def running(server: Server, programs: Path, scratch: Path) -> Iterator[Instance]:
    """Run a server on a free port, in a folder of its own in `scratch`."""
    site = Site(processes.free_port(), scratch / server.name, programs)
    site.folder.mkdir()
    instance = Instance(server, site)
    try:
        yield instance
    finally:
        processes.stop(instance.leader)
