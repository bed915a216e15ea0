"""Code of an attacker inside the daemon: the kernel refuses it calls that no service needs."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.jobs import ask, logged
from tests.support.processes import run, status_of
from tests.support.refused_calls import needs_seccomp, refusing
from tetrad.launch import system_call_filter

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

pytestmark = needs_seccomp

MODULE = """
import ctypes, errno, json, mmap, os

libc = ctypes.CDLL(None, use_errno=True)
folder = os.path.dirname(__file__)
UNSHARE, CLONE = {"x86_64": (272, 56), "aarch64": (97, 220)}[os.uname().machine]
NEW_USER, SIGCHLD = 0x10000000, 17

def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(number, *map(ctypes.c_long, arguments))
    return errno.errorcode.get(ctypes.get_errno())

def calls(context):
    numbers = json.load(open(folder + "/numbers.json"))
    return json.dumps({name: call(number, *[-1] * 6) for name, number in numbers.items()})

def spaces(context):
    clone = call(CLONE, NEW_USER | SIGCHLD, 0, 0, 0, 0)
    return json.dumps([call(UNSHARE, NEW_USER), clone, call(435, 0, 0)])

def threads(context):
    import subprocess, threading
    said = []
    echo = lambda: said.append(subprocess.check_output(["echo", "works"]))
    thread = threading.Thread(target=echo)
    thread.start()
    thread.join()
    return said[0]

def foreign(context):
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex("b814000000" "cd80" "c3"))  # getpid of i386
    code = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return str(code())
"""

COMMANDS = {
    "call": {"call": "intruder:calls"},
    "spac": {"call": "intruder:spaces"},
    "thre": {"call": "intruder:threads"},
    "fore": {"call": "intruder:foreign", "on_error": "killed"},
}


@pytest.fixture
def intruded(prepared: MakeDaemon, tmp_path: pathlib.Path) -> Daemon:
    """Return a daemon whose functions are an attacker's; not started."""
    (tmp_path / "intruder.py").write_text(MODULE)
    numbers = system_call_filter.refused_numbers(platform.machine())
    (tmp_path / "numbers.json").write_text(json.dumps(numbers))
    asked = prepared(commands=COMMANDS, log={"level": "debug"})
    path = [str(tmp_path), asked.environment.get("PYTHONPATH", "")]
    asked.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return asked


def answers(served: Daemon, word: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return what a function answers in JSON."""
    return json.loads(ask(served, word + b"quit").removesuffix(b"quit"))


def test_calls_of_intruders_are_refused(intruded: Daemon) -> None:
    """Those of tracing, of the kernel's own parts, and for new user namespaces."""
    intruded.start()
    refused = system_call_filter.refused_numbers(platform.machine())
    assert answers(intruded, b"call") == dict.fromkeys(refused, "EPERM")
    assert answers(intruded, b"spac") == ["EPERM", "EPERM", "ENOSYS"]
    assert ask(intruded, b"threquit") == b"works\nquit"
    filtered = {status_of(pid)["Seccomp"] for pid in (intruded.pid, intruded.logger)}
    assert filtered == {"2"}
    assert not intruded.events("server.unconfined", fence="system calls")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_calls_of_another_architecture_end_the_process(intruded: Daemon) -> None:
    """They would have other numbers."""
    intruded.start()
    assert ask(intruded, b"forequit") == b"killedquit"
    assert logged(intruded, "fore")["error"] == "killed by SIGSYS"


def test_an_upgrade_keeps_the_filter(intruded: Daemon) -> None:
    """The new version runs in the same process."""
    intruded.start()
    assert intruded.tetrad("upgrade").status == 0
    assert answers(intruded, b"spac") == ["EPERM", "EPERM", "ENOSYS"]


def test_the_filter_can_be_switched_off(intruded: Daemon) -> None:
    """By a restart: a filter that is set stays."""
    intruded.configure(daemon={"system_call_filter": False})
    intruded.start()
    assert answers(intruded, b"call")["ptrace"] != "EPERM"
    assert status_of(intruded.pid)["Seccomp"] == "0"
    intruded.configure(daemon={"system_call_filter": True})
    ran = intruded.tetrad("reload")
    assert ran.status == 78
    assert "daemon.system_call_filter cannot change" in ran.err


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_kernel_without_filters_is_no_error(prepared: MakeDaemon, error: str) -> None:
    """The log tells at the level debug."""
    asked = prepared(log={"level": "debug"})
    asked.command = [*refusing(f"seccomp:{error}"), *asked.command]
    asked.start()
    line = asked.wait_for("server.unconfined", fence="system calls")
    reason = {"ENOSYS": "function not implemented", "EPERM": "operation not permitted"}[error]
    assert (line["level"], line["why"]) == ("debug", f"seccomp(2): {reason}")
    assert asked.served().quit() == b"quit"


def test_an_unknown_architecture_has_no_filter() -> None:
    """It is named."""
    code = (
        "import platform; platform.machine = lambda: 'mips'; "
        "from tetrad.launch import system_call_filter; print(system_call_filter.install())"
    )
    ran = run([sys.executable, "-c", code], dict(os.environ))
    assert ran.out == "no filter for the architecture mips\n"
