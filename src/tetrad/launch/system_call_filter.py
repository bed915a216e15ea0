"""The system call filter (seccomp(2)): calls that the daemon does not need, and an intruder might.

The launcher sets it, and the kernel keeps it for the master, its children and all programs, over
fork and exec. It refuses what reaches into other processes of the user, and what a service never
uses but attacks on the kernel do. All else is allowed: programs are the operator's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple


class _Machine(NamedTuple):
    """The number of an architecture (linux/audit.h), and its column in _NUMBERS."""

    architecture: int
    column: int
    seccomp: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, seccomp=317),
    "aarch64": _Machine(0xC00000B7, 1, seccomp=277),
}

_NUMBERS = {
    # Memory and descriptors of other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # Parts of the kernel that a service does not use
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The kernel itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    # Mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "setns": (308, 268),
}
"""The refused calls, with their numbers on x86_64 and on aarch64."""

_WITH_FLAGS = {"clone": (56, 220), "unshare": (272, 97)}
"""Refused if their first argument has CLONE_NEWUSER: in a user namespace all users are root."""

_CLONE3 = 435
"""Its flags are in memory, where a filter cannot look. C libraries use clone(2) if it is absent."""

_CLONE_NEWUSER = 0x10000000

_X32 = 0x40000000
"""The bit in the numbers of another ABI of x86_64, which few kernels have."""

_LOAD, _IF_EQUAL, _IF_NOT_LESS, _IF_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions: load a word, compare, jump, return a decision (linux/bpf_common.h)."""

_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
"""Where a call's number and so on are in a struct seccomp_data."""

_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

_SET_MODE_FILTER = 1

_FLAG_SPEC_ALLOW = 4
"""Before Linux 5.16 a filter without this flag slows the whole process down (Spectre V4)."""


def refused_numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that are refused, whatever their arguments, on a machine."""
    column = _MACHINES[machine].column
    return {name: numbers[column] for name, numbers in _NUMBERS.items()}


def install() -> str:
    """Have the kernel refuse the calls from now on; return why it does not, or an empty text.

    This process must have no_new_privs.
    """
    name = platform.machine()
    machine = _MACHINES.get(name)
    if machine is None:
        return f"no filter for the architecture {name}"
    code = program(name)
    memory = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(machine.seccomp, _SET_MODE_FILTER, _FLAG_SPEC_ALLOW, header):
        return f"seccomp(2): {os.strerror(ctypes.get_errno()).lower()}"
    return ""


def program(name: str) -> bytes:
    """Return the filter for an architecture.

    A call of another architecture has other numbers: 32-bit programs are killed by SIGSYS.
    """
    machine = _MACHINES[name]
    refuse, allow = [_instruction(_RETURN, _ERRNO | errno.EPERM)], _instruction(_RETURN, _ALLOW)
    rules = [
        *_if_equal(_CLONE3, [_instruction(_RETURN, _ERRNO | errno.ENOSYS)]),
        *(part for number in refused_numbers(name).values() for part in _if_equal(number, refuse)),
    ]
    has_flag = _instruction(_IF_BIT, _CLONE_NEWUSER, 0, 1)
    check_flags = [_instruction(_LOAD, _FIRST_ARGUMENT_AT), has_flag, *refuse, allow]
    for numbers in _WITH_FLAGS.values():
        rules += _if_equal(numbers[machine.column], check_flags)
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE_AT),
            _instruction(_IF_EQUAL, machine.architecture, 1, 0),
            _instruction(_RETURN, _KILL_PROCESS),
            _instruction(_LOAD, _NUMBER_AT),
            _instruction(_IF_NOT_LESS, _X32, 0, 1),
            _instruction(_RETURN, _ERRNO | errno.ENOSYS),
            *rules,
            allow,
        ]
    )


def _if_equal(number: int, instructions: list[bytes]) -> list[bytes]:
    """Return instructions for one call; all others continue behind them."""
    return [_instruction(_IF_EQUAL, number, 0, len(instructions)), *instructions]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value)
