"""Putting the service in place: units, user, log rotation, manual and a first configuration.

What is installed are the files of `systemd/` and `etc/`, with the paths of the virtual environment
that this program lives in. Doing it again changes nothing, and an operator's configuration is never
touched. It starts nothing: that is for `systemctl enable --now tetrad`.
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
from tetrad.config import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

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
"""Where each file goes, and where it lies in this package."""

_INTERPRETER_IN_FILES = "/opt/tetrad/bin/python"

_PLAIN_PATH = re.compile(r"[\w/.+@~-]+", re.ASCII)
"""What a unit file takes as it is."""

_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - names only
"""What ProtectHome= and PrivateTmp= keep from the service."""

_SYSTEMD_RUNS = "/run/systemd/system"


class InstallError(Exception):
    """It cannot be installed like this; the text says why."""


class Place(NamedTuple):
    """Where to install: `root` is what stands before every path, `dry_run` is only to tell."""

    root: str = "/"
    dry_run: bool = False

    def path(self, path: str) -> str:
        """Return where a path of the system's lies."""
        return os.path.join(self.root, path.lstrip("/"))

    @property
    def is_live(self) -> bool:
        """Whether it is the running system, so that systemd has to hear of changes."""
        return os.path.realpath(self.root) == "/" and os.path.isdir(_SYSTEMD_RUNS)


def install(place: Place, *, by_socket_only: bool | None = None) -> Iterator[str]:
    """Put everything in place, and say each thing that is done, as it is done.

    `by_socket_only` adds or takes away what a service needs that gets its listeners from systemd
    alone; None leaves that as it is. Raises InstallError or OSError.
    """
    done = []
    for path, text in _wanted(place, by_socket_only=by_socket_only).items():
        for line in _write(place, path, text):
            done.append(line)
            yield line
    if place.is_live and (done or not _user_exists()):
        yield from _run(place, "systemd-sysusers", SYSUSERS)
        yield from _run(place, "systemd-tmpfiles", "--create", TMPFILES)
        yield from _run(place, "systemctl", "daemon-reload")
    if not done:
        yield "everything is in place already"


def uninstall(place: Place) -> Iterator[str]:
    """Take everything away but the configuration, the logs and the user whose they are.

    Says each thing that is done. Raises InstallError or OSError.
    """
    if place.is_live and os.path.exists(SERVICE):
        yield from _run(place, "systemctl", "disable", "--now", "tetrad.socket", "tetrad.service")
    done = []
    for path in (*_FILES, BY_SOCKET_ONLY, INTERPRETER, NEW_CONFIGURATION):
        for line in _remove(place, path):
            done.append(line)
            yield line
    if place.is_live and done:
        yield from _run(place, "systemctl", "daemon-reload")
    if not done:
        yield "nothing of it is installed"


def _wanted(place: Place, *, by_socket_only: bool | None) -> dict[str, str | None]:
    """Return what is to be in each file; None: there is to be no such file."""
    interpreter = _interpreter(place)
    wanted: dict[str, str | None] = {
        path: _read(source).replace(_INTERPRETER_IN_FILES, interpreter)
        for path, source in _FILES.items()
    }
    wanted[INTERPRETER] = _drop_in_for_hidden(_folders())
    if by_socket_only is None:
        by_socket_only = os.path.exists(place.path(BY_SOCKET_ONLY))
    wanted[BY_SOCKET_ONLY] = (
        _read("systemd/tetrad.service.d/socket.conf") if by_socket_only else None
    )
    return wanted | _configuration(place)


def _configuration(place: Place) -> dict[str, str | None]:
    """Return the configuration, or, beside one that was edited, what it would be."""
    text = _read("etc/tetrad.yaml")
    if _bytes_of(place.path(paths.SYSTEM_CONFIGURATION)) in {None, text.encode()}:
        return {paths.SYSTEM_CONFIGURATION: text}
    return {NEW_CONFIGURATION: text}


def _interpreter(place: Place) -> str:
    """Return the interpreter as units have to name it. Raises InstallError if they cannot."""
    path = sys.executable
    root = os.path.join(os.path.abspath(place.root), "")
    if root != "/" and path.startswith(root):
        path = "/" + path.removeprefix(root)
    if not _PLAIN_PATH.fullmatch(path):
        raise InstallError(f"{path}: no unit can name that; choose a folder with a plain name")
    if not _finds_tetrad(sys.executable):
        raise InstallError(f"{path} finds no tetrad by itself; install it in a virtual environment")
    return path


def _finds_tetrad(interpreter: str) -> bool:
    """Tell whether it does so without the environment and the working directory, as in a unit."""
    probe = [interpreter, "-I", "-c", "import tetrad"]
    return not subprocess.run(probe, check=False, capture_output=True).returncode  # noqa: S603


def _folders() -> set[str]:
    """Return the folders that the service needs to see: interpreter, libraries, this package."""
    package = os.path.dirname(os.path.abspath(tetrad.__path__[0]))
    return {sys.prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix), package}


def _drop_in_for_hidden(folders: set[str]) -> str | None:
    """Return a drop-in that shows the service what its hardening would hide, if it needs it."""
    hidden = sorted(folder for folder in folders if f"{folder}/".startswith(_HIDDEN))
    outermost = [one for one in hidden if not one.startswith(tuple(f"{h}/" for h in hidden))]
    if not outermost:
        return None
    return (
        "# The interpreter lies where a service sees nothing, so it is shown this much.\n\n"
        "[Service]\nProtectHome=tmpfs\n"
        "TemporaryFileSystem=/home:ro,mode=755 /root:ro,mode=755 /run/user:ro,mode=755\n"
        f"BindReadOnlyPaths={' '.join(outermost)}\n"
    )


def _read(source: str) -> str:
    """Return one of the files that came with this package, or lie beside it in a checkout."""
    package = os.path.abspath(tetrad.__path__[0])
    packed = os.path.join(package, "data")
    top = packed if os.path.isdir(packed) else os.path.dirname(os.path.dirname(package))
    with open(os.path.join(top, source), encoding="utf-8") as file:
        return file.read()


def _bytes_of(path: str) -> bytes | None:
    """Return what a file contains, whatever its encoding; None if there is none. Raises OSError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(place: Place, path: str, text: str | None) -> Iterator[str]:
    """See to it that a file has this text, whole or not at all."""
    if text is None:
        yield from _remove(place, path)
        return
    target = place.path(path)
    if _bytes_of(target) == text.encode():
        return
    if not place.dry_run:
        _replace(target, text)
    note = " (the configuration was edited, and stays as it is)"
    yield f"{_did(place, 'wrote')} {target}{note if path == NEW_CONFIGURATION else ''}"


def _replace(target: str, text: str) -> None:
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=".tetrad-")
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(fd, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _remove(place: Place, path: str) -> Iterator[str]:
    """Remove a file, and the folder of drop-ins if it is empty then."""
    target = place.path(path)
    if not os.path.lexists(target):
        return
    if not place.dry_run:
        os.unlink(target)
        drop_ins = place.path(f"{SERVICE}.d")
        if os.path.isdir(drop_ins) and not os.listdir(drop_ins):
            os.rmdir(drop_ins)
    yield f"{_did(place, 'removed')} {target}"


def _run(place: Place, *command: str) -> Iterator[str]:
    """Run one of systemd's commands. Raises InstallError if it fails."""
    if not place.dry_run:
        ran = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if ran.returncode:
            raise InstallError(f"{' '.join(command)}: {ran.stderr.strip() or 'it failed'}")
    yield f"{_did(place, 'ran')} {' '.join(command)}"


def _did(place: Place, verb: str) -> str:
    would = {"wrote": "would write", "removed": "would remove", "ran": "would run"}
    return would[verb] if place.dry_run else verb


def _user_exists() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
