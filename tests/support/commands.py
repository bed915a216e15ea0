"""Runs tetrad commands in the process of the test: milliseconds instead of the start of a Python.

What a terminal, a signal, a user or a locale has to do with a command needs a process of its own:
`Daemon.tetrad`.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from tests.support.daemons import about_this_daemon
from tests.support.processes import Ran, assert_no_traceback
from tetrad import cli

if TYPE_CHECKING:
    from tests.support.daemons import Daemon


def run_here(daemon: Daemon, *arguments: str) -> Ran:
    """Run a tetrad command with a daemon's file and environment, as `Daemon.tetrad` does."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="")
        for _ in range(2)
    )
    with (
        mock.patch.dict(os.environ, daemon.environment, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main([*arguments, "-c", daemon.file])
    assert isinstance(ended.value.code, int)
    message = _text_of(err)
    assert_no_traceback(message)
    return Ran(ended.value.code, _text_of(out), about_this_daemon(message))


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
