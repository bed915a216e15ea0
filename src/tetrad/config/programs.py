"""Programs and functions that an operator names as commands: found, or refused with the way out.

Used where the configuration is read. What is found now may be gone when a client asks for it: then
the command fails, and the log says why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Self

from tetrad.system import exec_commands

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, and what they get as PATH."""

LANG = "C.UTF-8"
"""The language that programs speak, unless their commands say otherwise."""

OWN_VARIABLES = "TETRAD_"
"""What the names of the variables begin with by which tetrad tells a program of its client."""

IMPORT_SECONDS = 20.0
"""How long the module of a function may take to be imported."""

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class Argument(str):
    """A word of a command line, or the value of a variable; a number is put in quotes."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a text, which may be empty."""
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("expected a text (a number is put in quotes)")
        return cls(value)


class Variable(str):
    """The name of an environment variable, such as LC_ALL."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name that is not one of tetrad's own."""
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            raise ValueError("expected the name of a variable such as LC_ALL")
        if value.startswith(OWN_VARIABLES):
            raise ValueError(f"names that begin with {OWN_VARIABLES} are tetrad's own")
        return cls(value)


class Function(str):
    """A function of Python as package.module:function, which can be called with one argument."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a name, and have a process of its own look whether it leads to a function."""
        if not isinstance(value, str) or not _FUNCTION.fullmatch(value):
            raise ValueError("expected a function as package.module:function")
        problem = _problem_of(value)
        if problem:
            raise ValueError(problem)
        return cls(value)


def find(program: str, path: str) -> str:
    """Return where a program is: a path, or what a name leads to. Raises ValueError."""
    if os.sep not in program:
        found = shutil.which(program, path=path) if program else None
        if found is None or not os.path.isabs(found):
            raise ValueError(f"there is no program {program!r} in {path}")
        return found
    if not os.path.isabs(program):
        raise ValueError(f"{program!r} is neither an absolute path nor a name to be found in PATH")
    if not os.path.isfile(program):
        raise ValueError(f"there is no program {program}")
    if not os.access(program, os.X_OK):
        raise ValueError(f"{program} is not executable; chmod +x makes it so")
    return str(program)


def _problem_of(function: str) -> str:
    """Return why a function cannot be called; nothing if it can."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of ours
            exec_commands.command("helpers.function_check", function),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{function} could not be imported within {IMPORT_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    said = done.stdout.decode("utf-8", "replace").strip()
    return said or f"the interpreter ended while it imported {function}"
