"""Page tables of program text, so that handlers inherit them instead of filling them anew.

A fork copies the page tables of memory that the process has written to. Those of program text it
leaves out: the child is to find the pages again, one fault after another, which for an interpreter
is a third of all that a short session costs. So one byte of each piece of text is written over
itself, once, before the first fork; from then on the kernel takes the whole piece for memory that
has been written to (vma_needs_copy in mm/memory.c).
"""

from __future__ import annotations

import os

_TEXT = (b"r-xp", b"r--p")
_PROGRAMS = (b"python", b"libc.so")


def have_text_copied() -> None:
    """Do it for the interpreter and the C library. Where the kernel does not let us, it is left."""
    try:
        memory = os.open("/proc/self/mem", os.O_RDWR)
    except OSError:
        return
    try:
        for line in _maps().splitlines():
            where, mode, _, _, _, *path = line.split()
            name = path[0].rpartition(b"/")[2] if path else b""
            if mode in _TEXT and any(program in name for program in _PROGRAMS):
                start = int(where.partition(b"-")[0], 16)
                os.pwrite(memory, os.pread(memory, 1, start), start)
    except OSError:
        pass
    finally:
        os.close(memory)


def _maps() -> bytes:
    fd = os.open("/proc/self/maps", os.O_RDONLY)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
