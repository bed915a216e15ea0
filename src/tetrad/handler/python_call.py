"""Functions that answer commands: imported by name, called, and errors described in one line.

Used in a process that was forked for one call, and by the function check of the configuration
(`tetrad.helpers.function_check`); never in the master or a handler.
"""

from __future__ import annotations

import os
import sys

import tetrad
from tetrad.system import timezone
from tetrad.system.text import describe_error, traceback_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tetrad.extension import Context

_MAX_MESSAGE = 200
_INTERNAL = (os.path.join(tetrad.__path__[0], ""), "<frozen")
"""File names of stack frames that are of no use to the author of a function begin like this."""


class NotFoundError(Exception):
    """There is no such module or function; the text names it."""


def find(name: str) -> Callable[..., Any]:
    """Import and return the function `package.module:function`.

    Raises NotFoundError, or whatever the module raises.
    """
    module, _, path = name.partition(":")
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(f"no module named {error.name}") from None
    found: Any = sys.modules[module]
    for part in path.split("."):
        if not hasattr(found, part):
            raise NotFoundError(f"module {module} has no attribute {path}")
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def call(name: str, context: Context) -> bytes:
    """Call a function and return its answer. Raises TypeError, or whatever the function raises."""
    timezone.follow_machine()
    answer = find(name)(context)
    if isinstance(answer, str):
        return answer.encode()
    if isinstance(answer, bytes | bytearray | memoryview):
        return bytes(answer)
    raise TypeError(f"{name} returned {type(answer).__name__}, not bytes or str")


def describe(error: BaseException) -> str:
    """Return an exception and the last line outside of Python and tetrad that it passed.

    For example `ValueError: too many (disks.py:17)`.
    """
    text = describe_error(error)[:_MAX_MESSAGE]
    places = [frame for frame in traceback_frames(error) if not frame[0].startswith(_INTERNAL)]
    return f"{text} ({os.path.basename(places[-1][0])}:{places[-1][1]})" if places else text
