"""Exceptions as one line of text, for the log and for answers between processes."""

from __future__ import annotations

import os


def frames(error: BaseException) -> list[tuple[str, int]]:
    """Return the file and line of each frame of a traceback, the outermost call first."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        found.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return found


def describe(error: BaseException) -> str:
    """Return the type and the message of an exception in one line: `ValueError: too many`."""
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.rstrip(": ").split())


def call_path(error: BaseException) -> str:
    """Return where an exception was raised: `process.py:12 > reload.py:40`, outermost first."""
    return " > ".join(f"{os.path.basename(file)}:{line}" for file, line in frames(error))
