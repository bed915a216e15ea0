"""Fixtures shared by all tests; daemons end with their test, whether it passes or fails."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

import tetrad
from tests.support.daemons import Daemon

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterable, Iterator

    from tests.support.fixtures import Figure, MakeDaemon


# A shell that starts the tests in the background ignores SIGINT, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Create the empty list of measured values."""
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measured values."""
    figures = terminalreporter.config.stash[_FIGURES]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Record a measured value under the name of the test."""

    def add(text: str) -> None:
        request.config.stash[_FIGURES].append(f"{request.node.name}: {text}")

    return add


@pytest.fixture
def prepared(tmp_path: pathlib.Path) -> Iterator[MakeDaemon]:
    """Create daemons without starting them. They are stopped when the test ends."""
    made: list[Daemon] = []

    def make(*, folder: str = "", **settings: object) -> Daemon:
        if not folder:
            folder = str(tmp_path / f"daemon{len(made)}")
            os.mkdir(folder)
        made.append(Daemon(folder, settings))
        return made[-1]

    yield make
    _finish_all(made)


@pytest.fixture
def daemon(prepared: MakeDaemon) -> MakeDaemon:
    """Create and start daemons."""

    def start(*, folder: str = "", **settings: object) -> Daemon:
        return prepared(folder=folder, **settings).start()

    return start


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeDaemon]:
    """Start daemons that the tests of a module share: one for each different settings.

    A test gets it without sessions, and sees only the events that its own sessions log. It must
    leave the daemon as it was.
    """
    made: dict[str, Daemon] = {}

    def get(*, folder: str = "", **settings: object) -> Daemon:
        assert not folder, "a daemon in a folder of the test's own cannot be shared"
        key = repr(settings)
        if key in made:
            made[key].hand_over()
        else:
            made[key] = Daemon(str(tmp_path_factory.mktemp("shared")), settings).start()
        return made[key]

    yield get
    _finish_all(made.values())


@pytest.fixture(scope="session")
def public_folder() -> Iterator[str]:
    """Return a folder that all users can read. It is removed after all tests."""
    folder = tempfile.mkdtemp(prefix="tetrad-test-")
    os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nobodys_folder(public_folder: str) -> str:
    """Return a folder owned by the user nobody. Needs root."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    if not all(map(_nobody_can_read, (os.__file__, tetrad.__file__))):
        pytest.skip("the user nobody cannot read this Python or tetrad: make both world-readable")
    folder = tempfile.mkdtemp(dir=public_folder)
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
    return folder


def _nobody_can_read(path: str) -> bool:
    command = ["/bin/sh", "-c", 'test -r "$1"', "sh", path]
    return not subprocess.run(command, user="nobody", extra_groups=[], check=False).returncode


def _finish_all(daemons: Iterable[Daemon]) -> None:
    """Stop daemons, each also if another one has failed its checks."""
    problems = [problem for daemon in daemons if (problem := _problem_of(daemon.finish))]
    assert not problems, problems


def _problem_of(finish: Callable[[], None]) -> str:
    """Return the assertion message of `finish`, so that the next daemon is still stopped."""
    try:
        finish()
    except AssertionError as error:
        return str(error)
    return ""
