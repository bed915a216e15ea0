"""`tetrad install` and `uninstall`: units, user, log rotation, manual, a first configuration.

The installed files are those of `systemd/` and `etc/`, with the path of this Python interpreter.
A second installation changes nothing. An edited configuration is never overwritten, and the service
is not started: `systemctl enable --now tetrad` does that.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import tetrad
from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError
from tetrad.config import paths
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
INTERPRETER = f"{SERVICE}.d/interpreter.conf"
NEW_CONFIGURATION = f"{paths.SYSTEM_CONFIGURATION}.new"

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
    if target.is_live:
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

    `by_socket_only` adds or removes the drop-in for a service whose listeners all come from
    systemd; None leaves it as it is. Raises InstallError or OSError.
    """
    done = []
    for path, text in _contents(target, by_socket_only=by_socket_only).items():
        for line in _write(target, path, text):
            done.append(line)
            yield line
    if target.is_live and (done or not _user_exists()):
        yield from _run(target, "systemd-sysusers", SYSUSERS)
        yield from _run(target, "systemd-tmpfiles", "--create", TMPFILES)
        yield from _run(target, "systemctl", "daemon-reload")
    if not done:
        yield "already installed, nothing changed"


def remove_files(target: Target) -> Iterator[str]:
    """Remove everything but the configuration, the logs and the user; yield a line for each step.

    Raises InstallError or OSError.
    """
    if target.is_live and os.path.exists(SERVICE):
        yield from _run(target, "systemctl", "disable", "--now", "tetrad.socket", "tetrad.service")
    done = []
    for path in (*_FILES, BY_SOCKET_ONLY, INTERPRETER, NEW_CONFIGURATION):
        for line in _remove(target, path):
            done.append(line)
            yield line
    if target.is_live and done:
        yield from _run(target, "systemctl", "daemon-reload")
    if not done:
        yield "not installed, nothing to remove"


def _contents(target: Target, *, by_socket_only: bool | None) -> dict[str, str | None]:
    """Return the contents of each file; None: the file must not exist."""
    interpreter = _interpreter(target)
    contents: dict[str, str | None] = {
        path: _read(source).replace(_INTERPRETER_IN_FILES, interpreter)
        for path, source in _FILES.items()
    }
    contents[INTERPRETER] = _interpreter_drop_in(_needed_folders())
    if by_socket_only is None:
        by_socket_only = os.path.exists(target.path(BY_SOCKET_ONLY))
    contents[BY_SOCKET_ONLY] = (
        _read("systemd/tetrad.service.d/socket.conf") if by_socket_only else None
    )
    return contents | _configuration(target)


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
    if not _can_import_tetrad(sys.executable):
        raise InstallError(f"{path} cannot import tetrad; install it in a virtual environment")
    return path


def _can_import_tetrad(interpreter: str) -> bool:
    """Tell whether it can import tetrad without $PYTHONPATH and the working directory."""
    probe = [interpreter, "-I", "-c", "import tetrad"]
    return not subprocess.run(probe, check=False, capture_output=True).returncode  # noqa: S603


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


def _replace(file_path: str, text: str) -> None:
    folder = os.path.dirname(file_path)
    os.makedirs(folder, exist_ok=True)
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
        drop_ins = target.path(f"{SERVICE}.d")
        if os.path.isdir(drop_ins) and not os.listdir(drop_ins):
            os.rmdir(drop_ins)
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
    would = {"wrote": "would write", "removed": "would remove", "ran": "would run"}
    return would[verb] if target.dry_run else verb


def _user_exists() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
