"""Fixtures shared by all tests; daemons end with their test, whether it passes or fails."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import Daemon
from tests.support.parallel import Scheduling, Turns
from tests.support.project import ROOT
from tests.support.readable_python import nobody_can_run_python, share_python
from tests.support.tls_certificates import Certificates

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

    from tests.support.fixtures import Figure, MakeDaemon


# A shell that starts the tests in the background ignores SIGINT, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiled files are used again, as in an installation: each test starts Python several times.
# Output is buffered, as for operators.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("PYTHONUNBUFFERED", None)
sys.dont_write_bytecode = False


_FIGURES = pytest.StashKey[list[str]]()
_LEFT_OUT = pytest.StashKey[int]()
_FIRST_SET = pytest.StashKey[bool]()
_TURNS = pytest.StashKey[Turns]()

FOLDERS = ("systemd", "fleet", "damage", "hostile", "daemon", "project", "integration", "unit")
"""The folders of tests in the order in which parallel workers begin them: the slow ones first."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Select the first set for `pytest` alone; long tests only run where `-m` names them."""
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    first_set = not (named or config.option.markexpr or config.option.keyword)
    config.stash[_FIRST_SET] = first_set
    config.option.markexpr = config.option.markexpr or "not long"
    if first_set:
        config.option.markexpr = "quick and not long"
        # A parallel worker has the same command line, and must not start workers.
        if config.option.numprocesses is None and not (_is_worker(config) or config.option.usepdb):
            config.option.numprocesses = min(2, os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what tests share, before there are parallel workers."""
    config.stash[_FIGURES] = []
    config.stash[_LEFT_OUT] = 0
    if not _is_worker(config):
        share_python()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the unit tests as quick; sort the tests for parallel workers."""
    for item in items:
        if _folder_of(item) == "unit":
            item.add_marker(pytest.mark.quick)
    if _is_worker(config):
        items.sort(key=lambda item: FOLDERS.index(_folder_of(item)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Distribute the tests over parallel workers."""
    return Scheduling(config, log)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that are left out."""
    for item in items:
        item.config.stash[_LEFT_OUT] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report to the process that prints the summary."""
    if _is_worker(session.config):
        output: dict[str, object] = session.config.workeroutput  # type: ignore[attr-defined]
        output["figures"] = session.config.stash[_FIGURES]
        output["left_out"] = session.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take the report of a parallel worker; each of them has collected all tests."""
    output = getattr(node, "workeroutput", {})
    stash = node.config.stash
    stash[_FIGURES] += output.get("figures", [])
    stash[_LEFT_OUT] = max(stash[_LEFT_OUT], output.get("left_out", 0))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked `alone` run beside no other; the timeout begins with its turn."""
    if not _is_worker(item.config):
        return (yield)
    with item.config.stash[_TURNS].turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Open the locks by which parallel workers take turns, in the folder that they share."""
    if _is_worker(session.config):
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
        session.config.stash[_TURNS] = Turns(str(factory.getbasetemp().parent))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measured values, and how to run the tests that were left out."""
    config = terminalreporter.config
    if figures := config.stash[_FIGURES]:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)
    left_out = config.stash[_LEFT_OUT]
    if left_out and config.stash[_FIRST_SET]:
        command = f"{os.path.relpath(sys.argv[0])} -n 4 tests"
        terminalreporter.section("left out")
        terminalreporter.write_line(f"{left_out} tests; to run all but the longest: {command}")


def _is_worker(config: pytest.Config) -> bool:
    """Tell whether this is one of several processes that run tests in parallel."""
    return hasattr(config, "workerinput")


def _folder_of(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


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
def pki(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Create certificates once for all tests. Needs openssl."""
    return Certificates(str(tmp_path_factory.mktemp("pki")))


@pytest.fixture(scope="session")
def public_folder() -> Iterator[str]:
    """Return a folder that all users can read. It is removed after all tests."""
    folder = tempfile.mkdtemp(prefix="tetrad-test-")
    os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_nobodys_folder(public_folder: str) -> Callable[[], str]:
    """Return a function that makes a folder owned by the user nobody. Needs root."""
    if os.geteuid():
        pytest.skip("only root can become another user: run the tests as root")
    if not nobody_can_run_python():
        pytest.skip(
            f"the user nobody cannot execute {sys.executable}: use a Python that all can read"
        )

    def make() -> str:
        folder = tempfile.mkdtemp(dir=public_folder)
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
        os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
        return folder

    return make


@pytest.fixture
def nobodys_folder(make_nobodys_folder: Callable[[], str]) -> str:
    """Return a folder owned by the user nobody, for this test. Needs root."""
    return make_nobodys_folder()


@pytest.fixture(scope="module")
def shared_nobodys_folder(make_nobodys_folder: Callable[[], str]) -> str:
    """Return a folder owned by the user nobody, for the tests of a module. Needs root."""
    return make_nobodys_folder()


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
