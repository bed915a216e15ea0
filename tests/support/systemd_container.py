"""A container with its own systemd, in which tetrad is installed as an operator installs it.

Its root file system is this machine's, with an overlay in memory for all changes. Its mounts and
processes are in a mount and a pid namespace of one process: when that process ends, for whatever
reason, the kernel removes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from tests.support.daemons import TIMEOUT_SECONDS, Client, Process, Ran, children_of, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "/opt/tetrad"
"""The container's virtual environment."""

BOOT_SECONDS = 240.0
"""How long installing and booting may take on a very busy machine."""

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

_FOR_PIP = ("_PROXY", "SSL_CERT_FILE")
"""Variables that pip needs to reach a registry, besides its own."""

_DROP_INS = "systemd/tetrad.service.d"

_CLONE_NEWNET = 0x40000000

_BOOT = r"""
set -eu
top=$1 wheel=$2 python=$3 prefix=$4 cgroups=$5
shift 5
root=$top/root

# Two containers in one cgroup would kill each other's processes.
for cgroup in $cgroups; do
    echo 0 >"$cgroup/cgroup.procs"
done

mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"

# Without this machine's services and without another tetrad.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/rc?.d/S* "$root"/etc/logrotate.d/*
rm -rf "$root"/etc/systemd/system/tetrad* "$root"/etc/tetrad "$root"/var/log/tetrad
rm -rf "$root"/var/log/journal "$root/$prefix"

# The service's user executes this Python, also if it lies in the home of another user.
folder=$(dirname "$python")
while [ "$folder" != / ]; do
    chmod a+x "$root$folder"
    folder=$(dirname "$folder")
done

container="systemd-nspawn --quiet --register=no --keep-unit --machine=tetrad --directory=$root"
mkdir "$root/wheel"
cp "$wheel" "$root/wheel"
env -u NOTIFY_SOCKET $container "$@" --pipe sh -c \
    "$python -m venv $prefix && $prefix/bin/pip install -q /wheel/*.whl"

# nspawn exits with 133 when the container reboots.
status=133
while [ $status = 133 ]; do
    status=0
    $container --private-network --notify-ready=yes --boot || status=$?
done
"""


class Container:
    """The container, which exists during the block."""

    def __init__(self, folder: str, wheel: str) -> None:
        self._top = os.path.join(folder, "container")
        self._wheel = wheel
        self._output = os.path.join(folder, "container.out")
        self._cgroups: list[str] = []
        self.pid = 0

    def __enter__(self) -> Self:
        """Install tetrad and boot."""
        os.mkdir(self._top)
        name = f"tetrad-test-{os.getpid()}"
        self._notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify_socket.bind(f"\0{name}")
        self._cgroups = _make_cgroups(name)
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [*_IN_NAMESPACES, "sh", "-c", _BOOT, "boot", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": f"@{name}"},
                start_new_session=True,  # Ctrl-C reaches the tests only
            )
        try:
            self._await_boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the first process, and with it all processes and mounts."""
        for pid in children_of(self._process.pid) or [self._process.pid]:
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._notify_socket.close()
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)
        os.rmdir(self._top)

    def run(self, *command: str) -> Ran:
        """Run a command in the container, as root."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "--"]
        return run([*enter, *command], _ENVIRONMENT)

    def do(self, *command: str) -> str:
        """Run a command that must succeed in the container, and return its output."""
        ran = self.run(*command)
        assert ran.status == 0, f"{' '.join(command)}: {ran.out}{ran.err}"
        return ran.out

    def tetrad(self, *arguments: str) -> Ran:
        """Run a tetrad command in the container, as root."""
        return self.run(*self.tetrad_command(*arguments))

    def tetrad_command(self, *arguments: str) -> list[str]:
        """Return the command line of a tetrad command in the container."""
        return [f"{PREFIX}/bin/tetrad", *arguments]

    def example(self, name: str) -> str:
        """Return an example drop-in from the package, with the container's paths."""
        return self.do(
            "sh", "-c", f"cat {PREFIX}/lib/*/site-packages/tetrad/data/{_DROP_INS}/{name}"
        )

    def path(self, path: str) -> str:
        """Return the path by which a file of the container is reached from here."""
        return f"/proc/{self.pid}/root{path}"

    def read(self, path: str) -> str:
        """Return the text of a file."""
        with open(self.path(path), encoding="utf-8") as file:
            return file.read()

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)

    def connect(self, host: str = "127.0.0.1", port: int = 65000) -> Client:
        """Connect to a port of the container."""
        with self.network():
            connected = socket.socket()
        connected.settimeout(TIMEOUT_SECONDS)
        connected.connect((host, port))
        return Client(connected)

    @contextlib.contextmanager
    def listening(self, port: int) -> Iterator[None]:
        """Occupy a port of the container during the block."""
        with self.network():
            listener = socket.socket()
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            yield

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Create sockets of this thread in the container's network during the block."""
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
        """Return the pid of a container's process in this pid namespace."""
        return next(one for one in self.processes() if _inside(one) == pid)

    def processes(self) -> list[int]:
        """Return the pids of all the container's processes in this pid namespace."""
        found = [self.pid]
        for pid in found:
            found += children_of(pid)
        return found

    def reboot(self) -> None:
        """Reboot; the files are kept."""
        with contextlib.closing(Process(self.pid)) as before:
            self.run("systemctl", "reboot")
            assert before.has_ended(), "the container does not shut down"
        self._discard_notices()
        self._await_boot()

    def _arguments(self) -> list[str]:
        python = os.path.realpath(sys.executable)
        for_pip = [f"--setenv={name}" for name in os.environ if name.upper().endswith(_FOR_PIP)]
        for_pip += [f"--setenv={name}" for name in os.environ if name.startswith("PIP_")]
        return [self._top, self._wheel, python, PREFIX, " ".join(self._cgroups), *for_pip]

    def _await_boot(self) -> None:
        """Wait until systemd reports that booting has finished."""
        deadline = time.monotonic() + BOOT_SECONDS
        with contextlib.closing(Process(self._process.pid)) as process:
            while b"READY=1" not in self._next_notice(deadline):
                assert not process.has_ended(0), self._log()
        self.pid = until(self._find_systemd, "the container")

    def _find_systemd(self) -> int:
        """Return the pid of the container's process 1; 0 if there is none."""
        children = [self._process.pid]
        for _ in range(3):  # the shell, nspawn, systemd
            children = [child for pid in children for child in children_of(pid)]
        return next((pid for pid in children if _inside(pid) == 1), 0)

    def _discard_notices(self) -> None:
        """Discard what systemd has sent until now: it also reports when it has reloaded."""
        while select.select([self._notify_socket], [], [], 0)[0]:
            self._notify_socket.recv(4096)

    def _next_notice(self, deadline: float) -> bytes:
        """Return the container's next notification, or nothing after a second."""
        if select.select([self._notify_socket], [], [], 1.0)[0]:
            return self._notify_socket.recv(4096)
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
"""The container ends with the tests, with all its processes and mounts."""


def _enter_network(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _inside(pid: int) -> int:
    """Return the pid of a process in its innermost pid namespace; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(line.split()[-1])


def _make_cgroups(name: str) -> list[str]:
    """Create a cgroup in each hierarchy that systemd uses: version 2, or 1, or both."""
    made = []
    with open("/proc/self/cgroup", encoding="ascii") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":")
            mount = {"": "/unified", "name=systemd": "/systemd"}.get(controllers)
            if mount is not None:
                both = os.path.isdir("/sys/fs/cgroup/unified")
                top = "/sys/fs/cgroup" + (mount if controllers or both else "")
                made.append(os.path.join(top + path, name))
    for folder in made:
        os.mkdir(folder)
    return made


def _remove_cgroup(folder: str) -> None:
    for top, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(top)
