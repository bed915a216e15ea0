"""Functions that answer commands: found by their names, called, and their failures told in a line.

Runs in a process that was forked for this one call, and in the inspector; never in the master.
"""

from __future__ import annotations

import os
import sys

import tetrad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from tetrad.extension import Context

_LONGEST_MESSAGE = 200
_OURS = os.path.join(tetrad.__path__[0], "")


class NotFoundError(Exception):
    """There is no such function; the text says so."""


def find(name: str) -> Callable[..., Any]:
    """Return what `package.module:function` leads to.

    Raises NotFoundError, or whatever the module raises.
    """
    module, _, path = name.partition(":")
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(f"there is no module {error.name}") from None
    found: Any = sys.modules[module]
    for part in path.split("."):
        if not hasattr(found, part):
            raise NotFoundError(f"module {module} has no {path}")
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def call(name: str, context: Context) -> bytes:
    """Call a function, and return its answer. Raises TypeError, or whatever it raises."""
    answer = find(name)(context)
    if isinstance(answer, str):
        return answer.encode()
    if isinstance(answer, bytes | bytearray | memoryview):
        return bytes(answer)
    raise TypeError(f"{name} returned {type(answer).__name__}, not bytes or str")


def describe(error: BaseException) -> str:
    """Say in a line what was raised, and where: `ValueError: too many (disks.py:17)`."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    line = " ".join(text.split())[:_LONGEST_MESSAGE]
    place = _place(error.__traceback__)
    return f"{line} ({place})" if place else line


def _place(trace: TracebackType | None) -> str:
    """Return the innermost file and line of a traceback that is neither Python's own nor ours."""
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, "<frozen")):
            place = f"{os.path.basename(file)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
