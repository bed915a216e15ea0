"""Invalid requests to the control socket, and invalid answers from a false daemon behind it."""

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

from tests.support.daemons import Daemon
from tests.support.fuzzing import mutated, mutated_tree, run_in_process, seeded_random, time_limit
from tests.support.processes import TIMEOUT_SECONDS, descriptors_of, until
from tetrad import __version__
from tetrad.ipc import control_client
from tetrad.master import control_server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

    from tests.support.fixtures import Figure, MakeDaemon

REQUESTS = (
    [b"status\n"] * 6 + [b"source 192.0.2.1\n", b"source ::ffff:1.2.3.4\n"] * 6 + [b"reload\n"]
)
MIXTURE = [b"status\nreload\nsource ::1%lo\n", b"source " + b"1" * 100]

COMMANDS = (
    (("status",), {0, 4}),
    (("status", "--json"), {0, 4}),
    (("status", "--format", "prometheus"), {0, 4}),
    (("status", "--clients"), {0, 4}),
    (("explain", "192.0.2.1"), {0, 1, 4}),
    (("reload",), {0, 1, 78}),
    (("upgrade",), {0, 1, 78}),
)
"""Commands that ask a daemon, and the exit statuses that are allowed."""

HOLD_LOCK = """\
import sys
from tetrad.launch import pidfile
from tetrad.system.proctitle import ProcessTitle, of_master
ProcessTitle().show(of_master(sys.argv[2]))
with pidfile.start_lock(sys.argv[1]) as fd:
    pidfile.claim(fd)
    print("held", flush=True)
    sys.stdin.read()
"""


def send_request(daemon: Daemon, message: bytes) -> bytes:
    """Send a message, and return the answer; empty if the daemon closes the connection."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(TIMEOUT_SECONDS)
        peer.connect(os.path.join(daemon.folder, "control.sock"))
        with contextlib.suppress(ConnectionError):
            peer.sendall(message)
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(65536), b""))
    return b""


def send_mutated_requests(daemon: Daemon, rng: random.Random, count: int) -> None:
    """Send mutated requests; the daemon must go on without a change."""
    before = descriptors_of(daemon.pid).keys()
    answered = 0
    for number in range(count):
        message = mutated(rng, rng.choice(REQUESTS), MIXTURE)
        answer = send_request(daemon, message)
        answered += bool(answer)
        assert not answer or isinstance(json.loads(answer), dict), message
        assert answer.count(b"\n") == bool(answer), message
        if not number % 100:
            assert json.loads(send_request(daemon, b"status\n"))["pid"] == daemon.pid, message
            assert json.loads(send_request(daemon, b"source 192.0.2.1\n"))["access"], message
    assert answered
    assert {line["level"] for line in daemon.events()} == {"info"}
    until(lambda: descriptors_of(daemon.pid).keys() == before, "the descriptors of before")
    daemon.served().quit()


def test_mutated_requests_do_not_affect_the_daemon(daemon: MakeDaemon, figure: Figure) -> None:
    """Mutated requests may go unanswered; valid ones are answered, and nothing is left behind."""
    send_mutated_requests(daemon(), seeded_random(figure), 500)


def test_an_overlong_request_gets_no_answer(shared_daemon: MakeDaemon) -> None:
    """No valid request is longer than MAX_REQUEST_BYTES."""
    served = shared_daemon()
    assert send_request(served, b"status" + b" " * control_server.MAX_REQUEST_BYTES + b"\n") == b""
    assert json.loads(send_request(served, b"status\n"))["pid"] == served.pid


@pytest.mark.long
@pytest.mark.timeout(600)
def test_10000_mutated_requests(daemon: MakeDaemon, figure: Figure) -> None:
    """10,000 mutated requests change nothing."""
    send_mutated_requests(daemon(), seeded_random(figure), 10_000)


class Impostor:
    """A process that holds a daemon's pidfile lock, and this one answers on its control socket."""

    def __init__(self, daemon: Daemon) -> None:
        command = [sys.executable, "-c", HOLD_LOCK, daemon.pidfile, daemon.file]
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
        with contextlib.suppress(OSError):  # the listener was shut down
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(ConnectionError):
                    peer.recv(100)
                    for piece in self.answer:
                        peer.sendall(piece)

    def close(self) -> None:
        """Stop answering, and release the pidfile."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._holder.communicate()


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impostor]:
    """Start an impostor in place of a daemon."""
    impostor = Impostor(Daemon(str(tmp_path_factory.mktemp("impostor")), {}))
    yield impostor
    impostor.close()


@pytest.fixture(scope="module")
def answers(shared_daemon: MakeDaemon) -> list[bytes]:
    """Return real answers of a daemon with one client, and two answers to `reload`."""
    served = shared_daemon(limits={"clients_per_source": 2, "rate_per_source": "9/s"})
    served.served()
    requests = (b"status\n", b"source 192.0.2.1\n", b"reload\n", b"nonsense\n")
    return [
        *(send_request(served, request) for request in requests),
        b'{"errors":["x"]}',
        b'{"changes":{}}',
    ]


def an_answer(rng: random.Random, answers: list[bytes]) -> bytes:
    """Return a mutated answer."""
    answer = rng.choice(answers)
    if rng.random() < 1 / 2:
        tree: Any = json.loads(answer)
        for _ in range(rng.randint(1, 3)):
            tree = mutated_tree(rng, tree)
        answer = json.dumps(tree).encode()
    return answer if rng.random() < 1 / 2 else mutated(rng, answer, answers)


@pytest.mark.parametrize(
    "count", [150, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_commands_handle_any_answer(
    answers: list[bytes],
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    figure: Figure,
    count: int,
) -> None:
    """Whatever the answer, a command prints the daemon's state or one error message."""
    rng = seeded_random(figure)
    with time_limit() as begin:
        for _ in range(count):
            answer = an_answer(rng, answers)
            impostor.answer = [answer]
            command, statuses = rng.choice(COMMANDS)
            begin()
            ran = run_in_process(capsysbinary, *command, "-c", impostor.file)
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
def test_an_unreadable_answer_is_one_error_line(
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    command: list[str],
    answer: bytes,
) -> None:
    """Answers nested too deeply, not UTF-8, or with terminal codes are not shown."""
    impostor.answer = [answer]
    ran = run_in_process(capsysbinary, *command, "-c", impostor.file)
    assert ran.status in {1, 4}
    assert ran.err.count("\n") == 1
    assert ran.err.strip().isprintable()


def drip() -> Iterator[bytes]:
    """Answer one byte at a time, without an end."""
    while True:
        yield b" "
        time.sleep(0.05)


def flood() -> Iterator[bytes]:
    """Answer as much as the socket takes, without an end."""
    while True:
        yield b" " * (1 << 16)


@pytest.mark.parametrize(("endless", "complaint"), [(drip, "no answer"), (flood, "too long")])
def test_an_endless_answer_is_an_error(
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    endless: Callable[[], Iterator[bytes]],
    complaint: str,
) -> None:
    """A slow and a fast endless answer both end with an error, in bounded time and memory."""
    if endless is drip:  # the time limit ends it, so a shorter one does; a flood has all the time
        monkeypatch.setattr(control_client.ask, "__defaults__", (1.0,))
    impostor.answer = endless()
    ran = run_in_process(capsysbinary, "status", "-c", impostor.file)
    assert ran.status == 4
    assert complaint in ran.err


@pytest.mark.parametrize("number", [1e300, -1e300, 1e12])
@pytest.mark.parametrize("key", ["started", "uptime", "age"])
def test_a_status_with_an_impossible_time_is_refused(
    answers: list[bytes],
    impostor: Impostor,
    capsysbinary: pytest.CaptureFixture[bytes],
    key: str,
    number: float,
) -> None:
    """Times and durations must be ones that a calendar can show."""
    status = json.loads(answers[0])
    (status["sessions"][0] if key == "age" else status)[key] = number
    impostor.answer = [json.dumps(status).encode()]
    for arguments in ((), ("--clients",)):
        ran = run_in_process(capsysbinary, "status", *arguments, "-c", impostor.file)
        assert (ran.status, ran.out) == (4, "")
        assert "invalid answer" in ran.err


@pytest.mark.parametrize("answer", [b"{}", b'{"changes":{},"errors":["x"]}'])
def test_a_reload_answer_has_either_changes_or_errors(
    impostor: Impostor, capsysbinary: pytest.CaptureFixture[bytes], answer: bytes
) -> None:
    """Any other answer is an error."""
    impostor.answer = [answer]
    ran = run_in_process(capsysbinary, "reload", "-c", impostor.file)
    assert (ran.status, ran.out) == (1, "")
    assert "expected either changes or errors" in ran.err


def test_terminal_codes_in_an_answer_are_escaped(
    answers: list[bytes], impostor: Impostor, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """No answer can control root's terminal or add a line to the output."""
    escape = "\x1b[2J\n\x9b"
    status = json.loads(answers[0]) | {"version": escape}
    status["sessions"][0]["client"] = escape
    for document, *command in (
        (status, "status"),
        (status, "status", "--clients"),
        ({"changes": {escape: escape}}, "reload"),
        ({"errors": [escape]}, "reload"),
        ({"version": __version__, "from": escape, "changes": {escape: escape}}, "upgrade"),
        ({"errors": [escape]}, "upgrade"),
        ({"error": escape}, "status"),
    ):
        impostor.answer = [json.dumps(document).encode()]
        ran = run_in_process(capsysbinary, *command, "-c", impostor.file)
        shown = (ran.out + ran.err).split("\n")
        assert all(map(str.isprintable, shown)), command
        assert any("\\x1b[2J\\n\\x9b" in line for line in shown), command
