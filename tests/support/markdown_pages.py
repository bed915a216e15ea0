"""Code blocks of Markdown pages, run as printed; their output is compared with the page's."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
import sysconfig
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.support.project import ROOT
from tests.support.system_programs import missing

if TYPE_CHECKING:
    import pathlib

README = ROOT / "README.md"

HOME = "/home/ann"
"""The home folder in the pages."""

SECONDS = 60.0
"""How long a command may take, and how long the log may lag behind."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.-]+\.yaml)\n")

_READ_ONLY = ("tetrad status", "tetrad logs", "grep", "jq")
"""Commands that are repeated until they show what the page shows: the log lags a little behind."""

_VOLATILE = [
    (r"\d{4}([/-])\d\d\1\d\d([ T])\d\d:\d\d:\d\d(\.\d+)?(Z| [A-Z]+)?", "DATE TIME"),
    (r"\b\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "DATE TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r"\b[0-9a-f]{8}-[0-9a-f]+\b", "CONNECTION"),
    (r'\bpid( |":)\d+', r"pid\1N"),
    (r"\b[\dhms]+ ago", "SPAN ago"),
    (r'\bduration(=|":)[\d.]+', r"duration\1SECONDS"),
    (r"\btetrad \d+\.\d+\.\d+", "tetrad VERSION"),
    (r"\b127\.0\.0\.1:(?!650\d\d)\d+", "127.0.0.1:PORT"),
    (r"\b(\d+\.\d\d ){2}\d+\.\d\d\b", "LOAD"),
]
"""What differs from one run to the next: times, pids, connection ids, ports of clients, load."""


class Block(NamedTuple):
    """A fenced code block."""

    language: str
    text: str


class Step(NamedTuple):
    """A command of a console block, and the output that is printed below it."""

    command: str
    output: str


def blocks(page: pathlib.Path, language: str = "") -> list[Block]:
    """Return the code blocks of a page, or those in one language."""
    return blocks_of(page.read_text("utf-8"), language)


def blocks_of(text: str, language: str = "") -> list[Block]:
    """Return the code blocks of a text, or those in one language."""
    found = [Block(*match.groups()) for match in _BLOCK.finditer(text)]
    return [block for block in found if language in {"", block.language}]


def section(page: pathlib.Path, heading: str) -> str:
    """Return the text between a heading and the next one of the same level."""
    text = page.read_text("utf-8")
    level = heading.partition(" ")[0]
    return re.split(rf"^{level} ", text.partition(f"{heading}\n")[2], flags=re.MULTILINE)[0]


def steps(text: str, prompt: str = "$ ") -> list[Step]:
    """Return the commands of a console block, each with its output."""
    parts = re.split(rf"^{re.escape(prompt)}", text, flags=re.MULTILINE)
    assert not parts[0], f"the block does not begin with {prompt!r}"
    return [Step(*part.partition("\n")[::2]) for part in parts[1:]]


def file_of(block: Block) -> str:
    """Return the name of the file that a YAML block is; empty if its first line names none."""
    match = _FILE.match(block.text)
    return match[1] if match else ""


def normalised(output: str, home: str = HOME) -> str:
    """Return output without what differs from one run to the next."""
    output = output.replace(home, HOME)
    for pattern, name in _VOLATILE:
        output = re.sub(pattern, name, output)
    return output.rstrip("\n")


class OrdinaryUser:
    """An ordinary user with an empty home, in a network and a process namespace of their own.

    The ports are therefore those of the page, and no process outlives the context.
    """

    def __enter__(self) -> Self:
        """Make the namespaces and the home."""
        self._stack = contextlib.ExitStack()
        top = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tetrad-page-"))
        os.chmod(top, 0o755)  # noqa: S103 - another user has to find its home
        self.home = os.path.join(top, "ann")
        os.mkdir(self.home)
        if _is_root():
            os.chown(self.home, _nobody().pw_uid, _nobody().pw_gid)
        self._exports: list[str] = []
        holder = subprocess.Popen(_NAMESPACES, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self._stack.callback(_end, holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "no namespaces"
        with open(f"/proc/{holder.pid}/task/{holder.pid}/children", encoding="ascii") as file:
            self._enter = [*_ENTER, f"--target={file.read().strip()}"]
        return self

    def __exit__(self, *_: object) -> None:
        """End every process, and remove the home."""
        self._stack.close()

    def write(self, name: str, text: str) -> None:
        """Write a file of the user's into the home."""
        self.run(f"cat >{name} <<'END_OF_FILE'\n{text}END_OF_FILE")

    def run(self, command: str) -> str:
        """Run a command in the home and return its output and errors; it must succeed."""
        if command.startswith("export "):
            self._exports.append(command)
        script = "\n".join(['set -o pipefail; cd "$HOME" || exit', *self._exports, command])
        ran = subprocess.run(
            [*self._enter, "--", *_AS_USER, "bash", "-c", script],
            env=_environment(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\nexit status {ran.returncode}\n{ran.stdout}"
        return ran.stdout

    def follow(self, found: list[Block]) -> None:
        """Write each YAML block that names its file, run each console block, compare the output."""
        for block in found:
            if block.language == "yaml" and file_of(block):
                self.write(file_of(block), block.text)
            elif block.language == "console" and block.text.startswith("$ "):
                for step in steps(block.text):
                    self._check(step)

    def _check(self, step: Step) -> None:
        deadline = time.monotonic() + SECONDS
        expected = normalised(step.output)
        while (found := normalised(self.run(step.command), self.home)) != expected:
            if not step.command.startswith(_READ_ONLY) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert (step.command, found) == (step.command, expected)


def obstacle() -> str:
    """Return why no namespaces can be made here; empty if they can."""
    programs = ("unshare", "nsenter", "setpriv", "ip", "nc", "bash")
    if absent := missing(*programs):
        return absent
    tried = subprocess.run([*_NAMESPACES[:-1], "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"run the tests as root that may make namespaces: {tried.stderr.strip()}"
    ran = subprocess.run([*_AS_USER, _tetrad(), "--version"], capture_output=True, check=False)
    if ran.returncode:
        return f"user nobody cannot execute {_tetrad()}: use a Python that all users can read"
    return ""


def _is_root() -> bool:
    return os.geteuid() == 0


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _tetrad() -> str:
    return os.path.join(sysconfig.get_path("scripts"), "tetrad")


def _environment(home: str) -> dict[str, str]:
    path = os.pathsep.join([os.path.dirname(_tetrad()), os.environ["PATH"], "/usr/sbin", "/sbin"])
    return {"HOME": home, "PATH": path, "LANG": "C.UTF-8"}


def _end(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


# Not --map-current-user: the id of nobody also means any user that a namespace does not know.
_OWN_USER_NAMESPACE = (
    [] if _is_root() else ["--user", "--map-user=1000", "--map-group=1000", "--keep-caps"]
)

_NAMESPACES = [
    *("setpriv", "--pdeathsig", "KILL", "unshare", *_OWN_USER_NAMESPACE),
    *("--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"),
    # An ignored SIGCHLD outlives exec: the first process of the namespace keeps no zombies.
    *("sh", "-c", "ip link set lo up && trap '' CHLD && echo ready && exec sleep infinity"),
]

_ENTER = [
    *("nsenter", "--net", "--mount", "--pid"),
    *(() if _is_root() else ("--user", "--preserve-credentials")),
]

_AS_USER = (
    ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if _is_root() else ["env"]
)
