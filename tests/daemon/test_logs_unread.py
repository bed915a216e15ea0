"""`tetrad logs` beside files that it does not read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run_here
from tests.support.written_logs import line, write

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon


def test_one_warning_names_the_files_that_are_not_read(prepared: MakeDaemon) -> None:
    """By the reason; their names and their content do nothing to a terminal."""
    asked = prepared()
    log = asked.log_file
    write(log, line(9))
    for name in ("pos", "txt", "\x1b[2J"):
        write(f"{log}.{name}", b"inode 7", b"\x1b[2J", age=1)
    os.mkfifo(f"{log}.2")
    ran = run_here(asked, "logs")
    assert ran.status == 0
    assert "number=9" in ran.out
    name = os.path.basename(log)
    others = [rf"{name}.\x1b[2J", f"{name}.pos", f"{name}.txt"]
    prefix, pipe = "tetrad: warning: not read: ", f"{name}.2 (not a regular file)"
    assert ran.err == f"{prefix}{pipe}; {', '.join(others)} (no events of tetrad)\n"


@pytest.mark.parametrize("file", ["/dev/null", "pipe"])
@pytest.mark.parametrize("options", [(), ("-f",)], ids=["once", "following"])
def test_a_log_that_cannot_be_read_back_is_named(
    prepared: MakeDaemon, file: str, options: tuple[str, ...]
) -> None:
    """A device, or a named pipe, whose lines another program has read."""
    asked = prepared(log={"file": file})
    path = os.path.join(asked.folder, file)
    if file == "pipe":
        os.mkfifo(path)
    ran = run_here(asked, "logs", *options)
    assert (ran.status, ran.out, ran.err) == (1, "", f"tetrad: {path}: not a regular file\n")
