"""Programs and functions: what each process of them may use."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemons import Daemon
from tests.support.jobs import ask, logged, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon

FUNCTIONS = """
import resource

def more(context):
    return bytes(1 << 30)

def file(context):
    with open(FILE, "wb") as file:
        file.write(bytes(4096))

def time(context):
    return str(resource.getrlimit(resource.RLIMIT_CPU))
"""
LIMITS = "ulimit -v; ulimit -t; ulimit -f"


def commands(folder: Path) -> dict[str, Any]:
    """Return the commands of the daemon."""
    return {
        "spin": shell("while :; do :; done", cpu="1s", timeout="1h", on_error="sorry"),
        "size": shell(f"exec head -c 4096 /dev/zero >{folder}/big", file_size="1KiB"),
        "lims": shell(LIMITS),
        "free": shell(LIMITS, memory=None, cpu=None, file_size=None),
        "tiny": shell(f"sh -c '{LIMITS}'", memory="64MiB", cpu="1500ms", file_size="1KiB"),
        "more": {"call": "limited:more", "memory": "256MiB"},
        "file": {"call": "limited:file", "file_size": "1KiB"},
        "tick": {"call": "limited:time", "cpu": "90s"},
    }


@pytest.fixture(scope="module")
def _daemon_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("limited")
    (folder / "limited.py").write_text(FUNCTIONS.replace("FILE", repr(f"{folder}/big")))
    daemon = Daemon(str(folder), {"commands": commands(folder)})
    daemon.environment["PYTHONPATH"] = str(folder)
    yield daemon.start()
    daemon.finish()


@pytest.fixture
def served(_daemon_of_module: Daemon) -> Daemon:
    """Return the daemon without sessions."""
    _daemon_of_module.hand_over()
    return _daemon_of_module


@pytest.mark.parametrize(
    ("command", "answer", "error"),
    [
        ("spin", b"sorry", "killed by SIGXCPU (cpu is reached)"),
        ("size", b"", "killed by SIGXFSZ (file_size is reached)"),
        ("more", b"", "MemoryError"),
        ("file", b"", "File too large"),
    ],
)
def test_a_limit_ends_a_command(served: Daemon, command: str, answer: bytes, error: str) -> None:
    """The log names the limit, or the exception."""
    assert ask(served, command.encode() + b"quit") == answer + b"quit"
    line = logged(served, command)
    assert error in line["error"]
    assert line["level"] == "warning"


@pytest.mark.parametrize(
    ("command", "limits"),
    [
        ("lims", [(2 << 30) // 1024, 60, (256 << 20) // 512]),
        ("free", ["unlimited"] * 3),
        ("tiny", [64 * 1024, 2, 2]),
    ],
)
def test_a_program_and_its_children_have_limits(
    served: Daemon, command: str, limits: list[object]
) -> None:
    """By default 2 GiB of address space, a minute of the processor, files of 256 MiB."""
    assert ask(served, command.encode()).decode().split() == list(map(str, limits))


def test_a_function_has_limits(served: Daemon) -> None:
    """A second after the soft limit, which it can ignore, comes the hard one."""
    assert ask(served, b"tick") == b"(90, 91)"


def test_a_lower_limit_of_the_daemon_stays(daemon: MakeDaemon) -> None:
    """No key raises one, hard or soft."""
    served = daemon(commands={"lims": shell("ulimit -St; ulimit -Ht")})
    resource.prlimit(served.pid, resource.RLIMIT_CPU, (30, 40))
    assert ask(served, b"lims").split() == [b"30", b"40"]
