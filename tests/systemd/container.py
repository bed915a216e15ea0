"""A container with a systemd of its own, in which tetrad is installed as an operator would do it.

Its root is this machine's own, with everything that is written to it kept in memory. All of it
hangs on one process: its mounts are in a mount namespace and its processes in a process namespace
of their own, so that the kernel takes everything away when that process dies, however the tests
end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from daemons import PATIENCE_SECONDS, Client, Process, Ran, children_of, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "/opt/tetrad"
"""Where the container's virtual environment is."""

BOOT_SECONDS = 240.0
"""How long installing and booting may take, on a machine that is very busy."""

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

_FOR_PIP = ("_PROXY", "SSL_CERT_FILE")
"""Beside its own variables, what pip reaches a registry with."""

_DROP_INS = "systemd/tetrad.service.d"

_CLONE_NEWNET = 0x40000000

_BOOT = r"""
set -eu
top=$1 wheel=$2 python=$3 prefix=$4
shift 4
root=$top/root

mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"

# Nothing of this machine's own services, and no tetrad but ours.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/rc?.d/S* "$root"/etc/logrotate.d/*
rm -rf "$root"/etc/systemd/system/tetrad* "$root"/etc/tetrad "$root"/var/log/tetrad
rm -rf "$root"/var/log/journal "$root/$prefix"

container="systemd-nspawn --quiet --register=no --keep-unit --machine=tetrad --directory=$root"
mkdir "$root/wheel"
cp "$wheel" "$root/wheel"
env -u NOTIFY_SOCKET $container "$@" --pipe sh -c \
    "$python -m venv $prefix && $prefix/bin/pip install -q /wheel/*.whl"

# nspawn leaves it to us to boot again.
status=133
while [ $status = 133 ]; do
    status=0
    $container --private-network --notify-ready=yes --boot || status=$?
done
"""


class Container:
    """The container, which is there for as long as the context is."""

    def __init__(self, folder: str, wheel: str) -> None:
        self._top = os.path.join(folder, "container")
        self._wheel = wheel
        self._output = os.path.join(folder, "container.out")
        self._cgroups: set[str] = set()
        self.pid = 0

    def __enter__(self) -> Self:
        """Install and boot."""
        os.mkdir(self._top)
        name = f"tetrad-test-{os.getpid()}"
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(f"\0{name}")
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [*_IN_NAMESPACES, "sh", "-c", _BOOT, "boot", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": f"@{name}"},
                start_new_session=True,  # an interrupt is for the tests, which end us then
            )
        try:
            self._await_boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away: all of its processes and mounts go with the first one."""
        for pid in children_of(self._process.pid) or [self._process.pid]:
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._notices.close()
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)
        os.rmdir(self._top)

    def run(self, *command: str) -> Ran:
        """Run a command inside, as root."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "--"]
        return run([*enter, *command], _ENVIRONMENT)

    def do(self, *command: str) -> str:
        """Run a command inside that must succeed, and return what it prints."""
        ran = self.run(*command)
        assert ran.status == 0, f"{' '.join(command)}: {ran.out}{ran.err}"
        return ran.out

    def tetrad(self, *arguments: str) -> Ran:
        """Run a tetrad command inside, as root."""
        return self.run(*self.tetrad_command(*arguments))

    def tetrad_command(self, *arguments: str) -> list[str]:
        """Return the command line of a tetrad command inside."""
        return [f"{PREFIX}/bin/tetrad", *arguments]

    def example(self, name: str) -> str:
        """Return one of the drop-ins that came with the package, with our paths in it."""
        return self.do(
            "sh", "-c", f"cat {PREFIX}/lib/*/site-packages/tetrad/data/{_DROP_INS}/{name}"
        )

    def path(self, path: str) -> str:
        """Return where a path of the container's is seen from here."""
        return f"/proc/{self.pid}/root{path}"

    def read(self, path: str) -> str:
        """Return a file's text."""
        with open(self.path(path), encoding="utf-8") as file:
            return file.read()

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)

    def connect(self, host: str = "127.0.0.1", port: int = 65000) -> Client:
        """Connect to a port of the container's."""
        with self.network():
            connected = socket.socket()
        connected.settimeout(PATIENCE_SECONDS)
        connected.connect((host, port))
        return Client(connected)

    @contextlib.contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Have a port of the container's be somebody else's."""
        with self.network():
            listener = socket.socket()
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            yield

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Have this thread's new sockets be in the container's network."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _enter_network(theirs)
            yield
        finally:
            _enter_network(own)
            os.close(theirs)
            os.close(own)

    def outside(self, pid: int) -> int:
        """Return the pid by which a process of the container's is known here."""
        return next(one for one in self.processes() if _inside(one) == pid)

    def processes(self) -> list[int]:
        """Return the pids, as they are known here, of all that runs inside."""
        found = [self.pid]
        for pid in found:
            found += children_of(pid)
        return found

    def reboot(self) -> None:
        """Boot again; the files stay."""
        with contextlib.closing(Process(self.pid)) as before:
            self.run("systemctl", "reboot")
            assert before.has_ended(), "the container does not go down"
        self._await_boot()

    def _arguments(self) -> list[str]:
        python = os.path.realpath(sys.executable)
        for_pip = [f"--setenv={name}" for name in os.environ if name.upper().endswith(_FOR_PIP)]
        for_pip += [f"--setenv={name}" for name in os.environ if name.startswith("PIP_")]
        return [self._top, self._wheel, python, PREFIX, *for_pip]

    def _await_boot(self) -> None:
        """Wait until systemd says that it has started everything."""
        deadline = time.monotonic() + BOOT_SECONDS
        with contextlib.closing(Process(self._process.pid)) as process:
            while b"READY=1" not in self._next_notice(deadline):
                assert not process.has_ended(0), self._log()
        shell = children_of(self._process.pid)[0]
        nspawn = children_of(shell)[0]
        self.pid = children_of(nspawn)[0]
        self._cgroups |= _cgroups_of(self.pid)

    def _next_notice(self, deadline: float) -> bytes:
        """Return what the container says next, or nothing if that takes a while."""
        if select.select([self._notices], [], [], 1.0)[0]:
            return self._notices.recv(4096)
        assert time.monotonic() < deadline, f"the container does not boot: {self._log()}"
        return b""

    def _log(self) -> str:
        with open(self._output, encoding="utf-8", errors="replace") as file:
            return file.read()


_IN_NAMESPACES = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
]
"""Dies with the tests, and takes along whatever it started and mounted."""


def obstacle() -> str:
    """Return why there can be no container here; nothing if there can."""
    if os.geteuid():
        return "only root can boot a container"
    needed = ("systemd-nspawn", "nsenter", "unshare", "setpriv")
    missing = [program for program in needed if shutil.which(program) is None]
    return f"{', '.join(missing)}: not installed" if missing else ""


def _enter_network(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _inside(pid: int) -> int:
    """Return the pid that a process has in its innermost namespace; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(line.split()[-1])


def _cgroups_of(pid: int) -> set[str]:
    """Return the folders that nspawn has made for a container in the hierarchies of cgroups."""
    folders = set()
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":")
            above, found, _ = path.partition("/payload")
            if found:
                folders |= _existing(controllers.removeprefix("name="), above)
    return folders


def _existing(hierarchy: str, above: str) -> set[str]:
    mounts = [f"/sys/fs/cgroup/{name}{above}" for name in (hierarchy or "unified", "")]
    made = [f"{mount}/{name}" for mount in mounts for name in ("payload", "supervisor")]
    return {folder for folder in made if os.path.isdir(folder)}


def _remove_cgroup(folder: str) -> None:
    for top, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(top)
