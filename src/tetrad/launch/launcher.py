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
import stat
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import daemon

from tetrad.config import paths
from tetrad.ipc import control_client, fds
from tetrad.launch import pidfile, privileges, runtime_config, socket_activation
from tetrad.launch.fd_layout import InheritedFds, become_master, hand_over
from tetrad.launch.start_signals import Interrupted, StartSignals
from tetrad.logger import file as log_file
from tetrad.system import sockets
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator, Sequence

    from tetrad.config.certificates import Found
    from tetrad.config.result import ConfigResult
    from tetrad.ipc.runtime_config import RuntimeConfig

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

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running (pid {pid})")
        self.pid = pid


class Launcher:
    """One start of a daemon, from a configuration without problems.

    `config_path` is the file that -c or $TETRAD_CONFIG names, if one does; `certificates` are what
    `tetrad.config.certificates.read` returned for the configuration.
    """

    def __init__(
        self,
        loaded: ConfigResult,
        config_path: str | None,
        certificates: Sequence[Found | None],
        *,
        foreground: bool,
    ) -> None:
        self._daemon_config = loaded.config.daemon
        # Before anything forks: what is passed is for this very process.
        self._activation = socket_activation.take(os.environ, os.getpid())
        self._config: RuntimeConfig = runtime_config.make(
            loaded,
            config_path,
            foreground=foreground,
            activation=self._activation,
            certificates=certificates,
        )
        try:
            self._identity = privileges.wanted(loaded.config.daemon)
        except PermissionError as error:
            raise StartError(str(error), permission=True) from None
        self._interruptions = StartSignals()
        self._listeners: list[_socket.socket] = []
        self._sockets = contextlib.ExitStack()
        self._made: list[str] = []

    @property
    def listening(self) -> list[tuple[str, str]]:
        """The names, with real ports, and services of the listeners that are bound."""
        pairs = zip(self._config["listeners"], self._listeners, strict=True)
        return [
            (sockets.bound_name(config["name"], one), config["service"]) for config, one in pairs
        ]

    def start(self) -> dict[str, Any]:
        """Start a daemon, and return what it says once it accepts: `pid` and `listening`.

        Raises StartError, AlreadyRunning or Interrupted.
        """
        with self._interruptions, self._prepared():
            if self._config["log"]["file"] is None:
                raise StartError(log_file.NO_STANDARD_ERROR)
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
            seconds = self._daemon_config.stop_timeout + TAKE_BACK_SECONDS
            if not control_client.terminate(outcome["pid"], seconds):
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
        path = self._config["pidfile"]
        try:
            self._make_folders()
            with pidfile.turn_to_start(path) as fd:
                running = pidfile.holder(fd, path)
                if running is not None:
                    raise AlreadyRunning(running)
                self._pidfile = fd
                self._own(path)
                try:
                    self._bind()
                    yield
                except BaseException:
                    if pidfile.may_undo(self._pidfile, path):
                        self._undo()
                    self._made.clear()
                    raise
        except OSError as error:
            self._undo()
            raise StartError(_say(error), permission=_is_permission(error)) from None
        finally:
            self._sockets.close()  # the daemon has its own copies

    def _make_folders(self) -> None:
        """Make the default folders; one that an operator has named is theirs to make."""
        wanted = {
            self._config["pidfile"]: paths.pidfile(),
            self._config["control"]: paths.control(),
        }
        if self._config["log"]["file"] is not None:
            wanted[self._config["log"]["file"]] = paths.log()
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
            self._listeners += socket_activation.adopt(
                self._config["listeners"], self._activation.sockets
            )
        except socket_activation.MismatchError as error:
            raise StartError(str(error)) from None
        for listener in self._listeners:
            self._sockets.callback(listener.close)

    def _listen(self) -> None:
        # The permissions of a Unix socket are the same whether it comes now or with a reload.
        os.umask(self._daemon_config.umask)
        for config in self._config["listeners"]:
            try:
                self._listeners.append(
                    sockets.open_listener(
                        config["family"], config["address"], config["port"], config["backlog"]
                    )
                )
            except OSError as error:
                raise _bind_error(config["name"], error) from None
            self._sockets.callback(self._listeners[-1].close)
            if config["family"] == "unix":
                self._own(config["address"])

    def _open_control(self) -> None:
        path = self._config["control"]
        try:
            self._control = sockets.open_control(path, CONTROL_BACKLOG)
        except OSError as error:
            raise _bind_error(path, error) from None
        self._sockets.callback(self._control.close)
        self._own(path)
        group = privileges.group_id(self._daemon_config.control_group)
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
        self._ready = tell
        try:
            self._become_master(tell, detach=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher must hear it
            failure = {"error": _say(error), "permission": _is_permission(error)}
            os.write(self._ready, json.dumps(failure).encode())
        finally:
            os._exit(1)

    def _become_master(self, ready: int, *, detach: bool) -> NoReturn:
        self._interruptions.pass_on()
        fds_to_pass = InheritedFds(
            self._pidfile,
            self._control.fileno(),
            [listener.fileno() for listener in self._listeners],
            ready,
        )
        if self._identity is not None:
            # python-daemon sets either the supplementary groups or the group, not both.
            os.setgid(self._identity.gid)
        keep = [fds_to_pass.pidfile, fds_to_pass.control, *fds_to_pass.listeners, ready]
        with privileges.dropping(self._identity):
            self._context(detach, keep).open()
        log_file.check_openable(self._config["log"]["file"], self._config["pidfile"])
        hand_over(self._config, fds_to_pass)
        self._pidfile, self._ready = fds.PIDFILE, fds.READY
        become_master()

    def _context(self, detach: bool, keep: list[int]) -> daemon.DaemonContext:  # noqa: FBT001
        uid, gid = self._identity or (None, None)
        streams = {} if detach else {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        return daemon.DaemonContext(
            detach_process=detach,
            working_directory=self._daemon_config.working_directory,
            umask=int(self._daemon_config.umask),
            uid=uid,
            gid=gid,
            initgroups=self._identity is not None,
            files_preserve=keep,
            signal_map={},
            **streams,
        )


def _outcome(answer: bytes) -> dict[str, Any]:
    """Read what came through the pipe: the master's word, or what went wrong before."""
    if not answer:
        raise StartError("the daemon ended before it accepted clients; its log may say why")
    try:
        outcome: dict[str, Any] = json.loads(answer)
    except ValueError:  # we were not there to listen
        raise StartError("what the daemon said was cut off; tetrad status says how it is") from None
    if "error" in outcome:
        raise StartError(outcome["error"], permission=outcome["permission"])
    return outcome


def _bind_error(name: str, error: OSError) -> StartError:
    path = name.removeprefix("unix:")
    if error.errno == errno.EADDRINUSE and os.path.exists(path) and not _is_socket(path):
        return StartError(f"{name}: that is no socket, so it is not taken away; name another path")
    is_path = path.startswith("/")
    which = "ss -lxp" if is_path else "ss -ltnp"
    hints = {
        errno.EADDRINUSE: f"; another program listens there ({which} shows which)",
        errno.EACCES: "; its folder is not ours to write" if is_path else "; only root may have it",
        errno.EADDRNOTAVAIL: "; this machine has no such address",
        errno.ENOENT: "; its folder does not exist",
    }
    message = f"{name}: {reason_of(error)}{hints.get(error.errno or 0, '')}"
    return StartError(message, permission=isinstance(error, PermissionError))


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


def _cause(error: BaseException) -> BaseException:
    """Return what python-daemon has wrapped, if it has."""
    wraps = isinstance(error, daemon.daemon.DaemonError)
    return (wraps and error.__cause__) or error


def _is_permission(error: BaseException) -> bool:
    return isinstance(_cause(error), PermissionError)


def _say(error: BaseException) -> str:
    """Say in a line what is wrong, with the name of the thing."""
    error = _cause(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)
    return str(error) or type(error).__name__
