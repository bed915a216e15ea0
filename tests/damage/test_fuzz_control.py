"""Nonsense at the control socket: said to the daemon, and said by somebody in its place."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from processes import PATIENCE_SECONDS, descriptors_of, until

from .fuzzing import misshapen, patience, seeded, spoilt, tetrad

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

REQUESTS = (
    [b"status\n"] * 6 + [b"source 192.0.2.1\n", b"source ::ffff:1.2.3.4\n"] * 6 + [b"reload\n"]
)
MIXTURE = [b"status\nreload\nsource ::1%lo\n", b"source " + b"1" * 100]

COMMANDS = (
    (("status",), {0, 4}),
    (("status", "--json"), {0, 4}),
    (("status", "--format", "openmetrics"), {0, 4}),
    (("status", "--clients"), {0, 4}),
    (("explain", "192.0.2.1"), {0, 1, 4}),
    (("reload",), {0, 1, 78}),
)
"""What asks a daemon, and the exit statuses that it may then have."""

HOLD_LOCK = """\
import sys
from tetrad import pidfile
with pidfile.turn_to_start(sys.argv[1]) as fd:
    pidfile.take(fd)
    print("held", flush=True)
    sys.stdin.read()
"""


def say(daemon: Daemon, message: bytes) -> bytes:
    """Send a message, and return the answer; none from a daemon that has had enough of it."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE_SECONDS)
        peer.connect(os.path.join(daemon.folder, "control.sock"))
        with contextlib.suppress(ConnectionError):
            peer.sendall(message)
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(65536), b""))
    return b""


def talk_nonsense(daemon: Daemon, chance: random.Random, count: int) -> None:
    """Say so many things to a daemon, which has to go on as if nothing had been said."""
    before = descriptors_of(daemon.pid).keys()
    answered = 0
    for number in range(count):
        message = spoilt(chance, chance.choice(REQUESTS), MIXTURE)
        answer = say(daemon, message)
        answered += bool(answer)
        assert not answer or isinstance(json.loads(answer), dict), message
        assert answer.count(b"\n") == bool(answer), message
        if not number % 100:
            assert json.loads(say(daemon, b"status\n"))["pid"] == daemon.pid, message
            assert json.loads(say(daemon, b"source 192.0.2.1\n"))["access"], message
    assert answered
    assert {line["level"] for line in daemon.events()} == {"info"}
    until(lambda: descriptors_of(daemon.pid).keys() == before, "the descriptors of before")
    daemon.served().quit()


def test_a_daemon_that_is_told_nonsense_goes_on(daemon: MakeDaemon, figure: Figure) -> None:
    """Spoilt requests are answered or not; those that are none are, and nothing is left behind."""
    talk_nonsense(daemon(), seeded(figure), 500)


def test_a_request_that_is_too_long_is_not_read_to_its_end(daemon: MakeDaemon) -> None:
    """Nobody's request has more than two hundred bytes, so there is no answer to it."""
    served = daemon()
    assert say(served, b"status" + b" " * 200 + b"\n") == b""
    assert json.loads(say(served, b"status\n"))["pid"] == served.pid


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_thousand_spoilt_requests(daemon: MakeDaemon, figure: Figure) -> None:
    """Ten thousand spoilt requests change nothing."""
    talk_nonsense(daemon(), seeded(figure), 10_000)


class Impostor:
    """Somebody who holds a daemon's pidfile, and says at its control socket whatever we want."""

    def __init__(self, daemon: Daemon) -> None:
        command = [sys.executable, "-c", HOLD_LOCK, daemon.pidfile]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"held\n"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(daemon.folder, "control.sock"))
        self._listener.listen()
        self.file = daemon.file
        self.answer: Iterable[bytes] = ()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was told to end
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(ConnectionError):
                    peer.recv(100)
                    for piece in self.answer:
                        peer.sendall(piece)

    def end(self) -> None:
        """Be nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._holder.communicate()


@pytest.fixture
def impostor(prepared: MakeDaemon) -> Iterator[Impostor]:
    """Have somebody in the place of a daemon."""
    impostor = Impostor(prepared())
    yield impostor
    impostor.end()


@pytest.fixture
def answers(daemon: MakeDaemon) -> list[bytes]:
    """Return what a daemon answers who has a client, and one who stops it."""
    served = daemon(limits={"clients_per_source": 2, "rate_per_source": "9/s"})
    served.served()
    requests = (b"status\n", b"source 192.0.2.1\n", b"reload\n", b"nonsense\n")
    return [*(say(served, request) for request in requests), b'{"errors":["x"]}', b'{"changes":{}}']


def an_answer(chance: random.Random, answers: list[bytes]) -> bytes:
    """Return what a daemon might have answered, but for something."""
    answer = chance.choice(answers)
    if chance.random() < 1 / 2:
        tree: Any = json.loads(answer)
        for _ in range(chance.randint(1, 3)):
            tree = misshapen(chance, tree)
        answer = json.dumps(tree).encode()
    return answer if chance.random() < 1 / 2 else spoilt(chance, answer, answers)


@pytest.mark.parametrize(
    "count", [300, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_operators_are_not_upset_by_what_an_impostor_answers(
    answers: list[bytes],
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    figure: Figure,
    count: int,
) -> None:
    """Whatever the answer: the daemon's state or a line of complaint, and nothing worse."""
    chance = seeded(figure)
    with patience() as begin:
        for _ in range(count):
            answer = an_answer(chance, answers)
            impostor.answer = [answer]
            command, statuses = chance.choice(COMMANDS)
            begin()
            ran = tetrad(capsysbinary, *command, "-c", impostor.file)
            assert ran.status in statuses, (command, answer)
            assert all(map(str.isprintable, (ran.out + ran.err).splitlines())), (command, answer)
            assert "--json" not in command or json.loads(ran.out), answer
            assert ran.out or ran.err, (command, answer)


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS])
@pytest.mark.parametrize(
    "answer",
    [b"[" * 100_000, b'{"x":' * 100_000, b"\xff", b'"\\ud800"', b'{"error":"\\u001b[2J\\n"}'],
    ids=["lists", "mappings", "no-text", "half-a-character", "orders-to-a-terminal"],
)
def test_an_answer_that_is_none_is_a_line_of_complaint(
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    command: list[str],
    answer: bytes,
) -> None:
    """What is nested too deeply, no text, or meant for the terminal is not taken for an answer."""
    impostor.answer = [answer]
    ran = tetrad(capsysbinary, *command, "-c", impostor.file)
    assert ran.status in {1, 4}
    assert ran.err.count("\n") == 1
    assert ran.err.strip().isprintable()


def drip() -> Iterator[bytes]:
    """Answer a little, for ever."""
    while True:
        yield b" "
        time.sleep(0.05)


def flood() -> Iterator[bytes]:
    """Answer everything that there is."""
    while True:
        yield b" " * (1 << 16)


@pytest.mark.parametrize(("endless", "complaint"), [(drip, "no answer"), (flood, "too long")])
def test_an_answer_without_an_end_is_not_waited_for(
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    endless: Callable[[], Iterator[bytes]],
    complaint: str,
) -> None:
    """Neither who drips nor who floods can keep an operator for ever, or fill the memory."""
    impostor.answer = endless()
    ran = tetrad(capsysbinary, "status", "-c", impostor.file)
    assert ran.status == 4
    assert complaint in ran.err


@pytest.mark.parametrize("number", [1e300, -1e300, 1e12])
@pytest.mark.parametrize("key", ["started", "uptime", "age"])
def test_a_status_that_fits_no_calendar_is_refused(
    answers: list[bytes],
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    key: str,
    number: float,
) -> None:
    """A moment or a span that nobody could write is not one of a daemon."""
    status = json.loads(answers[0])
    (status["sessions"][0] if key == "age" else status)[key] = number
    impostor.answer = [json.dumps(status).encode()]
    for arguments in ((), ("--clients",)):
        ran = tetrad(capsysbinary, "status", *arguments, "-c", impostor.file)
        assert (ran.status, ran.out) == (4, "")
        assert "the answer cannot be read" in ran.err


@pytest.mark.parametrize("answer", [b"{}", b'{"changes":{},"errors":["x"]}'])
def test_a_reload_without_an_outcome_is_none(
    impostor: Impostor, capsysbinary: pytest.CaptureFixture[bytes], answer: bytes
) -> None:
    """An outcome is either what changed, or what was wrong."""
    impostor.answer = [answer]
    ran = tetrad(capsysbinary, "reload", "-c", impostor.file)
    assert (ran.status, ran.out) == (1, "")
    assert "expected either changes or errors" in ran.err


def test_no_answer_gives_orders_to_a_terminal(
    answers: list[bytes], impostor: Impostor, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Whatever words an answer has, root's terminal obeys none, and a line remains one."""
    order = "\x1b[2J\n\x9b"
    status = json.loads(answers[0]) | {"version": order}
    status["sessions"][0]["client"] = order
    for document, *command in (
        (status, "status"),
        (status, "status", "--clients"),
        ({"changes": {order: order}}, "reload"),
        ({"errors": [order]}, "reload"),
        ({"error": order}, "status"),
    ):
        impostor.answer = [json.dumps(document).encode()]
        ran = tetrad(capsysbinary, *command, "-c", impostor.file)
        shown = (ran.out + ran.err).split("\n")
        assert all(map(str.isprintable, shown)), command
        assert any("\\x1b[2J\\n\\x9b" in line for line in shown), command
