"""`tetrad install` and `uninstall`: units, user, log rotation, manual, a first configuration.

The installed files are those of `systemd/` and `etc/`, with the path of this Python interpreter,
and a link in root's PATH. A second installation changes nothing. An edited configuration is never
overwritten, and the service is not started: `systemctl enable --now tetrad` does that.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import tetrad
from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError
from tetrad.config import paths, yaml_reader
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

UNITS = "/usr/local/lib/systemd/system"
SERVICE = f"{UNITS}/tetrad.service"
SOCKET = f"{UNITS}/tetrad.socket"
SYSUSERS = "/usr/local/lib/sysusers.d/tetrad.conf"
TMPFILES = "/usr/local/lib/tmpfiles.d/tetrad.conf"
LOGROTATE = "/etc/logrotate.d/tetrad"
BY_SOCKET_ONLY = f"{SERVICE}.d/socket.conf"
LISTENERS = f"{SOCKET}.d/listeners.conf"
DEFAULT_LISTENER = "127.0.0.1:65000"
"""The listener of `tetrad.socket`."""
INTERPRETER = f"{SERVICE}.d/interpreter.conf"
NEW_CONFIGURATION = f"{paths.SYSTEM_CONFIGURATION}.new"
_NO_TETRAD = "No module named 'tetrad'"

LINK = "/usr/local/bin/tetrad"
"""The command in the PATH of root and of other users."""

USER = "tetrad"

_FILES = {
    SERVICE: "systemd/tetrad.service",
    SOCKET: "systemd/tetrad.socket",
    SYSUSERS: "systemd/sysusers.d/tetrad.conf",
    TMPFILES: "systemd/tmpfiles.d/tetrad.conf",
    LOGROTATE: "etc/logrotate.d/tetrad",
    "/usr/local/share/doc/tetrad/commands.yaml": "etc/commands.yaml",
    "/usr/local/share/man/man5/tetrad-commands.5": "etc/man/tetrad-commands.5",
    "/usr/local/share/man/man5/tetrad-log.5": "etc/man/tetrad-log.5",
    "/usr/local/share/man/man5/tetrad.yaml.5": "etc/man/tetrad.yaml.5",
    "/usr/local/share/man/man7/tetrad-protocol.7": "etc/man/tetrad-protocol.7",
    "/usr/local/share/man/man8/tetrad.8": "etc/man/tetrad.8",
    "/usr/local/share/bash-completion/completions/tetrad": "etc/completions/tetrad.bash",
    "/usr/local/share/zsh/site-functions/_tetrad": "etc/completions/_tetrad",
    "/usr/local/share/fish/vendor_completions.d/tetrad.fish": "etc/completions/tetrad.fish",
}
"""The installed files, and their sources in this package."""

_INTERPRETER_IN_FILES = "/opt/tetrad/bin/python"

_START = re.compile(r"^ExecStart=(\S+)/[^/\s]+ -I -m tetrad start$", re.MULTILINE)
"""The folder of the interpreter in the installed unit."""

_PLAIN_PATH = re.compile(r"[\w/.+@~-]+", re.ASCII)
"""Paths that need no quoting in a unit file."""

_HIDDEN_FOLDERS = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - names only
"""Folders that ProtectHome= and PrivateTmp= hide from the service."""

_SYSTEMD_IS_RUNNING = "/run/systemd/system"


class InstallError(Exception):
    """The service cannot be installed; the text is the reason."""


class Target(NamedTuple):
    """Where to install: a prefix of every path, and whether only to print what would be done."""

    root: str = "/"
    dry_run: bool = False

    def path(self, path: str) -> str:
        """Return a path with the prefix."""
        return os.path.join(self.root, path.lstrip("/"))

    @property
    def is_live(self) -> bool:
        """Whether it is the running system, whose systemd must be notified of changes."""
        return os.path.realpath(self.root) == "/" and os.path.isdir(_SYSTEMD_IS_RUNNING)


def install(options: argparse.Namespace) -> int:
    """Install the files of the service."""
    target = Target(options.root, options.dry_run)
    _print_steps(install_files(target, by_socket_only=options.socket))
    if target.is_live and options.socket:
        print("tetrad: systemd listens now and at boot; the first client starts the service")
    elif target.is_live:
        print("tetrad: to start the service now and at boot: systemctl enable --now tetrad")
    return OK


def uninstall(options: argparse.Namespace) -> int:
    """Remove the files of the service."""
    _print_steps(remove_files(Target(options.root, options.dry_run)))
    return OK


def _print_steps(steps: Iterable[str]) -> None:
    """Print each step when it is done, so that an error follows the last one."""
    try:
        for step in steps:
            print(f"tetrad: {step}", flush=True)
    except InstallError as error:
        raise CommandError(str(error), FAILURE) from None
    except OSError as error:
        if error.filename is None:
            raise
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        raise CommandError(f"{error.filename}: {reason_of(error)}", status) from None


def install_files(target: Target, *, by_socket_only: bool | None = None) -> Iterator[str]:
    """Install everything; yield a line for each step when it is done.

    `by_socket_only` adds or removes what a service needs whose listeners all come from systemd, and
    lets systemd listen or not; None leaves it as it is. Raises InstallError, ConfigError or
    OSError.
    """
    interpreter = _interpreter(target)
    own_links = _own_links(target)
    script = _script(interpreter)
    is_foreign = script is not None and _link_target(target) not in {None, script, *own_links}
    done: list[str] = []
    changed = set()
    for path, text in _contents(target, interpreter, by_socket_only=by_socket_only).items():
        for line in _write(target, path, text):
            done.append(line)
            changed.add(path)
            yield line
    if script is not None and not is_foreign:
        for line in _link(target, script):
            done.append(line)
            yield line
    if target.is_live and (done or not _user_exists()):
        yield from _run(target, "systemd-sysusers", SYSUSERS)
        yield from _run(target, "systemd-tmpfiles", "--create", TMPFILES)
        yield from _run(target, "systemctl", "daemon-reload")
    if target.is_live and by_socket_only is not None:
        is_changed = not changed.isdisjoint({BY_SOCKET_ONLY, LISTENERS})
        for line in _switch_socket(target, on=by_socket_only, is_changed=is_changed):
            done.append(line)
            yield line
    if not done:
        yield "already installed, nothing changed"
    if is_foreign:
        yield f"kept {target.path(LINK)}, which is not of tetrad install: the command is {script}"


def remove_files(target: Target) -> Iterator[str]:
    """Remove everything but the configuration, the logs and the user; yield a line for each step.

    Raises InstallError or OSError.
    """
    if target.is_live and os.path.exists(SERVICE):
        yield from _run(target, "systemctl", "disable", "--now", "tetrad.socket", "tetrad.service")
        with contextlib.suppress(OSError):  # a daemon that was started by hand uses it
            os.rmdir("/run/tetrad")
    links = [LINK] if _link_target(target) in _own_links(target) else []
    done = []
    for path in (*links, *_FILES, BY_SOCKET_ONLY, LISTENERS, INTERPRETER, NEW_CONFIGURATION):
        for line in _remove(target, path):
            done.append(line)
            yield line
    if target.is_live and done:
        yield from _run(target, "systemctl", "daemon-reload")
    if not done:
        yield "not installed, nothing to remove"
    else:
        yield from _left(target)


def _left(target: Target) -> Iterator[str]:
    """Yield a line for everything of the service that stays, with the way to remove it."""
    folders = (os.path.dirname(paths.SYSTEM_CONFIGURATION), "/var/log/tetrad", "/var/lib/tetrad")
    left = [path for path in map(target.path, folders) if os.path.lexists(path)]
    left += sorted(glob.glob(target.path("/etc/systemd/system/tetrad*")))
    commands = [f"rm -r {' '.join(left)}"] if left else []
    if target.is_live and _user_exists():
        left.append(f"the user {USER}")
        commands.append(f"userdel {USER}")
    if left:
        yield f"{_verb(target, 'left')} {', '.join(left)}; to remove: {' && '.join(commands)}"


def _contents(
    target: Target, interpreter: str, *, by_socket_only: bool | None
) -> dict[str, str | None]:
    """Return the contents of each file; None: the file must not exist."""
    contents: dict[str, str | None] = {
        path: _read(source).replace(_INTERPRETER_IN_FILES, interpreter)
        for path, source in _FILES.items()
    }
    contents[INTERPRETER] = _interpreter_drop_in(_needed_folders())
    if by_socket_only or (by_socket_only is None and os.path.exists(target.path(BY_SOCKET_ONLY))):
        contents[BY_SOCKET_ONLY] = _read("systemd/tetrad.service.d/socket.conf")
    else:
        contents[BY_SOCKET_ONLY] = None
    if by_socket_only is not None:
        contents[LISTENERS] = _listeners_drop_in(target) if by_socket_only else None
    return contents | _configuration(target)


def _listeners_drop_in(target: Target) -> str | None:
    """Return a drop-in for the socket unit, with the listeners of the configuration.

    None if they are those of the unit. Raises ConfigError, or InstallError for a port that differs
    at each start.
    """
    file = target.path(paths.SYSTEM_CONFIGURATION)
    config = yaml_reader.load(file if paths.exists(file) else None).checked().config
    for index, one in enumerate(config.listen):
        if one.address.path is None and one.port == 0:
            raise InstallError(f"listen[{index}].port: 0 is not possible with systemd's sockets")
    names = [one.name.removeprefix("unix:").replace("%", "%%") for one in config.listen]
    if names == [DEFAULT_LISTENER]:
        return None
    # An address of both IP versions, and a Unix socket, as a start without systemd's sockets.
    settings = ["ListenStream=", *(f"ListenStream={name}" for name in names), "BindIPv6Only=both"]
    settings += [f"SocketUser={USER}", f"SocketGroup={USER}"]
    settings += [f"SocketMode={0o777 & ~config.daemon.umask:04o}"]
    note = "# The listeners of the configuration, by `tetrad install --socket`."
    return "\n".join([note, "", "[Socket]", *settings, ""])


def _switch_socket(target: Target, *, on: bool, is_changed: bool) -> Iterator[str]:
    """Let systemd listen, or not; a service that runs gets its listeners anew."""
    has_socket = _is("active", "tetrad.socket") and _is("enabled", "tetrad.socket")
    if has_socket == on and not is_changed:
        return
    was_active = _is("active", "tetrad.service")
    if was_active:
        # systemd does not listen for a service that runs.
        yield from _run(target, "systemctl", "stop", "tetrad.service")
    if on:
        yield from _run(target, "systemctl", "enable", "tetrad.socket")
        yield from _run(target, "systemctl", "restart", "tetrad.socket")
    elif has_socket:
        yield from _run(target, "systemctl", "disable", "--now", "tetrad.socket")
    if was_active:
        yield from _run(target, "systemctl", "start", "tetrad.service")


def _is(state: str, unit: str) -> bool:
    """Tell whether a unit is in a state: active, enabled."""
    ask = ["systemctl", "--quiet", f"is-{state}", unit]
    return not subprocess.run(ask, check=False, capture_output=True).returncode  # noqa: S603


def _configuration(target: Target) -> dict[str, str | None]:
    """Return the configuration to install; beside an edited one it gets the suffix .new."""
    text = _read("etc/tetrad.yaml")
    if _bytes_of(target.path(paths.SYSTEM_CONFIGURATION)) in {None, text.encode()}:
        return {paths.SYSTEM_CONFIGURATION: text}
    return {NEW_CONFIGURATION: text}


def _interpreter(target: Target) -> str:
    """Return the path of this interpreter in the target. Raises InstallError if unusable."""
    path = sys.executable
    root = os.path.join(os.path.abspath(target.root), "")
    if root != "/" and path.startswith(root):
        path = "/" + path.removeprefix(root)
    if not _PLAIN_PATH.fullmatch(path):
        raise InstallError(f"{path}: not usable in unit files; install tetrad e.g. in /opt/tetrad")
    reason = _import_error(sys.executable)
    if reason.endswith(_NO_TETRAD):
        raise InstallError(f"{path} cannot import tetrad; install it in a virtual environment")
    if reason:
        raise InstallError(f"{path} cannot run tetrad: {reason}")
    return path


def _import_error(interpreter: str) -> str:
    """Return why an interpreter cannot import the programs of tetrad; an empty text if it can.

    Without $PYTHONPATH and the working directory.
    """
    code = "import tetrad, tetrad.launch.launcher, tetrad.logger.process, tetrad.master.process"
    ran = subprocess.run([interpreter, "-I", "-c", code], check=False, capture_output=True)  # noqa: S603
    lines = ran.stderr.decode("utf-8", "replace").split("\n")
    return next((one for one in reversed(lines) if one), _NO_TETRAD) if ran.returncode else ""


def _needed_folders() -> set[str]:
    """Return the folders of the interpreter, its libraries and this package."""
    package = os.path.dirname(os.path.abspath(tetrad.__path__[0]))
    return {sys.prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix), package}


def _interpreter_drop_in(folders: set[str]) -> str | None:
    """Return a drop-in that makes hidden folders visible to the service; None if none is hidden."""
    hidden = sorted(folder for folder in folders if f"{folder}/".startswith(_HIDDEN_FOLDERS))
    outermost = [one for one in hidden if not one.startswith(tuple(f"{h}/" for h in hidden))]
    if not outermost:
        return None
    return (
        "# The interpreter is in a folder that the unit hides from the service.\n\n"
        "[Service]\nProtectHome=tmpfs\n"
        "TemporaryFileSystem=/home:ro,mode=755 /root:ro,mode=755 /run/user:ro,mode=755\n"
        f"BindReadOnlyPaths={' '.join(outermost)}\n"
    )


def _read(source: str) -> str:
    """Return the text of a file of this package, or of the checkout that it is imported from."""
    package = os.path.abspath(tetrad.__path__[0])
    packed = os.path.join(package, "data")
    top = packed if os.path.isdir(packed) else os.path.dirname(os.path.dirname(package))
    with open(os.path.join(top, source), encoding="utf-8") as file:
        return file.read()


def _bytes_of(path: str) -> bytes | None:
    """Return the contents of a file; None if it does not exist. Raises OSError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(target: Target, path: str, text: str | None) -> Iterator[str]:
    """Write a file atomically, if it differs; None removes it."""
    if text is None:
        yield from _remove(target, path)
        return
    file_path = target.path(path)
    if _bytes_of(file_path) == text.encode():
        return
    if not target.dry_run:
        _replace(file_path, text)
    note = " (the edited configuration is kept)" if path == NEW_CONFIGURATION else ""
    yield f"{_verb(target, 'wrote')} {file_path}{note}"


def _link_target(target: Target) -> str | None:
    """Return where the link in the PATH leads; None if there is no file; "" for another file."""
    try:
        return os.readlink(target.path(LINK))
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _own_links(target: Target) -> set[str]:
    """Return where the link leads if it was made with the installed unit."""
    unit = _bytes_of(target.path(SERVICE)) or b""
    return {f"{folder}/tetrad" for folder in _START.findall(unit.decode("utf-8", "replace"))}


def _script(interpreter: str) -> str | None:
    """Return the command beside the interpreter; None if pip has put it into the PATH itself."""
    is_there = os.path.exists(os.path.join(os.path.dirname(sys.executable), "tetrad"))
    script = os.path.join(os.path.dirname(interpreter), "tetrad")
    return script if is_there and script != LINK else None


def _link(target: Target, script: str) -> Iterator[str]:
    """Link the command into the PATH."""
    if _link_target(target) == script:
        return
    path = target.path(LINK)
    if not target.dry_run:
        folder = os.path.dirname(path)
        _make_folders(folder)
        temporary = os.path.join(folder, f".tetrad-{os.getpid()}")
        os.symlink(script, temporary)
        os.replace(temporary, path)
    yield f"{_verb(target, 'wrote')} {path}"


def _make_folders(path: str) -> None:
    """Make a folder and those above it, which all users can read whatever the umask is."""
    umask = os.umask(0o022)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(umask)


def _replace(file_path: str, text: str) -> None:
    folder = os.path.dirname(file_path)
    _make_folders(folder)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".tetrad-")
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(fd, 0o644)
        os.replace(temporary, file_path)
    except BaseException:
        os.unlink(temporary)
        raise


def _remove(target: Target, path: str) -> Iterator[str]:
    """Remove a file, and the folder of drop-ins if that leaves it empty."""
    file_path = target.path(path)
    if not os.path.lexists(file_path):
        return
    if not target.dry_run:
        os.unlink(file_path)
        folder = os.path.dirname(file_path)
        if folder.endswith(".d") and path.startswith(UNITS) and not os.listdir(folder):
            os.rmdir(folder)
    yield f"{_verb(target, 'removed')} {file_path}"


def _run(target: Target, *command: str) -> Iterator[str]:
    """Run a command of systemd. Raises InstallError if it fails."""
    if not target.dry_run:
        ran = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if ran.returncode:
            reason = ran.stderr.strip() or f"exit status {ran.returncode}"
            raise InstallError(f"{' '.join(command)}: {reason}")
    yield f"{_verb(target, 'ran')} {' '.join(command)}"


def _verb(target: Target, verb: str) -> str:
    would = {"wrote": "write", "removed": "remove", "ran": "run", "left": "leave"}
    return f"would {would[verb]}" if target.dry_run else verb


def _user_exists() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
