"""Finds the running daemon of a configuration: its process, its user, and the file it runs with.

The control socket is asked first, because every user may connect to it, and the kernel tells which
process listens there. Then the pidfile's lock, and last the locks of all pidfiles: a daemon whose
files were removed, or lie in the folders of another login session, still serves.

Only a process with the title of a master counts, and only of a user who may run this daemon: the
kernel reports the pid of a lock's owner even if that process has ended and another one has its pid.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tetrad.config import paths
from tetrad.ipc import control_client
from tetrad.launch import pidfile
from tetrad.launch.runtime_config import shown_path
from tetrad.system import proctitle, users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tetrad.config.model import Daemon

T = TypeVar("T")

TITLE_TIMEOUT_SECONDS = 10.0
"""How long a daemon that has locked its pidfile may take until it shows its title."""

SLEEP_SECONDS = 0.5
"""How long a program that has locked the pidfile is waited for although it sleeps: a
start does not, from the lock to the title."""

_POLL_SECONDS = 0.02

_MIN_CUT_BYTES = 200
"""A title of at least this length may have been cut (see `tetrad.system.proctitle`)."""


_MASTER = b"tetrad.master.process"
_MAIN = b"tetrad/__main__.py"
_STARTS = {b"start", b"restart", b"run"}
"""What the command lines of a master and of a launcher have; the latter has one of `_STARTS`."""


def _title(file: str | None) -> bytes:
    return proctitle.NAME + b": " + proctitle.of_master(shown_path(file))


_WITHOUT_FILE = _title(None)
_WITHOUT_NAME = {_WITHOUT_FILE, _title(paths.SYSTEM_CONFIGURATION)}
"""The titles of a daemon that was started without -c, before and after the file appeared."""


class RunningDaemon(NamedTuple):
    """A running daemon.

    `title` is empty if /proc hides the process or if it cannot show one, `pid` is 0 if it is in
    another PID namespace.
    """

    pid: int
    uid: int
    title: bytes

    @property
    def file(self) -> str:
        """The configuration file that it runs with, for messages."""
        name = self.title[len(_WITHOUT_FILE) + 1 :].decode("utf-8", "backslashreplace")
        return name or "the built-in defaults"

    @property
    def user(self) -> str:
        """The name of its user, or the number of one without a name."""
        return users.user_name(self.uid)

    def runs_with(self, file: str | None) -> bool:
        """Tell whether it runs with a file; None is the built-in defaults."""
        return not self.title or _is_same_file(self.title, _title(file))


def find(
    settings: Daemon, file: str | None, check: Callable[[], object] = lambda: None
) -> RunningDaemon | None:
    """Return the daemon at the control socket or the pidfile of `settings`; None if none runs.

    It may run with another file. A daemon that is at neither is found if it runs with `file`.
    `check` is called while a daemon is starting. Raises OSError if it cannot be determined.
    """
    allowed = _users(settings)
    peer = _peer(settings.control)
    if peer is not None:
        listening = _identify(peer.pid, peer.uid)
        if listening is not None and listening.uid in allowed | {0}:
            return listening
    holder = pidfile.read_state(settings.pidfile).pid
    if holder is not None:
        listens = peer is not None and peer.pid == holder
        return _owner(holder, settings.pidfile, allowed | {0}, check, listens=listens)
    for one in visible():
        if one.uid in allowed and one.runs_with(file):
            return one
    return None


def ask(settings: Daemon, request: str, kind: type[T], *timeout: float) -> T:
    """Send a request to the control socket of `settings`, and return the answer as a `kind`.

    Nothing is sent to a process whose user may not run this daemon. Raises ControlError.
    """
    allowed = _users(settings) | {0}
    return control_client.ask(settings.control, request, kind, *timeout, users=allowed)


def find_of_another_user(file: str | None) -> RunningDaemon | None:
    """Return a daemon that runs with a file, but as a user who is not known to run this daemon."""
    return next((one for one in visible() if file and one.title == _title(file)), None)


def visible() -> Iterator[RunningDaemon]:
    """Yield the running daemons of this PID namespace, wherever their files are."""
    for pid in pidfile.all_owners():
        found = _identify(pid, None)
        if found is not None and not _is_in_container(pid):
            yield found


def is_same_file(config: str | None, file: str | None) -> bool:
    """Tell whether the `config` of a daemon's status is a file; None is the built-in defaults."""
    return _is_same_file(_title(config), _title(file))


def other_file(running: RunningDaemon, settings: Daemon, file: str | None) -> str:
    """Return the error for a daemon with these settings that runs with another file."""
    wanted = shown_path(file) or "the built-in defaults"
    return (
        f"the daemon with pidfile {settings.pidfile} and control socket {settings.control}"
        f" (pid {running.pid}) runs with {running.file}, not with {wanted};"
        " a second daemon needs a daemon.pidfile, daemon.control and log.file of its own"
    )


def terminate(daemon: RunningDaemon, seconds: float) -> bool:
    """Send SIGTERM to a daemon, and tell whether it exits within `seconds`.

    Raises PermissionError.
    """
    return control_client.terminate(daemon.pid, seconds, lambda: _is_still(daemon))


def _is_same_file(title: bytes, expected: bytes) -> bool:
    is_cut = len(title) >= _MIN_CUT_BYTES and expected.startswith(title)
    is_same = title in {expected, _of_version_0_1(expected)}
    return is_cut or is_same or {title, expected} <= _WITHOUT_NAME


def _of_version_0_1(title: bytes) -> bytes:
    """Return a title as version 0.1.0 writes it: in ASCII."""
    return title.decode("utf-8", "backslashreplace").encode("ascii", "backslashreplace")


def _users(settings: Daemon) -> set[int]:
    """Return who may run this daemon: the caller, `daemon.user`, the owners of its folders."""
    found = {os.geteuid()}
    if settings.user is not None:
        found.add(users.user(settings.user)[0])
    for path in (settings.pidfile, settings.control):
        with contextlib.suppress(OSError):
            found.add(os.stat(os.path.dirname(path)).st_uid)
    return found


def _peer(path: str) -> control_client.Peer | None:
    """Return who listens on a control socket; None if nobody does, or that cannot be seen."""
    with contextlib.suppress(OSError):
        return control_client.peer(path)
    return None


def _identify(pid: int, uid: int | None) -> RunningDaemon | None:
    """Return the daemon of a pid, or None for another process or none.

    `uid` is that of a process that is known to be one, although /proc may hide it.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            title = file.read().partition(b"\0")[0]
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            own_uid = int(file.read().partition("\nUid:")[2].split()[1])
    except (OSError, IndexError):
        if uid is None or (pid and not control_client.running(pid)):
            return None
        return RunningDaemon(pid, uid, b"")
    return RunningDaemon(pid, own_uid, title) if _is_master(title) else None


def _without_title(pid: int) -> RunningDaemon | None:
    """Return the daemon of a pid that shows no title in a sandbox (gVisor, WSL 1)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            is_master = _MASTER in file.read()
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return RunningDaemon(pid, uid, b"") if is_master else None


def _owner(
    pid: int, path: str, allowed: set[int], check: Callable[[], object], *, listens: bool
) -> RunningDaemon | None:
    """Return the daemon that owns the lock of the pidfile; None if it has ended meanwhile.

    `listens`: it is the process behind the control socket. Waits for one that is starting or
    exiting. Raises NotAPidfileError if another program owns the lock.
    """
    began = time.monotonic()
    while pidfile.read_state(path).pid == pid:
        found = _identify(pid, None)
        if found is not None and found.uid in allowed:
            return found
        if control_client.running(pid) and not _may_be_starting(pid, allowed, began):
            found = _without_title(pid) if listens else None
            if found is not None and found.uid in allowed:
                return found
            raise pidfile.locked_by_another(path, pid)
        check()
        time.sleep(_POLL_SECONDS)
    return None


def _is_still(daemon: RunningDaemon) -> bool:
    """Tell whether the pid is still the daemon's; an upgrade takes its title for a moment."""
    began = time.monotonic()
    while (found := _identify(daemon.pid, daemon.uid)) is None:
        if not _may_be_starting(daemon.pid, {daemon.uid}, began):
            return _without_title(daemon.pid) == daemon
        time.sleep(_POLL_SECONDS)
    return found.uid == daemon.uid


def _may_be_starting(pid: int, allowed: set[int], since: float) -> bool:
    """Tell whether a process may be a launcher, or a master before it sets its title.

    `since` is when it was first looked at. A process that executes a program, or exits, has no
    command line for a moment.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            status = file.read()
    except OSError:
        return False
    limit = SLEEP_SECONDS if "\nState:\tS" in status else TITLE_TIMEOUT_SECONDS
    is_users = int(status.partition("\nUid:")[2].split()[1]) in allowed
    return is_users and _is_start(words) and time.monotonic() - since < limit


def _is_start(words: list[bytes]) -> bool:
    """Tell whether a command line is that of a launcher or of a master, or empty."""
    if not words[0] or any(_MASTER in word for word in words):
        return True
    is_tetrad = any(os.path.basename(one) == b"tetrad" or one.endswith(_MAIN) for one in words)
    return is_tetrad and not _STARTS.isdisjoint(words)


def _is_master(title: bytes) -> bool:
    return title == _WITHOUT_FILE or title.startswith(_WITHOUT_FILE + b" ")


def _is_in_container(pid: int) -> bool:
    """Tell whether a process is in a PID namespace below this one (proc_pid_status(5))."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return len(file.read().partition("\nNSpid:")[2].partition("\n")[0].split()) > 1
    return False
