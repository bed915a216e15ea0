"""Answers of the configuration reader: whatever they are, a reload is applied whole or refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.daemons import Daemon
from tests.support.installations import Installation
from tests.support.processes import until
from tetrad import __version__

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

READ = '    return {"config": config, "problems": [problem.text for problem in problems]}\n'
"""The line of the configuration reader that returns a valid configuration."""

NEW = {"limits": {"clients": 7}, "commands": {"new!": {"text": "new"}}}
"""What the changed file has: neither may be in effect after a reload that is refused."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Start a daemon whose configuration reader changes its answer by `answer.py`, if it exists."""
    folder = str(tmp_path_factory.mktemp("answers"))
    installed = Installation(folder)
    hook = (
        "    scope = {'os': os, 'answer': {'config': config, 'problems': []}}\n"
        f"    if os.path.exists({folder + '/answer.py'!r}):\n"
        f"        exec(open({folder + '/answer.py'!r}).read(), scope)\n"
        "    return scope['answer']\n"
    )
    installed.publish(("helpers/config_reader.py", READ, hook))
    daemon = Daemon(folder, {})
    daemon.environment |= installed.environment
    yield daemon.start()
    daemon.finish()


def assert_refused(served: Daemon, *words: str) -> None:
    """Check that a reload fails with these words, and that nothing of the file is in effect."""
    before = served.status()
    served.configure(**NEW)
    ran = served.tetrad("reload")
    assert ran.status == 1, ran
    assert all(word in ran.err for word in words), ran.err
    after = served.status()
    same = ("pid", "config", "listeners", "handlers")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert (after["clients"]["limit"], after["log"]["file"]) == (1000, served.log_file)
    client = served.connect()
    client.send_and_wait(b"new!")
    served.wait_for("client.invalid", command="new!", client=client.name)
    assert ANSWER.fullmatch(client.ask())
    client.quit()
    until(lambda: served.status()["clients"]["now"] == 0, "the end of the session")
    assert served.wait_for("server.reload_failed")


def assert_answer_is_refused(served: Daemon, code: str, *words: str) -> None:
    """Change the reader's answer by this code, and check that a reload is refused."""
    file = os.path.join(served.folder, "answer.py")
    with open(file, "w", encoding="utf-8") as out:
        out.write(code)
    assert_refused(served, *words)
    os.unlink(file)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("del answer['config']", "KeyError('config')"),
        ("del answer['problems']", "KeyError('problems')"),
        ("answer = {}", "KeyError('config')"),
        ("answer['config'] = 7", "AttributeError"),
        ("answer['problems'] = None", "TypeError"),
        ("del answer['config']['limits']", "'limits'"),
        ("del answer['config']['file']", "'file'"),
        ("answer['config']['more'] = 1", "'more'"),
        ("del answer['config']['session']['send_timeout']", "'send_timeout'"),
        ("del answer['config']['log']['file']", "'file'"),
        ("answer['config']['log']['level'] = 'loud'", "'loud'"),
        ("del answer['config']['listeners'][0]['name']", "'name'"),
        ("answer['config']['listeners'][0]['proxy'] = {}", "'trusted'"),
        ("answer['config']['listeners'][0]['backlog'] = None", "TypeError"),
        ("answer['config']['commands']['new!'] = {'kind': 'unknown'}", "'unknown'"),
        ("answer['config']['access'] = [{}]", "KeyError"),
    ],
)
def test_a_malformed_answer_is_refused(served: Daemon, code: str, word: str) -> None:
    """Nothing of it is applied, and the daemon serves."""
    invalid = "not reloaded; the configuration reader's answer is invalid"
    assert_answer_is_refused(served, code, invalid, word)


def test_a_new_listener_of_a_malformed_answer_is_closed(served: Daemon) -> None:
    """Its socket file is removed too."""
    served.configure(listen=[{"port": 0}, {"address": "unix:new.sock"}])
    assert_answer_is_refused(served, "answer['config']['access'] = [{}]", "KeyError")
    assert not os.path.exists(os.path.join(served.folder, "new.sock"))
    served.configure(listen=[{"port": 0}])


@pytest.mark.parametrize(
    "code",
    [
        "os.write(3, b'nonsense'); os._exit(0)",
        "os.write(3, bytes(range(256)) * 999); os._exit(0)",
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_a_reader_without_an_answer_is_reported(served: Daemon, code: str) -> None:
    """It exits, or writes bytes that are no answer."""
    assert_answer_is_refused(served, code, "not reloaded; the configuration reader")


@pytest.mark.parametrize("errors", ["'one'", "None", "[1, b'2']", "{}"])
def test_errors_of_any_type_are_reported(served: Daemon, errors: str) -> None:
    """They are texts in the log and in the answer to the command."""
    assert_answer_is_refused(served, f"answer = {{'errors': {errors}}}", "not reloaded")


def test_the_right_answer_is_applied_afterwards(served: Daemon) -> None:
    """The refused ones have left nothing behind."""
    served.configure(**NEW)
    assert served.tetrad("reload").status == 0
    assert served.status()["clients"]["limit"] == 7
    client = served.connect()
    client.send(b"new!")
    assert client.read(3) == b"new"


# The version is that of the code


def test_other_code_of_the_same_version_is_refused(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """A reload names `tetrad upgrade`, which then applies the file."""
    installed = Installation(str(tmp_path))
    served = prepared()
    served.environment |= installed.environment
    served.start()
    installed.replace("config/section.py", lambda text: text + "\n# Another build.\n")
    assert_refused(
        served, f"other code of version {__version__} is installed", "tetrad upgrade switches to it"
    )
    assert served.tetrad("upgrade").status == 0
    assert served.status()["clients"]["limit"] == 7
    assert served.tetrad("reload").status == 0


def test_the_same_code_installed_again_is_not_another_version(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The contents of the files count, not their times."""
    installed = Installation(str(tmp_path))
    served = prepared()
    served.environment |= installed.environment
    served.start()
    installed.replace("config/section.py", lambda text: text)
    assert served.tetrad("reload").status == 0
