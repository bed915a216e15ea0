"""Functions that answer commands: found by their names, called, and their failures told in a line.

Runs in a process that was forked for this one call, and in the inspector; never in the master.
"""

from __future__ import annotations

import os
import sys

import tetrad
from tetrad.system.text import describe_error, traceback_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tetrad.extension import Context

_LONGEST_MESSAGE = 200
_FOREIGN = (os.path.join(tetrad.__path__[0], ""), "<frozen")
"""How the file names of frames begin that are of no use to the author of a function."""


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
    """Return what was raised, and the last place outside of Python and tetrad, in one line.

    For example `ValueError: too many (disks.py:17)`.
    """
    text = describe_error(error)[:_LONGEST_MESSAGE]
    places = [frame for frame in traceback_frames(error) if not frame[0].startswith(_FOREIGN)]
    return f"{text} ({os.path.basename(places[-1][0])}:{places[-1][1]})" if places else text
