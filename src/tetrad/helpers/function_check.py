"""The inspector: a program that imports a function's module, and says whether it can be called.

In a process of its own, because a module may do anything when it is imported. It runs as handlers
do, so it finds what they will find. Its status is 0, or 1 with the reason on standard output.
"""

from __future__ import annotations

import inspect
import os
import sys

from tetrad.handler import python_call


def main() -> None:
    """Inspect the function that the one argument names."""
    # Whatever the module prints is not our answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    problem = problem_of(sys.argv[1])
    os.write(answer, problem.encode("utf-8", "backslashreplace"))
    os._exit(1 if problem else 0)  # its threads, if it has any, are not waited for


def problem_of(name: str) -> str:
    """Return why a function cannot be called as a command; nothing if it can."""
    try:
        function = python_call.find(name)
    except python_call.NotFoundError as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001 - whatever a module raises is its own
        return f"{name} cannot be imported: {python_call.describe(error)}"
    if not callable(function):
        return f"{name} is not a function"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return f"{name} is a coroutine or a generator; a plain function is needed"
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return f"{name} has to take one argument, the context"
    except ValueError:
        pass  # one that is not written in Python may not tell
    return ""
