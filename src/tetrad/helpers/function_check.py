"""The function check: a helper that imports a Python function, to tell whether it can be called.

It is a process of its own, because an import can do anything, and it imports from the same
directories as a handler. Exit status 0, or 1 with the reason on standard output.
"""

from __future__ import annotations

import inspect
import os
import sys

from tetrad.handler import python_call


def main() -> None:
    """Check the function that the argument names."""
    # What the module prints goes to standard error, not into the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    problem = problem_of(sys.argv[1])
    os.write(answer, problem.encode("utf-8", "backslashreplace"))
    os._exit(1 if problem else 0)  # without waiting for threads of the module


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
