"""The front: everything that can fail is done here, before there is a daemon.

Sockets are bound, folders made, the pidfile locked, privileges dropped, and the master started by
exec, with all it needs at known descriptors (`tetrad.descriptors`). A launcher waits at a pipe
until the master accepts clients, or hears why it does not.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import errno
import fcntl
import json
import marshal
import os
import resource
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import daemon

from tetrad import descriptors, listeners, paths, pidfile, programs
from tetrad import plan as plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.configfile import Loaded
    from tetrad.plan import Plan

EVENTS_PIPE_BYTES = 1 << 20
"""Room for some thousands of events while the logger is busy or being replaced."""

_PR_SET_NO_NEW_PRIVS = 38


class StartError(Exception):
    """The daemon did not start; the text says why, `permission` whether that was for want of it."""

    def __init__(self, message: str, *, permission: bool = False) -> None:
        super().__init__(message)
        self.permission = permission


class AlreadyRunning(Exception):  # noqa: N818 - to be told, not to be mended
    """A daemon with this pidfile runs already; `pid` says which."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running (pid {pid})")
        self.pid = pid


class Front:
    """One start of a daemon from a configuration without problems."""

    def __init__(self, loaded: Loaded, explicit: str | None, *, foreground: bool) -> None:
        self._config = loaded.config
        self._plan: Plan = plans.make(loaded, explicit, foreground=foreground)
        self._identity = plans.identity(loaded.config.daemon)
        self._listeners: list[_socket.socket] = []
        self._foreground = foreground

    @property
    def listening(self) -> list[tuple[str, str]]:
        """The names, with real ports, and services of the listeners that are bound."""
        names = []
        for plan, listener in zip(self._plan["listeners"], self._listeners, strict=True):
            port = listeners.port_of(listener)
            name = plan["name"]
            names.append(
                (name if port is None else f"{name.rpartition(':')[0]}:{port}", plan["service"])
            )
        return names

    def start(self) -> dict[str, Any]:
        """Start a daemon, and return what it says once it accepts: `pid` and `listening`.

        Raises StartError or AlreadyRunning.
        """
        if self._plan["log"]["file"] is None:
            message = (
                "log.file is null, but a daemon has no terminal: name a file, or use tetrad run"
            )
            raise StartError(message)
        with self._prepared():
            hear, tell = os.pipe()
            if os.fork() == 0:
                os.close(hear)
                self._become_daemon(tell)
            os.close(tell)
            with os.fdopen(hear, "rb") as ready:
                return _outcome(ready.read())

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Prepare to serve in this very process; at the end of the block it becomes the master.

        Raises StartError or AlreadyRunning.
        """
        with self._prepared():
            yield
            self._context(detach=False, keep=self._sockets()).open()
            self._exec_master(os.open(os.devnull, os.O_WRONLY))

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Do all that needs no daemon yet; undo it should the start fail."""
        made: list[str] = []
        try:
            self._make_folders()
            with pidfile.turn_to_start(self._plan["pidfile"]) as fd:
                _insist_on_none(pidfile.is_held(fd))
                self._pidfile = fd
                made.append(self._plan["pidfile"])
                self._give_away(self._plan["pidfile"])
                self._bind(made)
                yield
        except AlreadyRunning:
            raise
        except (OSError, StartError) as error:
            for path in made:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise error if isinstance(error, StartError) else _start_error(error) from None

    def _make_folders(self) -> None:
        """Make the default folders; one that an operator has named is theirs to make."""
        wanted = {self._plan["pidfile"]: paths.pidfile(), self._plan["control"]: paths.control()}
        if self._plan["log"]["file"] is not None:
            wanted[self._plan["log"]["file"]] = paths.log()
        for path, default in wanted.items():
            folder = os.path.dirname(path)
            if path == default and not os.path.isdir(folder):
                os.makedirs(folder, 0o755 if os.geteuid() == 0 else 0o700)
                self._give_away(folder)

    def _bind(self, made: list[str]) -> None:
        for plan in self._plan["listeners"]:
            try:
                listener = listeners.open_listener(plan)
            except OSError as error:
                raise _bind_error(plan["name"], error) from None
            self._listeners.append(listener)
            if plan["family"] == "unix":
                made.append(plan["address"])
                self._give_away(plan["address"])
        path = self._plan["control"]
        self._control = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, 0
        )
        before = os.umask(0o177)
        try:
            listeners.bind_path(self._control, path)
        except OSError as error:
            raise _bind_error(path, error) from None
        finally:
            os.umask(before)
        self._control.listen(64)
        made.append(path)
        self._give_away(path)

    def _give_away(self, path: str) -> None:
        """Let the user whom the daemon drops to own a file."""
        if self._identity is not None and os.geteuid() == 0:
            os.chown(path, *self._identity, follow_symlinks=False)

    def _sockets(self) -> list[int]:
        return [
            self._pidfile,
            self._control.fileno(),
            *(listener.fileno() for listener in self._listeners),
        ]

    def _become_daemon(self, tell: int) -> NoReturn:
        """Be the daemon: never return, and tell the launcher what goes wrong."""
        try:
            self._context(detach=True, keep=[tell, *self._sockets()]).open()
            self._exec_master(tell)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher must hear it
            failure = {"error": _say(error), "permission": isinstance(error, PermissionError)}
            os.write(tell, json.dumps(failure).encode())
        finally:
            os._exit(1)

    def _context(self, *, detach: bool, keep: list[int]) -> daemon.DaemonContext:
        settings = self._config.daemon
        uid, gid = self._identity or (None, None)
        streams = {} if detach else {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        return daemon.DaemonContext(
            detach_process=detach,
            working_directory=settings.working_directory,
            umask=int(settings.umask),
            uid=uid,
            gid=gid,
            initgroups=self._identity is not None,
            files_preserve=keep,
            signal_map={},
            **streams,
        )

    def _exec_master(self, ready: int) -> NoReturn:
        """Put everything into its place, and become the master. Raises OSError."""
        for stream in (0, 1, 2):
            # python-daemon opens the null device with close-on-exec where it stands already.
            os.set_inheritable(stream, True)
        if self._identity is not None:
            _renounce_privileges()
        _raise_descriptor_limit()
        _try_log(self._plan["log"]["file"])
        events, journal = _pipe(blocking_writes=False)
        fcntl.fcntl(journal, fcntl.F_SETPIPE_SZ, EVENTS_PIPE_BYTES)
        heard, notices = _pipe(blocking_reads=False)
        lifeline, held = _pipe()
        places = {
            descriptors.JOURNAL: journal,
            descriptors.NOTICES: notices,
            descriptors.LIFELINE: lifeline,
            descriptors.EVENTS: events,
            descriptors.NOTICES_HEARD: heard,
            descriptors.LIFELINE_HELD: held,
            descriptors.PLAN: _in_memory(marshal.dumps(dict(self._plan))),
            descriptors.PIDFILE: self._pidfile,
            descriptors.CONTROL: self._control.fileno(),
            descriptors.READY: ready,
        }
        places |= dict(enumerate((s.fileno() for s in self._listeners), descriptors.LISTENERS))
        _put_into_place(places)
        pidfile.take(descriptors.PIDFILE)
        command = programs.command("master")
        os.execv(command[0], command)


def _insist_on_none(running: int | None) -> None:
    if running is not None:
        raise AlreadyRunning(running)


def _put_into_place(places: dict[int, int]) -> None:
    """Move descriptors to their places, by way of where none of these places is."""
    above = max(places) + 1
    parked = {}
    for place, fd in places.items():
        parked[place] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
        os.close(fd)
    for place, fd in parked.items():
        os.dup2(fd, place, inheritable=True)
        os.close(fd)


def _pipe(*, blocking_reads: bool = True, blocking_writes: bool = True) -> tuple[int, int]:
    reads, writes = os.pipe()
    os.set_blocking(reads, blocking_reads)
    os.set_blocking(writes, blocking_writes)
    return reads, writes


def _in_memory(data: bytes) -> int:
    fd = os.memfd_create("plan")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _renounce_privileges() -> None:
    """See to it that nothing we ever exec gains a privilege (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _raise_descriptor_limit() -> None:
    """The master has a descriptor for every handler."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _try_log(file: str | None) -> None:
    if file is not None:
        os.close(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))


def _outcome(answer: bytes) -> dict[str, Any]:
    """Read what came through the pipe: the master's word, or what went wrong before."""
    if not answer:
        message = "the daemon ended before it accepted clients; its log may say why"
        raise StartError(message)
    outcome: dict[str, Any] = json.loads(answer)
    if "error" in outcome:
        raise StartError(outcome["error"], permission=outcome["permission"])
    return outcome


def _start_error(error: OSError) -> StartError:
    return StartError(_say(error), permission=isinstance(error, PermissionError))


def _bind_error(name: str, error: OSError) -> StartError:
    hints = {
        errno.EADDRINUSE: "; another program listens there (ss -ltnp shows which)",
        errno.EACCES: "; a port below 1024 needs root",
        errno.EADDRNOTAVAIL: "; this machine has no such address",
        errno.ENOENT: "; its folder does not exist",
    }
    message = f"{name}: {_reason(error)}{hints.get(error.errno or 0, '')}"
    return StartError(message, permission=isinstance(error, PermissionError))


def _say(error: BaseException) -> str:
    """Say in a line what is wrong, with the name of the thing."""
    if isinstance(error, daemon.daemon.DaemonError) and error.__context__ is not None:
        return _say(error.__context__)
    if isinstance(error, OSError):
        return f"{error.filename}: {_reason(error)}" if error.filename else _reason(error)
    return str(error) or type(error).__name__


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
