"""What /proc shows of a process before and after its first title."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from tetrad.system.proctitle import ProcessTitle
title = ProcessTitle()
for text in sys.stdin.buffer:
    title.show(text.strip()) if text.strip() else None
    print(flush=True)
"""


def test_the_arguments_are_shown_until_the_first_title() -> None:
    """A process without a title is still known by its arguments; later titles replace the first."""
    command = [sys.executable, "-c", PROGRAM, "an argument", "x" * 100]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        shown = [_ask(process, title) for title in (b"", b"master a", b"", b"master of b")]
        process.communicate()
    arguments = b"\0".join(part.encode() for part in command) + b"\0"
    titles = [b"tetrad: master a", b"tetrad: master a", b"tetrad: master of b"]
    assert [shown[0], *(one.rstrip(b"\0") for one in shown[1:])] == [arguments, *titles]


def _ask(process: subprocess.Popen[bytes], title: bytes) -> bytes:
    """Let the process show a title, if it is not empty; return what /proc shows then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(title + b"\n")
    process.stdin.flush()
    process.stdout.readline()
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        return file.read()
