"""The launcher: one start, from a valid configuration to the exec of the master.

It creates directories, locks the pidfile, binds sockets and drops privileges, so that whatever can
fail fails before there is a daemon. `tetrad start` waits at a pipe until the master accepts clients
or a step fails. A start that fails leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

import daemon

from tetrad.config import paths
from tetrad.ipc import control_client, fds
from tetrad.launch import (
    foreground,
    pidfile,
    preflight,
    privileges,
    running_daemon,
    runtime_config,
    socket_activation,
    system_call_filter,
)
from tetrad.launch.fd_layout import InheritedFds, exec_master, place_fds
from tetrad.launch.preflight import Problem, Starter, StartError
from tetrad.launch.start_signals import Interrupted, StartSignals
from tetrad.system import landlock, open_fds, sockets

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO, TypeVarTuple

    from tetrad.config.certificates import ListenerTls
    from tetrad.config.result import ConfigResult
    from tetrad.ipc.runtime_config import RuntimeConfig

    Arguments = TypeVarTuple("Arguments")

CANCEL_MARGIN_SECONDS = 10.0
"""How long beyond `daemon.stop_timeout` the daemon of an interrupted start may take to stop."""


DYING_SECONDS = 2.0
"""How long the processes of a daemon that was killed may hold its sockets."""

_POLL_SECONDS = 0.02

_PROCESS_1 = (
    "process 1 cannot start a daemon, because its PID namespace (container) ends with it: "
    "use tetrad run"
)

_DESCRIPTORS = ("/dev/fd/", "/dev/std", "/proc/")
"""Beginnings of paths that lead to an open file of this process, and elsewhere in another one."""


class AlreadyRunning(Exception):  # noqa: N818 - for `tetrad start`, it is no error
    """The daemon of this file runs already."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running (pid {pid})")
        self.pid = pid


class Launcher:
    """One start of a daemon, from a configuration without problems.

    `config_path` is the file that -c or $TETRAD_CONFIG names, if one does; `certificates` are what
    `tetrad.config.certificates.read` returned for the configuration. After a start, `warnings` has
    what will prevent a reload.
    """

    def __init__(
        self,
        loaded: ConfigResult,
        config_path: str | None,
        certificates: Sequence[ListenerTls | None],
        *,
        foreground: bool,
    ) -> None:
        self.certificates = certificates
        self.warnings: list[str] = []
        self._loaded, self._config, self._file = loaded, loaded.config, loaded.file
        self._foreground = foreground
        # Before anything forks: the variables are addressed to this very process.
        self._activation = socket_activation.pop_environment(os.environ, os.getpid())
        self._runtime_config: RuntimeConfig = runtime_config.build(
            loaded,
            config_path,
            foreground=foreground,
            activation=self._activation,
            certificates=certificates,
        )
        self._identity: privileges.Identity | None = None
        self._signals = StartSignals()
        self._listeners: list[_socket.socket] = []
        self._sockets = contextlib.ExitStack()
        self._created: list[str] = []

    @property
    def listening(self) -> list[tuple[str, str]]:
        """The names, with real ports, and services of the listeners that are bound."""
        pairs = zip(self._runtime_config["listeners"], self._listeners, strict=True)
        return [
            (sockets.bound_name(config["name"], one), config["service"]) for config, one in pairs
        ]

    def problems(self, starter: Starter = Starter()) -> list[Problem]:  # noqa: B008 - immutable
        """Return what is known to prevent a start. Nothing is changed."""
        return preflight.problems(
            self._loaded,
            self._runtime_config,
            starter,
            foreground=self._foreground,
            bind=not self._activation.sockets,
        )

    def start(self) -> dict[str, Any]:
        """Start a daemon and wait until it accepts clients; return its `pid` and `listening`.

        Raises StartError, AlreadyRunning or Interrupted.
        """
        if os.getpid() == 1:
            raise StartError(Problem(_PROCESS_1))
        with self._signals, self._resources():
            self._signals.check()
            child, ready = self._fork_daemon(detach=True)
            with contextlib.suppress(ChildProcessError):  # SIGCHLD may be ignored by inheritance
                os.waitpid(child, 0)
            with ready:
                return self._outcome(ready.read())

    def run(self, announce: Callable[[], object]) -> int:
        """Serve in the foreground; return the exit status of the daemon (`foreground.attend`).

        Without a controlling terminal this process becomes the master. `announce` is called as soon
        as the listeners are bound. Raises StartError, AlreadyRunning or Interrupted.
        """
        terminal = foreground.open_terminal()
        with self._signals, self._resources():
            announce()
            # A service manager expects the notifications of the process that it has started.
            if terminal is None or self._activation.notify:
                self._exec_master(os.open(os.devnull, os.O_WRONLY), detach=False)
            foreground.block_signals()
            self._signals.check()
            pid, ready = self._fork_daemon(detach=False)
            with ready:
                _parse_outcome(ready.read())

        def send(to: int, number: int) -> None:
            privileges.run_as(self._identity, lambda: os.kill(to, number))

        return foreground.attend(pid, terminal, send)

    def _fork_daemon(self, *, detach: bool) -> tuple[int, BinaryIO]:
        """Fork what becomes the daemon; return its pid, and the pipe with the outcome."""
        ready_read, ready_write = os.pipe()
        parent, child = os.getpid(), os.fork()
        if child == 0:
            os.close(ready_read)
            self._become_daemon(ready_write, None if detach else parent)
        os.close(ready_write)
        return child, os.fdopen(ready_read, "rb")

    def _outcome(self, message: bytes) -> dict[str, Any]:
        """Return what the master reported; stop it again if the start was interrupted meanwhile."""
        try:
            outcome = _parse_outcome(message)
        except StartError:
            self._signals.check()
            raise
        try:
            self._signals.check()
        except Interrupted:
            seconds = self._config.daemon.stop_timeout + CANCEL_MARGIN_SECONDS
            if not control_client.terminate(outcome["pid"], seconds):
                text = f"interrupted, but pid {outcome['pid']} still runs after {seconds:.0f} s"
                raise StartError(Problem(f"{text}; stop it with tetrad stop")) from None
            raise
        return outcome

    @contextlib.contextmanager
    def _resources(self) -> Iterator[None]:
        """Create what the master inherits; remove all of it if the block raises an exception."""
        path = self._runtime_config["pidfile"]
        problems: list[Problem] = []
        try:
            self._require_lasting_file()
            found = self.problems()
            problems = [one for one in found if not one.is_later]
            self.warnings = [one.text for one in found if one.is_later]
            self._identity = privileges.target_identity(self._config.daemon)
            self._create_directories()
            with pidfile.start_lock(path, self._signals.check) as self._pidfile:
                self._created.append(path)
                try:
                    self._require_not_running()
                    _raise_any(problems)
                    # Every other end of a daemon leaves the file empty, or none.
                    was_killed = os.fstat(self._pidfile).st_size > 0
                    self._free_at = time.monotonic() + (DYING_SECONDS if was_killed else 0.0)
                    self._bind()
                    yield
                except BaseException:
                    if not pidfile.relock(self._pidfile, path):
                        # The files may be another daemon's; a folder that has any stays.
                        self._created = [one for one in self._created if os.path.isdir(one)]
                    self._remove_created()
                    self._created.clear()
                    raise
        except OSError as error:
            self._remove_created()
            raise StartError(*(problems or [_problem_of(error)])) from None
        finally:
            self._sockets.close()  # the daemon has its own copies

    def _require_lasting_file(self) -> None:
        """Raise StartError for a file that the daemon could not read again, such as a pipe.

        Its path would not tell which daemon is meant, either.
        """
        file = self._file
        if file is not None and (file.startswith(_DESCRIPTORS) or not os.path.isfile(file)):
            text = f"{file}: not a file that a reload can read again: name a regular file"
            raise StartError(Problem(text))

    def _require_not_running(self) -> None:
        """Raise AlreadyRunning, or StartError for a daemon that runs with another file."""
        settings, file = self._config.daemon, self._file
        running = running_daemon.find(settings, file, self._signals.check)
        if running is None:
            return
        if not running.runs_with(file):
            raise StartError(Problem(running_daemon.other_file(running, settings, file)))
        raise AlreadyRunning(running.pid)

    def _create_directories(self) -> None:
        """Create the directories of default paths; others are the operator's to create.

        They belong to `daemon.user`. Only what was created here changes its owner, and not by its
        path, which that user could make lead elsewhere.
        """
        paths.check_temporary_home()
        defaults = {
            self._runtime_config["pidfile"]: paths.pidfile(),
            self._runtime_config["control"]: paths.control(),
            self._runtime_config["log"]["file"]: paths.log(),
        }
        for path, default in defaults.items():
            directory = os.path.dirname(default)
            if path != default or os.path.isdir(directory):
                continue
            os.umask(0o022 if os.geteuid() == 0 else 0o077)
            os.makedirs(directory)
            self._created.append(directory)
            if self._identity is not None:
                fd = os.open(directory, os.O_DIRECTORY | os.O_NOFOLLOW)
                os.fchown(fd, self._identity.uid, self._identity.gid)
                os.close(fd)

    def _bind(self) -> None:
        if self._activation.sockets:
            self._listeners += socket_activation.adopt(
                self._runtime_config["listeners"], self._activation.sockets
            )
            for listener in self._listeners:
                self._sockets.callback(listener.close)
        else:
            self._open_listeners()
        self._open_control()

    def _open_listeners(self) -> None:
        # A Unix socket gets the same permissions from a start and from a reload.
        os.umask(self._config.daemon.umask)
        for config in self._runtime_config["listeners"]:
            family, address = config["family"], config["address"]
            is_path = family == "unix"
            # A Unix socket belongs to the user that creates it, and is bound as that user.
            user = privileges.acting_as(self._identity if is_path else None)
            with user, _explained(config["name"], address if is_path else ""):
                arguments = family, address, config["port"], config["backlog"]
                self._listeners.append(self._when_free(sockets.open_listener, *arguments))
            if self._identity is not None:
                # A reload can move a port between addresses only with sockets of its own user.
                with contextlib.suppress(OSError):
                    os.fchown(self._listeners[-1].fileno(), *self._identity[:2])
            self._sockets.callback(self._listeners[-1].close)
            if is_path:
                self._created.append(address)

    def _open_control(self) -> None:
        path = self._runtime_config["control"]
        with _explained(f"daemon.control: {path}", path):
            self._control = self._when_free(sockets.open_control, path)
        self._sockets.callback(self._control.close)
        self._created.append(path)

    def _when_free(
        self, open_socket: Callable[[*Arguments], _socket.socket], *arguments: *Arguments
    ) -> _socket.socket:
        """Open a listening socket; wait if the processes of a killed daemon may hold its address.

        Raises OSError.
        """
        while True:
            try:
                return open_socket(*arguments)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > self._free_at:
                    raise
            self._signals.check()
            time.sleep(_POLL_SECONDS)

    def _remove_created(self) -> None:
        for path in reversed(self._created):
            with contextlib.suppress(OSError):
                remove = os.rmdir if os.path.isdir(path) else os.unlink
                remove(path)

    def _become_daemon(self, ready: int, front: int | None) -> NoReturn:
        """Execute the master; report a failure through the pipe. Never returns.

        `front` is the parent of a daemon in the foreground; one in the background is detached.
        """
        self._ready = ready
        try:
            if front is not None:
                foreground.leave_terminal()
            self._exec_master(ready, detach=front is None, front=front)
        except BaseException as error:  # noqa: BLE001 - the launcher reports it, whatever it is
            problem = _problem_of(error)
            failure = {"error": problem.text, "permission": problem.is_permission}
            os.write(self._ready, json.dumps(failure).encode())
        finally:
            os._exit(1)

    def _exec_master(self, ready: int, *, detach: bool, front: int | None = None) -> NoReturn:
        self._signals.block()
        inherited = InheritedFds(
            self._pidfile,
            self._control.fileno(),
            [listener.fileno() for listener in self._listeners],
            ready,
        )
        if self._identity is not None:
            # python-daemon sets either the supplementary groups or the group, not both.
            os.setgid(self._identity.gid)
            # For a user without an entry it would leave those of the starter.
            os.setgroups(privileges.groups_of(self._identity))
        keep = [inherited.pidfile, inherited.control, *inherited.listeners, ready]
        with privileges.permanent_drop(self._identity):
            self._daemon_context(detach, keep).open()
        if front is not None:
            privileges.end_with_parent(front)
        self._confine()
        _raise_any(
            preflight.log_problems(self._runtime_config, foreground=self._foreground, create=True)
        )
        place_fds(self._runtime_config, inherited)
        self._pidfile, self._ready = fds.PIDFILE, fds.READY
        exec_master()

    def _confine(self) -> None:
        """Take from this process, and from all that it becomes or starts, what none of them needs.

        What the kernel cannot do is logged by the master.
        """
        if self._config.daemon.system_call_filter and (why := system_call_filter.install()):
            self._runtime_config["unconfined"]["system calls"] = why
        if why := landlock.unavailable():
            self._runtime_config["unconfined"]["programs"] = why

    def _daemon_context(self, detach: bool, keep: list[int]) -> daemon.DaemonContext:  # noqa: FBT001
        uid, gid = (self._identity or (None, None))[:2]
        # The library's own function tries every number below the limit where the kernel, or the C
        # library that Python was built with, has no close_range(2).
        daemon.daemon.close_all_open_files = open_fds.close_all_but
        if self._identity is None:
            # It would call setuid(2) with the same user, which a unit's filter refuses.
            daemon.daemon.change_process_owner = lambda *_: None
        streams = {} if detach else {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
        return daemon.DaemonContext(
            detach_process=detach,
            working_directory=self._config.daemon.working_directory,
            umask=int(self._config.daemon.umask),
            uid=uid,
            gid=gid,
            initgroups=self._identity is not None,
            files_preserve=keep,
            signal_map={},
            **streams,
        )


def _raise_any(problems: list[Problem]) -> None:
    if problems:
        raise StartError(*problems)


def _problem_of(error: BaseException) -> Problem:
    if isinstance(error, daemon.daemon.DaemonError):
        error = error.__cause__ or error
    if isinstance(error, OSError):
        is_fork = error.errno == errno.EAGAIN
        return preflight.problem_of(error.filename or ("fork" if is_fork else ""), error)
    is_permission = isinstance(error, StartError) and error.is_permission
    return Problem(str(error) or type(error).__name__, is_permission)


@contextlib.contextmanager
def _explained(place: str, path: str) -> Iterator[None]:
    """Turn an OSError into a StartError; see `preflight.problem_of`."""
    try:
        yield
    except OSError as error:
        raise StartError(preflight.problem_of(place, error, path)) from None


def _parse_outcome(message: bytes) -> dict[str, Any]:
    """Read what came through the pipe: the master's report, or the problem before it."""
    if not message:
        text = "the daemon exited before it accepted clients; look at its log (tetrad logs)"
        raise StartError(Problem(text))
    try:
        outcome: dict[str, Any] = json.loads(message)
    except ValueError:
        text = "the daemon's report is incomplete; tetrad status shows whether it runs"
        raise StartError(Problem(text)) from None
    if "error" in outcome:
        raise StartError(Problem(outcome["error"], outcome["permission"]))
    return outcome
