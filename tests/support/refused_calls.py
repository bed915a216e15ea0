"""Run a program in which the kernel refuses system calls, as a sandbox or an old kernel does.

A seccomp filter (seccomp(2)) refuses them to the program and to all its children. On the command
line, `close_range:ENOSYS` refuses a call, and `prctl/36:EPERM` one whose first argument is 36.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

import pytest

_NUMBERS = {
    "x86_64": {"seccomp": 317, "memfd_create": 319, "prctl": 157, "waitid": 247, "capset": 126},
    "aarch64": {"seccomp": 277, "memfd_create": 279, "prctl": 167, "waitid": 95, "capset": 91},
}
_SAME_NUMBERS = {
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    "close_range": 436,
    "epoll_pwait2": 441,
    "landlock_create_ruleset": 444,
}
"""System calls that have one number on all machines: those since Linux 5.1."""

_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Instructions of a filter: load a word, compare it, return a decision (linux/bpf_common.h)."""

_NUMBER_AT, _ARGUMENT_AT = 0, 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

needs_seccomp = pytest.mark.skipif(
    platform.machine() not in _NUMBERS, reason="the numbers of this machine's system calls"
)


def refusing(*calls: str) -> list[str]:
    """Return the beginning of a command line whose program is refused these calls."""
    return [sys.executable, "-m", __name__, *calls, "--"]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value)


def _rule(call: str) -> list[bytes]:
    """Return the instructions that refuse a call, and otherwise continue behind them."""
    call, _, error = call.partition(":")
    name, _, argument = call.partition("/")
    number = (_NUMBERS[platform.machine()] | _SAME_NUMBERS)[name]
    refuse = [_instruction(_RETURN, _ERRNO | getattr(errno, error))]
    if argument:
        compare = _instruction(_IF_EQUAL, int(argument), 0, 1)
        refuse = [_instruction(_LOAD, _ARGUMENT_AT), compare, *refuse]
    load = _instruction(_LOAD, _NUMBER_AT)
    return [load, _instruction(_IF_EQUAL, number, 0, len(refuse)), *refuse]


def install(calls: list[str]) -> None:
    """Have the kernel refuse these calls to this process and its future children."""
    program = b"".join([part for call in calls for part in _rule(call)])
    program += _instruction(_RETURN, _ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if os.geteuid():
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Refuse the calls before `--` to the program behind it."""
    at = sys.argv.index("--")
    command = sys.argv[at + 1 :]
    install(sys.argv[1:at])
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
