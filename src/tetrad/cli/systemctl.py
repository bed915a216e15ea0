"""The unit of the service: which one has the same configuration file, and systemctl(1) for it.

A daemon that root starts by hand would not belong to the unit: without its user and its sandbox,
and unknown to systemd. So root's `start`, `stop` and `restart` go through systemctl, unless systemd
itself executes the command, or the option --no-systemd is given.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tetrad.cli.exit_status import FAILURE, CommandError, print_error
from tetrad.cli.parser import parser
from tetrad.config import paths
from tetrad.system import users

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

_SYSTEMD_IS_RUNNING = "/run/systemd/system"

_UNITS = "tetrad*.service"
"""The unit of `tetrad install`, and copies of it for more daemons."""

_FOLDERS = {
    "RuntimeDirectory": "/run",
    "StateDirectory": "/var/lib",
    "LogsDirectory": "/var/log",
}
"""The settings for folders that systemd creates, and where it does."""

_PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "MainPID", "ControlGroup", "PIDFile", "TriggeredBy"),
    *("User", "Group", "SupplementaryGroups", "Environment", "EnvironmentFiles", "ExecStart"),
    *_FOLDERS,
)

_INSTANCE = re.compile(r"[\w.:-]+", re.ASCII)
"""Names of instances that need no escaping."""

_ENVIRONMENT_FILE = re.compile(r"EnvironmentFiles=(/.*) \(ignore_errors=(?:yes|no)\)")
_MAX_FILE_CHARACTERS = 1 << 16

_BY_HAND = "--no-systemd"


class Unit(NamedTuple):
    """A unit of tetrad: its name, state (`ActiveState`), daemon, and control group.

    `main_pid` is 0 if it has no daemon. `pidfile` is where systemd looks for it; empty if it does
    not. `user`, `groups` and `environment` are those of the daemon,
    `folders` are those that systemd creates for it. `has_socket`: a socket unit may listen for it.
    `program` is how it executes tetrad;
    `is_foreground`: whether with `run` instead of `start`.
    """

    name: str
    state: str
    main_pid: int
    control_group: str
    pidfile: str
    user: str
    groups: tuple[str, ...]
    environment: dict[str, str]
    folders: tuple[str, ...]
    program: tuple[str, ...]
    is_foreground: bool
    has_socket: bool

    @property
    def is_root(self) -> bool:
        """Whether the daemon is started as root."""
        return self.user in {"", "root", "0"}

    @property
    def is_stopped(self) -> bool:
        """Whether it neither runs nor waits for another try to start."""
        return self.state in {"inactive", "failed"}

    def use_default_paths(self) -> None:
        """Let the default paths be those of its daemon, which its user and environment decide."""
        with contextlib.suppress(KeyError):  # a user that exists only inside the service
            uid, _ = users.user(self.user or "root")
            environment = {"HOME": users.home(uid), **self.environment}
            paths.use_defaults_of_user(uid, environment)

    def owns(self, pid: int) -> bool:
        """Tell whether a process belongs to the unit."""
        # systemd's own names begin below its root, which is not that of this namespace everywhere.
        root = (_control_group(1) or "").removesuffix("/init.scope")
        group = (_control_group(pid) or "").removeprefix(root)
        return bool(self.control_group) and f"{group}/".startswith(f"{self.control_group}/")

    def require(self, pid: int | None) -> None:
        """Raise CommandError for the pid of a daemon that does not belong to the unit."""
        if pid is not None and not self.owns(pid):
            raise CommandError(self.foreign(pid), FAILURE)

    def foreign(self, pid: int) -> str:
        """Return the text about a daemon that does not belong to the unit."""
        return _foreign(pid, self.name)

    def do(self, verb: str) -> str:
        """Run a command of systemctl for the unit; return its command line. Raises CommandError."""
        command = ("systemctl", verb, self.name)
        ran = _run(*command)
        if ran.returncode:
            now = _properties(_query("show", "--property=StatusText,ActiveState", self.name))
            reason = now["StatusText"] or _one_line(ran.stderr)
            tries = "systemd tries again; " if now["ActiveState"] == "activating" else ""
            hint = f"{tries}journalctl -u {self.name} shows more"
            raise CommandError(f"{' '.join(command)} failed: {reason}; {hint}", FAILURE)
        for line in ran.stderr.splitlines():
            print_error(line)
        return " ".join(command)


def unit_of(options: argparse.Namespace) -> Unit | None:
    """Return the unit that a command of root is to use; None: there is none for its file.

    Raises CommandError if systemd does not tell.
    """
    return None if options.no_systemd else find_unit(options)


def find_unit(options: argparse.Namespace) -> Unit | None:
    """Return the unit with the file of a command, for root. Raises CommandError."""
    if os.geteuid() or is_executed_by_systemd():
        return None
    if not os.path.isdir(_SYSTEMD_IS_RUNNING):
        return None
    file = paths.configuration(options.config)
    try:
        found = [unit for unit_file, unit in _units(file) if _is_same_file(unit_file, file)]
    except FileNotFoundError:
        return None  # a container without systemctl
    found = [unit for unit in found if not unit.owns(os.getpid())]
    # Of several units with the same file, that which runs.
    return min(found, key=lambda unit: unit.is_stopped, default=None)


def is_executed_by_systemd() -> bool:
    """Tell whether systemd has executed this process, as a command of a unit."""
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def require_own_unit(pid: int) -> None:
    """Raise CommandError if systemd starts a unit whose daemon (`pid`) runs outside of it.

    After a success, systemd would look for its daemon in vain, and remove the files of the other.
    """
    if is_executed_by_systemd() and _control_group(pid) != _control_group(os.getpid()):
        raise CommandError(_foreign(pid, "this unit"), FAILURE)


def _units(file: str | None) -> Iterator[tuple[str | None, Unit]]:
    """Yield each unit of tetrad, with the file that it uses; None for the built-in defaults.

    Of a template, there are the instances that are loaded, and the one that is named as `file`.
    """
    # A pattern matches loaded units only, and a unit that never ran may not be loaded.
    installed = [line.split()[0] for line in _query("list-unit-files", "--no-legend", _UNITS)]
    instance = os.path.splitext(os.path.basename(file or ""))[0]
    is_name = _INSTANCE.fullmatch(instance) is not None
    names = [one.replace("@.", f"@{instance}.") for one in installed if is_name or "@." not in one]
    shown = _query("show", f"--property={','.join(_PROPERTIES)}", _UNITS, *names)
    for block in dict.fromkeys("\n".join(shown).split("\n\n")):
        lines = block.splitlines()
        properties = _properties(lines)
        program, command = _parse(properties.get("ExecStart", ""))
        if command is not None and properties["LoadState"] == "loaded":
            environment = _properties(shlex.split(properties["Environment"]))
            for line in lines:  # a line for each file; the last one wins
                environment |= _environment_file(line)
            unit = Unit(
                name=properties["Id"],
                state=properties["ActiveState"],
                main_pid=int(properties["MainPID"]),
                control_group=properties["ControlGroup"],
                pidfile=properties["PIDFile"],
                user=properties["User"],
                groups=(*properties["Group"].split(), *properties["SupplementaryGroups"].split()),
                environment=environment,
                folders=tuple(
                    f"{top}/{name}"
                    for key, top in _FOLDERS.items()
                    for name in properties[key].split()
                ),
                program=program,
                is_foreground=command.command == "run",
                has_socket=bool(properties["TriggeredBy"]),
            )
            yield _file(command, environment), unit


def _parse(exec_start: str) -> tuple[tuple[str, ...], argparse.Namespace | None]:
    """Return how a unit executes tetrad, and its options if it is `tetrad start` or `run`."""
    arguments = exec_start.partition("argv[]=")[2].partition(" ; ")[0].split()
    names = [os.path.basename(one) for one in arguments]
    end = names.index("tetrad") + 1 if "tetrad" in names else len(names)
    program, rest = tuple(arguments[:end]), arguments[end:]
    if {"start", "run"}.isdisjoint(rest):
        return program, None
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        return program, parser().parse_args(rest)
    return program, None


def _environment_file(line: str) -> dict[str, str]:
    """Return the variables of the file in a property EnvironmentFiles; of other lines, none.

    A file that cannot be read has none: the unit does not start then, or does without it.
    """
    match = _ENVIRONMENT_FILE.fullmatch(line)
    if match is None:
        return {}
    try:
        with open(match[1], encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_FILE_CHARACTERS)
    except OSError:
        return {}
    assignments = (one.strip() for one in text.replace("\\\n", "").splitlines())
    found = _properties(one for one in assignments if one and one[0] not in "#;")
    return {name.strip(): _unquoted(value.strip()) for name, value in found.items()}


def _unquoted(value: str) -> str:
    """Return the value of a variable in an environment file; see systemd.exec(5)."""
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # a quote without its end
        return value


def _file(command: argparse.Namespace, environment: dict[str, str]) -> str | None:
    """Return the configuration file of a unit's command line and environment."""
    name = command.config or environment.get(paths.CONFIGURATION_VARIABLE)
    return os.path.join("/", name) if name else paths.system_configuration()


def _is_same_file(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return os.path.realpath(one) == os.path.realpath(other)


def _properties(lines: Iterable[str]) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in lines)


def _control_group(pid: int) -> str | None:
    """Return the control group of a process in systemd's hierarchy; None if that is hidden."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in file)
    except OSError:
        return None
    return groups.get("name=systemd", groups.get(""))


def _query(*arguments: str) -> list[str]:
    """Return the output of systemctl, in lines; nothing found is no error. Raises CommandError."""
    ran = _run("systemctl", *arguments)
    if ran.returncode and ran.stderr:
        text = f"systemctl {arguments[0]} failed: {_one_line(ran.stderr)}"
        raise CommandError(f"{text}; {_BY_HAND} does without systemd", FAILURE)
    return ran.stdout.splitlines()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of systemctl. Raises FileNotFoundError."""
    return subprocess.run(  # noqa: S603
        command, check=False, capture_output=True, encoding="utf-8", errors="replace"
    )


def _foreign(pid: int, unit: str) -> str:
    return (
        f"the running daemon (pid {pid}) was started by hand and does not belong to {unit};"
        f" tetrad stop {_BY_HAND} stops it"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
