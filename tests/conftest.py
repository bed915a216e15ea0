"""What the tests share: daemons that are ended with the test, whatever became of it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING, Protocol

import pytest

import tetrad
from daemons import Daemon

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator


# A shell that starts the tests in the background has SIGINT ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


_FIGURES = pytest.StashKey[list[str]]()


class Figure(Protocol):
    """Takes note of what a test has measured, to be shown when all tests are over."""

    def __call__(self, text: str) -> None:
        """Take note of it."""
        ...


def pytest_configure(config: pytest.Config) -> None:
    """Begin without figures."""
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    figures = terminalreporter.config.stash[_FIGURES]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Take note of a figure, under the name of the test."""

    def add(text: str) -> None:
        request.config.stash[_FIGURES].append(f"{request.node.name}: {text}")

    return add


class MakeDaemon(Protocol):
    """Makes a daemon with some settings, in a folder of its own or in one that is given."""

    def __call__(self, *, folder: str = "", **settings: object) -> Daemon:
        """Make it."""
        ...


@pytest.fixture
def prepared(tmp_path: pathlib.Path) -> Iterator[MakeDaemon]:
    """Make daemons that are not started yet; they are ended with the test."""
    made: list[Daemon] = []

    def make(*, folder: str = "", **settings: object) -> Daemon:
        if not folder:
            folder = str(tmp_path / f"daemon{len(made)}")
            os.mkdir(folder)
        made.append(Daemon(folder, settings))
        return made[-1]

    yield make
    problems = [problem for daemon in made if (problem := _problem_of(daemon.finish))]
    assert not problems, problems


@pytest.fixture
def daemon(prepared: MakeDaemon) -> MakeDaemon:
    """Make daemons, and start them."""

    def start(*, folder: str = "", **settings: object) -> Daemon:
        return prepared(folder=folder, **settings).start()

    return start


@pytest.fixture(scope="session")
def public_folder() -> Iterator[str]:
    """Return a folder that everybody can look into; it goes when all daemons have gone."""
    folder = tempfile.mkdtemp(prefix="tetrad-test-")
    os.chmod(folder, 0o755)  # noqa: S103 - to be looked into by everybody
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nobodys_folder(public_folder: str) -> str:
    """Return a folder of the user nobody; only root can give one away."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    if not all(map(_nobody_can_read, (os.__file__, tetrad.__file__))):
        pytest.skip("nobody cannot read this Python or tetrad: install both where everybody can")
    folder = tempfile.mkdtemp(dir=public_folder)
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    os.chmod(folder, 0o755)  # noqa: S103 - to be looked into by everybody
    return folder


def _nobody_can_read(path: str) -> bool:
    command = ["/bin/sh", "-c", 'test -r "$1"', "sh", path]
    return not subprocess.run(command, user="nobody", extra_groups=[], check=False).returncode


def _problem_of(finish: Callable[[], None]) -> str:
    """Return what went wrong: one daemon's trouble must not save the next."""
    try:
        finish()
    except AssertionError as error:
        return str(error)
    return ""
