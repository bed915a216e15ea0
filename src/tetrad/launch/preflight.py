"""Checks of what a start needs, and the text for each fault, with the way out.

Each is made as the user who will do what is checked: who starts the daemon, or who serves. `check`
and `restart` make them before anything is stopped, the launcher before it binds; a reload checks
the log. A port in use may be the running daemon's own: only a restart checks the others. The
launcher finds that, and what changes after a check, when it binds, and takes the text from here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
import subprocess
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tetrad.config import paths, types
from tetrad.config.command_model import Call, Clock, Run
from tetrad.launch import pidfile, privileges
from tetrad.system import addresses, memory_file
from tetrad.system.text import ADDRESS_HINTS, LIMIT_HINTS, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from tetrad.config.model import Config, Listener
    from tetrad.config.result import ConfigResult
    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.launch.privileges import Identity

NO_TERMINAL = "log.file is null, but a daemon has no terminal: name a file, or use tetrad run"

_PRIVILEGED_PORTS = range(1, 1024)

_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""A named pipe without a reader must not block; nothing is truncated."""

_OWN_FOLDERS = ("/dev/fd/", "/proc/self/", "/proc/thread-self/")
"""Where each process has other files."""

_MAX_LINKS = 40
"""The most links that the kernel follows."""

_SPACE_BYTES = 4096
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

_REFUSED_HINT = (
    "a seccomp filter refuses it: allow it (SystemCallFilter= in a unit, the seccomp profile of a "
    "container)"
)

_OTHER_FILE = (errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.ELOOP)
"""The errors of a path that leads to a file of another kind, or of another program."""


class Problem(NamedTuple):
    """One fault that prevents a start: where it is, what it is, and the way out.

    `is_later`: the daemon starts, but will fail later: at a reload, an upgrade, or a limit.
    """

    text: str
    is_permission: bool = False
    is_later: bool = False


class Starter(NamedTuple):
    """Who starts the daemon: this process (`user` is None), another user, or a unit of systemd.

    `name` is for messages. A unit has a `program` with an `environment`, systemd makes its
    `folders`, may read the pid from a `pidfile`, and may give its user the capability to open any
    port.
    """

    user: Identity | None = None
    name: str = ""
    folders: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    pidfile: str = ""


class StartError(Exception):
    """The daemon cannot start. The message is one line with all problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.is_permission = any(problem.is_permission for problem in problems)


def problems(
    loaded: ConfigResult,
    config: RuntimeConfig,
    starter: Starter = Starter(),  # noqa: B008 - immutable
    *,
    foreground: bool,
    bind: bool = True,
) -> list[Problem]:
    """Return what prevents a start. Nothing is changed.

    Without `bind`, listeners are not checked: a service manager has passed their sockets.
    """
    checks = _Checks(loaded, config, starter, foreground=foreground, bind=bind)
    binding = None if starter.program else starter.user
    found = list(_surroundings(loaded.config))
    if not starter.program:  # a unit has limits of its own
        found += _cpu_time_problems()
    try:
        found += privileges.run_as(binding, lambda: list(checks.addresses()))
        found += privileges.run_as(starter.user, lambda: list(checks.start()))
        found += privileges.run_as(checks.server(), lambda: list(checks.service()))
    except privileges.UserChangeError as error:
        found.append(Problem(str(error), is_permission=True))
    return found


class _Checks:
    """The checks of one start: a method for each user who takes steps of it."""

    def __init__(
        self,
        loaded: ConfigResult,
        config: RuntimeConfig,
        starter: Starter,
        *,
        foreground: bool,
        bind: bool,
    ) -> None:
        self._loaded, self._config, self._starter = loaded, config, starter
        self._foreground = foreground
        self._listeners = loaded.config.listen if bind else []
        # In this process: for another user, the default paths may be others.
        self._missing = _missing_default_folders(loaded)
        self._files = privileges.program_files()
        self._is_user_changed = False

    def server(self) -> Identity | None:
        """Return the user who serves, if that is not this process's."""
        if self._starter.user is not None:
            return self._starter.user
        try:
            user = privileges.target_identity(self._loaded.config.daemon)
        except PermissionError:
            return None  # `start` reports it
        self._is_user_changed = user is not None and user.uid != os.geteuid()
        return user

    def addresses(self) -> Iterator[Problem]:
        """Check the TCP listeners."""
        for listener in self._listeners:
            if listener.address.path is None:
                yield from _attempt(listener.name, "", partial(_check_address, listener))

    def start(self) -> Iterator[Problem]:
        """Check what is done before the change to `daemon.user`."""
        daemon = self._loaded.config.daemon
        directory = daemon.working_directory
        yield from _attempt("", "", lambda _: privileges.target_identity(daemon))
        for folder in sorted(self._missing):
            if not self._is_made_before(folder):
                yield from _attempt(folder, _first_missing(folder), _check_creatable)
        yield from self._attempt(
            f"daemon.working_directory: {directory}", f"{directory}/", _check_directory
        )
        yield from self._attempt(
            f"daemon.pidfile: {daemon.pidfile}", daemon.pidfile, _check_pidfile
        )
        yield from self._units_pidfile()
        yield from self._attempt(
            f"daemon.control: {daemon.control}", daemon.control, _check_socket_path
        )
        if not self._starter.program:  # a unit has an environment of its own
            yield from zone_problems(self._loaded.config)

    def _units_pidfile(self) -> Iterator[Problem]:
        """Check that systemd would find the pidfile; it would wait for it, and end the daemon."""
        theirs, own = self._starter.pidfile, self._loaded.config.daemon.pidfile
        if theirs and os.path.realpath(theirs) != os.path.realpath(own):
            text = (
                f"daemon.pidfile: {own}, but the unit has PIDFile={theirs}; use one path for both"
            )
            yield Problem(text)

    def service(self) -> Iterator[Problem]:
        """Check what the daemon itself does."""
        for listener in self._listeners:
            if listener.address.path is not None:
                yield from self._attempt(listener.name, listener.address.path, _check_socket_path)
        file = self._config["log"]["file"]
        if file is None:
            yield from _no_terminal(foreground=self._foreground)
        else:
            place = f"log.file: {file}"
            check = partial(
                _check_log, pidfile_path=self._config["pidfile"], foreground=self._foreground
            )
            found = list(self._attempt(place, file, check))
            # Only for a start: a daemon that runs may be reloaded while its disk is full.
            yield from found or self._attempt(place, file, _check_space)
        if self._is_user_changed or self._starter.user is not None:
            yield from self._program()
            yield from self._reading()
            yield from self._commands()

    def _program(self) -> Iterator[Problem]:
        """Check that the user can execute tetrad: that of the unit, or this one."""
        program = self._starter.program
        text = _failure_of(program, self._starter.environment) if program else ""
        text = text or ("" if program else privileges.unreadable_program(self._files))
        if text:
            yield Problem(text, is_permission=True)

    def _reading(self) -> Iterator[Problem]:
        """Check that the user can read the files that this process has read.

        With `daemon.user`, a start reads them before the change of user, and a reload after it.
        """
        later = ", for a reload and an upgrade" if self._is_user_changed else ""
        name = self._starter.name or f"user {privileges.user_name()}"
        file = self._loaded.file
        if file is not None and _is_denied(file):
            text = f"{file}: permission denied; user {privileges.user_name()} needs read access"
            yield Problem(text + later, is_permission=True, is_later=self._is_user_changed)
        for index, listener in enumerate(self._loaded.config.listen):
            for key in ("certificate", "key", "client_ca", "client_crl") if listener.tls else ():
                path = getattr(listener.tls, key)
                if path is not None and _is_denied(path):
                    text = f"{path}: permission denied (as {name}{later})"
                    text = self._loaded.error_at(f"listen[{index}].tls.{key}", text)
                    yield Problem(text, is_permission=True, is_later=self._is_user_changed)

    def _commands(self) -> Iterator[Problem]:
        """Check the programs of commands."""
        name = self._starter.name or f"user {privileges.user_name()}"
        for key, command in self._loaded.config.commands.items():
            for violation in command.violations() if isinstance(command, Run) else ():
                where = f"commands.{key}.{violation.key}"
                yield Problem(self._loaded.error_at(where, f"{violation.message} (as {name})"))

    def _attempt(self, place: str, path: str, check: Callable[[str], object]) -> Iterator[Problem]:
        """Make a check, unless a folder is still to be made, or its owner to be changed."""
        folder = os.path.dirname(path)
        will_be_made = folder in self._missing or self._is_made_before(folder)
        return _attempt(place, path, check, will_be_made=will_be_made)

    def _is_made_before(self, folder: str) -> bool:
        """Tell whether systemd makes a folder, or one above it for the user who starts."""
        return any(f"{folder}/".startswith(f"{one}/") for one in self._starter.folders)


def _surroundings(config: Config) -> Iterator[Problem]:
    """Yield what this interpreter, kernel or sandbox lacks and nothing can replace."""
    jobs = [name for name, one in config.commands.items() if isinstance(one, Run | Call)]
    try:
        os.close(memory_file.create("check", 0))
    except OSError as error:
        yield Problem(reason_of(error))
    if jobs and not os.path.exists("/proc/self/stat"):
        yield Problem(f"commands.{jobs[0]}: programs and functions need /proc: mount it")
    for refused in privileges.refused_calls(with_jobs=bool(jobs)):
        yield Problem(f"{reason_of(refused)}; {_REFUSED_HINT}")


def log_problems(config: RuntimeConfig, *, foreground: bool, create: bool = False) -> list[Problem]:
    """Return what prevents the logger from writing to its file as this user.

    With `create`, a missing file is created, as the logger does; otherwise nothing is changed. Not
    for the process that has claimed the pidfile: it would lose its lock if that is the same file.
    """
    file = config["log"]["file"]
    if file is None:
        return list(_no_terminal(foreground=foreground))
    check = partial(
        _check_log, pidfile_path=config["pidfile"], foreground=foreground, create=create
    )
    return list(_attempt(f"log.file: {file}", file, check))


def port_problems(loaded: ConfigResult, running: Collection[tuple[str, int]]) -> list[Problem]:
    """Return the ports that other programs have.

    `running` are the addresses and ports of the daemon that will be stopped before.
    """
    found: list[Problem] = []
    for one in loaded.config.listen:
        own = [place for place, port in running if port == one.port]
        is_freed = any(addresses.exclude_each_other(place, one.address) for place in own)
        if one.port and not is_freed:
            found += _attempt(one.name, "", partial(_check_port, one))
    return found


def problem_of(place: str, error: OSError, path: str | None = None) -> Problem:
    """Return the text for an error of open(2) or bind(2), with a hint at the way out.

    `place` is the key or listener, or empty. `path` is a file, a directory with a slash at its end,
    or empty for a TCP address; None: only limits get a hint.
    """
    hints = _path_hints(path) if path else {} if path is None else ADDRESS_HINTS
    hint = (LIMIT_HINTS | hints).get(error.errno or 0)
    text = f"{place}: {reason_of(error)}" if place else reason_of(error)
    return Problem(f"{text}; {hint}" if hint else text, isinstance(error, PermissionError))


def _path_hints(path: str) -> dict[int, str]:
    directory = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)
    access = "access" if path.endswith("/") else "write access"
    where = path if os.path.isfile(path) else f"directory {directory}"
    needs = f"user {privileges.user_name()} needs {access} to {where}"
    owner = paths.owner_of_runtime_variable(directory)
    if owner is not None:
        user = privileges.user_name(owner)
        needs = (
            f"XDG_RUNTIME_DIR is a folder of user {user}: unset it, or change the user with su -"
        )
    return {
        errno.EACCES: needs,
        errno.EADDRINUSE: "another program listens there (ss -lxp shows it)",
        errno.EISDIR: "name a file",
        errno.ENOLCK: "name a path on another file system",
        errno.ENOENT: f"create the directory {directory}",
        errno.ENAMETOOLONG: "name a shorter path",
        errno.ENOSPC: "free space on its file system",
        errno.EDQUOT: f"raise the quota of user {privileges.user_name()}, or free space",
        errno.ENOTTY: "name a file, or use tetrad run with log.file: null",
        errno.EROFS: "name another path, or make the file system writable",
        errno.ENOTDIR: f"{directory} is not a directory; name another path",
        **dict.fromkeys(_OTHER_FILE, "name another path"),
    }


def _no_terminal(*, foreground: bool) -> Iterator[Problem]:
    if not foreground:
        yield Problem(NO_TERMINAL)


def _attempt(
    place: str, path: str, check: Callable[[str], object], *, will_be_made: bool = False
) -> Iterator[Problem]:
    try:
        check(path)
    except OSError as error:
        if not (will_be_made and isinstance(error, FileNotFoundError | PermissionError)):
            yield problem_of(place, error, path)


def _missing_default_folders(loaded: ConfigResult) -> set[str]:
    """Return the folders that the launcher creates: those of default paths, if they are missing."""
    daemon, log = loaded.config.daemon, loaded.config.log
    pairs = (
        (daemon.pidfile, paths.pidfile()),
        (daemon.control, paths.control()),
        (log.file, paths.log()),
    )
    folders = {os.path.dirname(default) for path, default in pairs if path == default}
    return {folder for folder in folders if not os.path.isdir(folder)}


def _first_missing(folder: str) -> str:
    """Return the topmost folder that has to be made for a missing one."""
    parent = os.path.dirname(folder)
    return folder if os.path.lexists(parent) else _first_missing(parent)


def _failure_of(program: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """Execute the program of a unit; return what is wrong, or an empty text.

    It may exist only inside the service.
    """
    name = privileges.user_name()
    try:
        ran = subprocess.run(  # noqa: S603
            [*program, "--version"],
            env=environment,
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except PermissionError:
        return f"{program[0]}: user {name} cannot execute it; install tetrad e.g. in /opt/tetrad"
    except OSError:
        return ""
    last = (ran.stderr.splitlines() or [f"exit status {ran.returncode}"])[-1]
    return f"{' '.join(program)} fails as user {name}: {last}" if ran.returncode else ""


def _cpu_time_problems() -> Iterator[Problem]:
    """Yield the limit of CPU time, which the daemon inherits, and which would end it one day."""
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    seconds = min((one for one in limits if one != resource.RLIM_INFINITY), default=None)
    if seconds is not None:
        limit = f"the limit of CPU time (ulimit -t) is {seconds} s"
        yield Problem(f"{limit}, after which the kernel kills the daemon: remove it", is_later=True)


def zone_problems(config: Config) -> Iterator[Problem]:
    """Return what is wrong with TZ, if a clock shows the zone of the daemon's environment."""
    if any(isinstance(one, Clock) and one.timezone == "local" for one in config.commands.values()):
        try:
            types.check_zone_variable()
        except ValueError as error:
            yield Problem(f"environment variable TZ: {error}")


# The checks: each raises OSError


def _check_address(listener: Listener, _path: str) -> None:
    """Bind to any port of the address, and to the listener's own port if that is privileged."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    own_port = listener.port or 0
    for port in {0, own_port if own_port in _PRIVILEGED_PORTS else 0}:
        with socket.socket(family) as probe:
            try:
                probe.bind(addresses.to_bind(listener.address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


def _check_port(listener: Listener, _path: str) -> None:
    """Bind to a port as a start does. Only a port in use is an error here."""
    with socket.socket(socket.AF_INET6 if ":" in listener.address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, listener.address != "::")
        try:
            probe.bind(addresses.to_bind(listener.address, listener.port or 0))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise


def _check_socket_path(path: str) -> None:
    """Check that a Unix socket can be created, and a stale one be removed before."""
    size = len(os.fsencode(path))
    if size > types.MAX_SOCKET_PATH_BYTES:
        text = (
            f"has {size} bytes; the path of a Unix socket has at most {types.MAX_SOCKET_PATH_BYTES}"
        )
        raise OSError(errno.ENAMETOOLONG, text)
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_socket = True
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "exists and is not a socket; not removed")
    _check_creatable(path)


def _check_pidfile(path: str) -> None:
    pidfile.read_state(path)
    _check_file(path)
    _check_locks(path)
    _check_space(path)


def _check_log(path: str, *, pidfile_path: str, foreground: bool, create: bool = False) -> None:
    if _is_lost_stream(path, foreground=foreground):
        raise OSError(errno.ENOTTY, "the daemon has no such terminal or stream")
    _check_kind(path)
    if create:
        os.close(os.open(path, _OPEN_FLAGS | os.O_CREAT, 0o666))
    else:
        _check_file(path)
    both_exist = os.path.exists(path) and os.path.exists(pidfile_path)
    if both_exist and os.path.samefile(path, pidfile_path):
        raise FileExistsError(errno.EEXIST, "is the same file as daemon.pidfile")


def _check_kind(path: str) -> None:
    """Refuse what is no place for a log, although root may open it for writing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
        for is_kind, kind in ((stat.S_ISBLK, "a block device"), (stat.S_ISSOCK, "a socket")):
            if is_kind(mode):
                raise OSError(errno.EINVAL, f"is {kind}")


def _is_lost_stream(path: str, *, foreground: bool) -> bool:
    """Tell whether a path leads to a stream of the process that opens it, which a daemon lacks.

    In the foreground it has the standard error of its starter.
    """
    for _ in range(_MAX_LINKS):
        if path == "/dev/tty" or path.startswith(_OWN_FOLDERS):
            return not (foreground and path.endswith("/fd/2"))
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return False


def _check_space(path: str) -> None:
    """Check that the file system, or a quota, has room for a file and some text."""
    if os.path.exists(path) and not os.path.isfile(path):
        return
    with _nameless_file(path) as fd:
        try:
            if fd is not None:
                os.write(fd, bytes(_SPACE_BYTES))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise


def _check_locks(path: str) -> None:
    """Check that the file system has the locks of a pidfile."""
    with _nameless_file(path) as fd:
        if fd is not None:
            pidfile.require_locks(fd, path)


@contextlib.contextmanager
def _nameless_file(path: str) -> Iterator[int | None]:
    """Create a file beside a path, which no other process sees; None if that is not possible.

    Raises OSError if there is no room for it, and none at the path.
    """
    folder = os.path.dirname(os.path.realpath(path))
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _NO_ROOM and not os.path.exists(path):
            raise
        yield None  # the file system lacks them, or this user may only write to the file
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _check_file(path: str) -> None:
    """Check that a file can be opened for writing, or created."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        _check_creatable(os.path.realpath(path))
        return
    try:
        os.write(fd, b"")  # changes nothing, but fails for a device such as /dev/full
    except OSError as error:
        raise OSError(errno.EINVAL, error.strerror) from None
    finally:
        os.close(fd)


def _check_creatable(path: str) -> None:
    """Check that files can be created in the directory of a path."""
    directory = os.path.dirname(path)
    _check_directory(f"{directory}/")
    _check_writable(directory)


def _check_writable(directory: str) -> None:
    if os.access(directory, os.W_OK):
        return
    is_read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    number = errno.EROFS if is_read_only else errno.EACCES
    raise OSError(number, os.strerror(number))


def _is_denied(path: str) -> bool:
    """Tell whether this user may not read a file."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except PermissionError:
        return True
    except OSError:
        pass  # not there, which whoever reads it reports
    return False


def _check_directory(path: str) -> None:
    """Check that a directory exists and can be entered; its path ends with a slash."""
    os.stat(f"{path}.")
