"""Checks the programs that commands name, when the configuration is read.

A program can disappear afterwards: then the command fails, and the log has the reason.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are searched, and the PATH in their environment."""

LANG = "C.UTF-8"
"""The LANG in the environment of programs, unless the command sets another."""

_HEAD_BYTES = 4096
_ELF = b"\x7fELF"
_PT_INTERP = 3


def find_program(name: str, path: str) -> str:
    """Return the absolute path of a program, searched in `path` if the name has no slash.

    Raises ValueError.
    """
    if os.sep not in name:
        found = shutil.which(name, path=path) if name else None
        if found is None or not os.path.isabs(found):
            raise ValueError(f"no program {name!r} in {path}")
        _check_executable(found)
        return found
    if not os.path.isabs(name):
        raise ValueError(f"{name!r}: write an absolute path, or a name without / to search in PATH")
    _check_executable(name)
    return str(name)  # an Argument would not be plain data in the runtime configuration


def is_setuid(path: str) -> bool:
    """Tell whether a program has the setuid or setgid bit, which no program of the daemon gets."""
    return bool(os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID))


def _check_executable(path: str) -> None:
    """Check that the kernel can execute a file. Raises ValueError."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"{path} is a link to {os.readlink(path)}, which does not exist")
    if not os.path.isfile(path):
        raise ValueError(f"no such program: {path}")
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        raise ValueError(f"{path} is on a file system that is mounted noexec")
    if not os.access(path, os.X_OK):
        raise ValueError(f"{path} is not executable; run chmod +x {path}")
    try:
        with open(path, "rb") as file:
            interpreter = _interpreter(path, file.read(_HEAD_BYTES))
    except OSError:
        return  # it may be executable, but not readable
    if interpreter is not None and not os.path.isfile(interpreter):
        raise ValueError(f"{path}: its interpreter {interpreter} does not exist")
    if interpreter is not None and not os.access(interpreter, os.X_OK):
        raise ValueError(f"{path}: its interpreter {interpreter} is not executable")


def _interpreter(path: str, head: bytes) -> str | None:
    """Return the interpreter that a script or a program names; None if it names none.

    Raises ValueError for a text that names none.
    """
    if head.startswith(_ELF):
        return _elf_interpreter(head)
    if not head.startswith(b"#!"):
        if b"\0" in head:
            return None  # binfmt_misc may know it
        raise ValueError(f"{path} names no interpreter: begin it with a line such as #!/bin/sh")
    line = head[2:].partition(b"\n")[0]
    if line.endswith(b"\r"):
        name = os.fsdecode(line.strip())
        raise ValueError(
            f"{path}: the line of its interpreter {name} ends with a carriage return (CRLF);"
            f" sed -i 's/\\r$//' {path} removes it"
        )
    words = line.split()
    if not words:
        raise ValueError(f"{path} names no interpreter behind #!")
    return os.fsdecode(words[0])


def _elf_interpreter(head: bytes) -> str | None:
    """Return the dynamic linker of a 64-bit program in this machine's byte order."""
    if head[4:5] != b"\x02":
        return None
    (start,) = struct.unpack_from("@Q", head, 32)
    size, count = struct.unpack_from("@HH", head, 54)
    for at in range(start, start + size * count, size):
        if at + size > len(head):
            return None
        kind, _, offset, _, _, length = struct.unpack_from("@IIQQQQ", head, at)
        if kind == _PT_INTERP:
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0")) or None
    return None
