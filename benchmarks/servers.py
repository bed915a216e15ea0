"""The servers that are compared: how each is started, and a running one."""

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
CROWD = 20_000
"""Clients at once that every server is told to allow: more than any row brings."""
START_SECONDS = 10.0
FAREWELL_SECONDS = 60.0
"""What a server's handlers get to end in once their clients have left."""

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
    """Where one server runs: its port, its own folder, and the folder of the C programs."""

    port: int
    folder: Path
    programs: Path

    def write(self, name: str, text: str) -> str:
        """Put a file into the folder, whole at any moment; return its path."""
        path, new = self.folder / name, self.folder / f"{name}.new"
        new.write_text(text)
        new.replace(path)
        return str(path)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started: `needs` is the program that has to be installed for it.

    One that serves whom a balancer brings has that one's `header`.
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
    """tetrad's `handlers` section."""

    spare: int = 0
    clients_each: int = 1


def configure_tetrad(
    site: Site, handlers: Handlers, clients: int = CROWD, proxy: object = None
) -> str:
    """Write tetrad's configuration, with the log on, as JSON, which is YAML; return its path."""
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
    """Return tetrad with so many spare handlers and clients each."""
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
    """-D: no delay; -H -R -l 0: no look-ups of names; -c, -b: clients at once, and waiting."""
    flags = ["-D", "-H", "-R", "-l", "0", "-c", str(CROWD), "-b", "1024"]
    return ["tcpserver", *flags, processes.LOOPBACK, str(site.port), str(site.programs / "handler")]


def _socat(site: Site) -> list[str]:
    """`nofork` makes socat hand the socket over, rather than copy between two of them."""
    listener = (
        f"TCP-LISTEN:{site.port},bind={processes.LOOPBACK},reuseaddr,fork,backlog=1024,nodelay"
    )
    return ["socat", listener, f"EXEC:{site.programs / 'handler'},nofork"]


def _forking(site: Site) -> list[str]:
    return [sys.executable, str(PEERS / "forking.py"), str(site.port)]


def _bare(site: Site) -> list[str]:
    return [sys.executable, "-I", "-S", str(PEERS / "bare.py"), str(site.port)]


def _equipped(site: Site) -> list[str]:
    orders = {"file": str(site.folder / "equipped.log"), "format": "json", "level": "info"}
    code = "from tetrad.logger import main; main()"
    logger = [sys.executable, "-I", "-c", code, json.dumps(orders)]
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
    """One server, running. It ends, with all its processes, when `running` is left."""

    def __init__(self, server: Server, site: Site) -> None:
        """Start it and wait until it answers; `start_ms` says how long that took."""
        self.server = server
        self.site = site
        self.start_ms = 0.0
        self.leader = self._start()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return self.site.port

    def restart(self) -> float:
        """Stop it and start it again; return the milliseconds it took to answer."""
        processes.stop(self.leader)
        self.leader = self._start()
        return self.start_ms

    def children(self) -> set[int]:
        """Return the ids of all its processes but the first."""
        return processes.descendants(self.leader.pid)

    def child_titled(self, title: str) -> int:
        """Return the process that `ps` shows under a title that begins so, once there is one."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for pid in self.children():
                if processes.title(pid).startswith(title):
                    return pid
        raise MeasureError(f"{self.server.name} has no process {title}")

    def wait_for_children(self, most: int) -> None:
        """Wait until no more than so many children are left."""
        deadline = time.monotonic() + FAREWELL_SECONDS
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
                said = (
                    (self.site.folder / "output").read_text(errors="replace").strip().splitlines()
                )
                raise MeasureError(
                    f"{self.server.name} ended at once: {said[-1] if said else leader.returncode}"
                )
            if time.monotonic() > deadline:
                raise MeasureError(
                    f"{self.server.name} did not accept within {START_SECONDS:.0f} s"
                )
            time.sleep(0.001)


@contextmanager
def running(server: Server, programs: Path, scratch: Path) -> Iterator[Instance]:
    """Run a server on a free port, in a folder of its own below `scratch`."""
    site = Site(processes.free_port(), scratch / server.name, programs)
    site.folder.mkdir()
    instance = Instance(server, site)
    try:
        yield instance
    finally:
        processes.stop(instance.leader)
