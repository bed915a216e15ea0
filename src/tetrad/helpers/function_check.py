"""The function check: a helper that imports a module, to tell whether its functions can be called.

It is a process of its own, because an import can do anything, and it imports from the same
directories as a handler. It writes what is wrong to standard output, for each function that an
argument names: a text, empty if the function can be called, and a null byte.
"""

from __future__ import annotations

import inspect
import os
import sys

from tetrad.handler import python_call


def main() -> None:
    """Check the functions that the arguments name."""
    # What the module prints goes to standard error, not into the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    problems = [f"{problem_of(name)}\0" for name in sys.argv[1:]]
    with open(answer, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(problems))
    os._exit(0)  # without waiting for threads of the module


def problem_of(name: str) -> str:
    """Return why a function cannot be called as a command; an empty text if it can."""
    try:
        function = python_call.find(name)
    except python_call.NotFoundError as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001 - an import can raise anything
        return f"{name} cannot be imported: {python_call.describe(error)}"
    if not callable(function):
        return f"{name} is not a function"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return f"{name} is a coroutine or generator function; use a plain function"
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return f"{name} must take one argument, the context"
    except ValueError:
        pass  # functions written in C may have no signature
    return ""
