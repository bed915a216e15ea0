"""Checks the Python functions that commands call, before a daemon uses the configuration.

Other processes import the modules (`tetrad.helpers.function_check`), because an import can do
anything: one process for each module, all at the same time, as the user who will serve. Only what
starts or reloads a daemon does this, and `tetrad check`; other commands import nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import time
from typing import TYPE_CHECKING

from tetrad.config.command_model import Call
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import environment, privileges
from tetrad.system import exec_commands
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tetrad.config.result import ConfigResult
    from tetrad.launch.privileges import Identity

IMPORT_TIMEOUT_SECONDS = 20.0
"""How long importing the modules may take, all together."""

_NO_MODULE = "no module named "
_IMPORT_HOOK = (
    ", but an import hook of an editable install finds it, which the daemon does not use: reinstall"
    " that package without -e, or with --config-settings editable_mode=compat"
)

_READ_SECONDS = 0.1
"""How long the answer of a module is waited for at least: others may have used up the time."""


def check(
    loaded: ConfigResult,
    identity: Identity | None = None,
    starter: Mapping[str, str] | None = None,
) -> None:
    """Check that the functions of all commands can be imported and called.

    `identity` is the user who will serve, and `starter` the environment of the process that starts
    the daemon; None: those of this process. Raises ConfigError, and UserChangeError if root cannot
    become that user.
    """
    variables = environment.of_daemon(os.environ if starter is None else starter)
    functions = {
        f"commands.{name}.call": str(command.call)
        for name, command in loaded.config.commands.items()
        if isinstance(command, Call)
    }
    if functions:
        privileges.run_as(identity, lambda: None)
    try:
        found = _problems(dict.fromkeys(functions.values()), identity, variables)
    except OSError as error:  # of execve(2), or fork(2)
        text = f"{error.filename or 'fork'}: {reason_of(error)}"
        raise ConfigError([f"cannot check the functions of commands: {text}"]) from None
    problems = [
        loaded.error_at(key, found[name] + _import_hook_hint(found[name]))
        for key, name in functions.items()
        if name in found
    ]
    if problems:
        raise ConfigError(problems)


def _import_hook_hint(problem: str) -> str:
    """Return a hint if this process, which has the start-up files of site-packages, has a module.

    The daemon runs without these files, and so without the import hooks of editable installs.
    """
    _, is_missing, module = problem.partition(_NO_MODULE)
    try:
        found = is_missing and "." not in module and importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    return _IMPORT_HOOK if found else ""


def _problems(
    names: Iterable[str], identity: Identity | None, variables: Mapping[str, str]
) -> dict[str, str]:
    """Return why functions cannot be called; those that can be called are left out."""
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.partition(":")[0], []).append(name)
    deadline = time.monotonic() + IMPORT_TIMEOUT_SECONDS
    problems: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        checks = [
            (module, functions, stack.enter_context(_started(functions, identity, variables)))
            for module, functions in modules.items()
        ]
        for module, functions, process in checks:
            problems |= zip(functions, _answers(module, process, deadline), strict=False)
    return {name: problem for name, problem in problems.items() if problem}


@contextlib.contextmanager
def _started(
    functions: list[str], identity: Identity | None, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the check of the functions of one module; it ends with the block."""
    user, group = (None, None) if identity is None else identity[:2]
    process = subprocess.Popen(  # noqa: S603 - tetrad's own program
        exec_commands.command("helpers.function_check", *functions),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
        user=user,
        group=group,
        extra_groups=None if identity is None else privileges.groups_of(identity),
        start_new_session=True,  # without the caller's terminal, into which it could type
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _answers(module: str, process: subprocess.Popen[bytes], deadline: float) -> list[str]:
    """Return the problems of the functions of a module, or one problem of the module."""
    try:
        answer, _ = process.communicate(timeout=max(_READ_SECONDS, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return [f"importing {module} took longer than {IMPORT_TIMEOUT_SECONDS:.0f} s"]
    *problems, end = answer.decode("utf-8", "replace").split("\0")
    is_complete = problems and not end and not process.returncode
    return problems if is_complete else [f"the Python interpreter exited while importing {module}"]
