"""The front: everything that can fail is done here, before there is a daemon.

Folders are made, the pidfile is claimed, sockets are bound, privileges dropped, and the master is
started by exec. A launcher waits at a pipe until the master accepts clients, or hears why it does
not; a start that fails leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import daemon

from tetrad import activation, certificates, listeners, paths, pidfile, planning, privileges, remote
from tetrad.handover import Estate, become_master
from tetrad.interruptions import Interrupted, Interruptions

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

    from tetrad.configfile import Loaded
    from tetrad.plan import Plan

CONTROL_BACKLOG = 64

TAKE_BACK_SECONDS = 10.0
"""How long beyond `daemon.stop_timeout` a daemon may take to end that was started in vain."""


class StartError(Exception):
    """The daemon did not start; the text says why, `permission` whether that was for want of it."""

    def __init__(self, message: str, *, permission: bool = False) -> None:
        super().__init__(message)
        self.permission = permission


class AlreadyRunning(Exception):  # noqa: N818 - to be told, not to be mended
    """A daemon with this pidfile runs already."""


class Front:
    """One start of a daemon from a configuration without problems."""

    def __init__(self, loaded: Loaded, explicit: str | None, *, foreground: bool) -> None:
        self._settings = loaded.config.daemon
        # Before anything forks: what is passed is for this very process.
        self._activation = activation.take(os.environ, os.getpid())
        self._plan: Plan = planning.make(
            loaded,
            explicit,
            foreground=foreground,
            activation=self._activation,
            certificates=certificates.read(loaded),
        )
        try:
            self._identity = privileges.wanted(loaded.config.daemon)
        except PermissionError as error:
            raise StartError(str(error), permission=True) from None
        self._interruptions = Interruptions()
        self._listeners: list[_socket.socket] = []
        self._made: list[str] = []

    @property
    def listening(self) -> list[tuple[str, str]]:
        """The names, with real ports, and services of the listeners that are bound."""
        pairs = zip(self._plan["listeners"], self._listeners, strict=True)
        return [(listeners.real_name(plan, one), plan["service"]) for plan, one in pairs]

    def start(self) -> dict[str, Any]:
        """Start a daemon, and return what it says once it accepts: `pid` and `listening`.

        Raises StartError, AlreadyRunning or Interrupted.
        """
        if self._plan["log"]["file"] is None:
            raise StartError(
                "log.file is null, but a daemon has no terminal: name a file, or use tetrad run"
            )
        with self._interruptions, self._prepared():
            self._interruptions.check()
            hear, tell = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(hear)
                self._become_daemon(tell)
            os.close(tell)
            with contextlib.suppress(ChildProcessError):  # whoever started us ignores SIGCHLD
                os.waitpid(child, 0)
            with os.fdopen(hear, "rb") as ready:
                return self._conclude(ready.read())

    def _conclude(self, answer: bytes) -> dict[str, Any]:
        """Return what came of the start; take it back if it was interrupted meanwhile."""
        try:
            outcome = _outcome(answer)
        except StartError:
            self._interruptions.check()
            raise
        try:
            self._interruptions.check()
        except Interrupted:
            seconds = self._settings.stop_timeout + TAKE_BACK_SECONDS
            if not remote.terminate(outcome["pid"], seconds):
                raise StartError(f"interrupted, but pid {outcome['pid']} is still there") from None
            raise
        return outcome

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Prepare to serve in this very process; at the end of the block it becomes the master.

        Raises StartError, AlreadyRunning or Interrupted.
        """
        with self._interruptions, self._prepared():
            yield
            self._become_master(os.open(os.devnull, os.O_WRONLY), detach=False)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Do all that needs no daemon yet; undo it should the start fail."""
        path = self._plan["pidfile"]
        try:
            self._make_folders()
            with pidfile.turn_to_start(path) as fd:
                running = pidfile.holder(fd, path)
                if running is not None:
                    raise AlreadyRunning(f"already running (pid {running})")
                self._pidfile = fd
                self._own(path)
                try:
                    self._bind()
                    yield
                except BaseException:
                    if pidfile.may_undo(fd, path):
                        self._undo()
                    self._made.clear()
                    raise
        except OSError as error:
            self._undo()
            raise StartError(_say(error), permission=isinstance(error, PermissionError)) from None

    def _make_folders(self) -> None:
        """Make the default folders; one that an operator has named is theirs to make."""
        wanted = {self._plan["pidfile"]: paths.pidfile(), self._plan["control"]: paths.control()}
        if self._plan["log"]["file"] is not None:
            wanted[self._plan["log"]["file"]] = paths.log()
        for path, default in wanted.items():
            folder = os.path.dirname(path)
            if path == default and not os.path.isdir(folder):
                os.makedirs(folder, 0o755 if os.geteuid() == 0 else 0o700)
                self._own(folder)

    def _bind(self) -> None:
        if self._activation.sockets:
            self._inherit()
        else:
            self._listen()
        self._open_control()

    def _inherit(self) -> None:
        try:
            self._listeners += activation.adopt(self._plan["listeners"], self._activation.sockets)
        except activation.MismatchError as error:
            raise StartError(str(error)) from None

    def _listen(self) -> None:
        # The permissions of a Unix socket are the same whether it comes now or with a reload.
        os.umask(self._settings.umask)
        for plan in self._plan["listeners"]:
            try:
                self._listeners.append(listeners.open_listener(plan))
            except OSError as error:
                raise _bind_error(plan["name"], error) from None
            if plan["family"] == "unix":
                self._own(plan["address"])

    def _open_control(self) -> None:
        path = self._plan["control"]
        try:
            self._control = listeners.open_control(path, CONTROL_BACKLOG)
        except OSError as error:
            raise _bind_error(path, error) from None
        self._own(path)
        group = privileges.group_id(self._settings.control_group)
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)

    def _own(self, path: str) -> None:
        """Take note of what was made, and let it belong to the user whom the daemon drops to."""
        self._made.append(path)
        if self._identity is not None and os.geteuid() == 0:
            os.chown(path, *self._identity, follow_symlinks=False)

    def _undo(self) -> None:
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                remove = os.rmdir if os.path.isdir(path) else os.unlink
                remove(path)

    def _become_daemon(self, tell: int) -> NoReturn:
        """Be the daemon: never return, and tell the launcher what goes wrong."""
        try:
            self._become_master(tell, detach=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher must hear it
            failure = {"error": _say(error), "permission": isinstance(error, PermissionError)}
            os.write(tell, json.dumps(failure).encode())
        finally:
            os._exit(1)

    def _become_master(self, ready: int, *, detach: bool) -> NoReturn:
        self._interruptions.pass_on()
        estate = Estate(
            self._pidfile,
            self._control.fileno(),
            [listener.fileno() for listener in self._listeners],
            ready,
        )
        if self._identity is not None:
            # python-daemon sets either the supplementary groups or the group, not both.
            os.setgid(self._identity.gid)
        keep = [estate.pidfile, estate.control, *estate.listeners, ready]
        with privileges.dropping(self._identity):
            self._context(detach, keep).open()
        _try_log(self._plan["log"]["file"])
        become_master(self._plan, estate)

    def _context(self, detach: bool, keep: list[int]) -> daemon.DaemonContext:  # noqa: FBT001
        uid, gid = self._identity or (None, None)
        streams = {} if detach else {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        return daemon.DaemonContext(
            detach_process=detach,
            working_directory=self._settings.working_directory,
            umask=int(self._settings.umask),
            uid=uid,
            gid=gid,
            initgroups=self._identity is not None,
            files_preserve=keep,
            signal_map={},
            **streams,
        )


def _try_log(file: str | None) -> None:
    if file is not None:
        os.close(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))


def _outcome(answer: bytes) -> dict[str, Any]:
    """Read what came through the pipe: the master's word, or what went wrong before."""
    if not answer:
        raise StartError("the daemon ended before it accepted clients; its log may say why")
    outcome: dict[str, Any] = json.loads(answer)
    if "error" in outcome:
        raise StartError(outcome["error"], permission=outcome["permission"])
    return outcome


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
    if isinstance(error, daemon.daemon.DaemonError) and error.__cause__ is not None:
        return _say(error.__cause__)
    if isinstance(error, OSError):
        return f"{error.filename}: {_reason(error)}" if error.filename else _reason(error)
    return str(error) or type(error).__name__


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
