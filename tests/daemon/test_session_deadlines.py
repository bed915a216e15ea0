"""The four deadlines of a session, each with its reason in the log."""

from __future__ import annotations

import concurrent.futures
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import in_background, stopped, until

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

SHORT = "300ms"
"""Long enough that on a busy machine too, a client speaks in time."""

ECHO = [{"port": 0, "service": "echo"}]
BOTH = [{"port": 0}, *ECHO]
FLOOD = bytes(1 << 16)
ANSWER_BYTES = 300
ANSWERS = 27_000
VERBOSE = {"long": {"clock": "x" * ANSWER_BYTES}}
"""A command with an answer of many bytes."""


def deadlines(**given: object) -> dict[str, Any]:
    """Return a `session` section with only these deadlines."""
    names = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
    return {"session": dict.fromkeys(names) | given}


SILENT = {
    "listen": [{"port": 0}, {"address": "unix:t.sock"}],
    **deadlines(first_command_timeout=SHORT),
}
IDLE = {"listen": BOTH, **deadlines(idle_timeout=SHORT)}
TOTAL = {"listen": BOTH, **deadlines(max_duration=SHORT)}
DEAF = {"listen": BOTH, "commands": VERBOSE, **deadlines(send_timeout=SHORT)}
SLOW_SEND_SECONDS = 1.0
SLOW = {"listen": BOTH, "commands": VERBOSE, **deadlines(send_timeout=SLOW_SEND_SECONDS)}


@pytest.mark.quick
def test_a_silent_client_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """After `first_command_timeout`, without an answer."""
    served = shared_daemon(**SILENT)
    assert served.connect().read_all() == b""
    line = served.wait_for("client.disconnected")
    assert line["reason"] == "first_command_timeout"
    assert line["duration"] >= 0.3


@pytest.mark.parametrize("words", [b"\r\n", b"\0 \t", b"t", b"tim"])
def test_less_than_a_command_does_not_end_the_first_command_timeout(
    shared_daemon: MakeDaemon, words: bytes
) -> None:
    """Separators and the beginning of a command are not a first command."""
    served = shared_daemon(**SILENT)
    client = served.connect()
    client.send(words)
    assert client.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"


def test_endless_line_endings_do_not_keep_a_session(shared_daemon: MakeDaemon) -> None:
    """A deadline holds although there is always something to read."""
    served = shared_daemon(**SILENT)
    served.connect().send_until_closed(b"\n" * 65536)
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"


@pytest.mark.quick
def test_an_idle_client_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """After its first command a client has `idle_timeout` for each further one."""
    served = shared_daemon(**IDLE)
    client = served.connect()
    assert ANSWER.fullmatch(client.ask())
    assert client.read_all() == b""
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["commands"]) == ("idle_timeout", 1)


def test_an_idle_echo_client_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """For the echo service any input is activity."""
    served = shared_daemon(**IDLE)
    client = served.connect(1)
    client.send(b"x")
    assert client.read_all() == b"x"
    assert served.wait_for("client.disconnected")["reason"] == "idle_timeout"


def test_after_a_command_only_the_idle_timeout_counts(daemon: MakeDaemon) -> None:
    """The first command ends `first_command_timeout`; a null `idle_timeout` is no deadline."""
    served = daemon(**deadlines(first_command_timeout=SHORT))
    active = served.connect()
    assert ANSWER.fullmatch(active.ask())
    silent = served.connect()
    assert silent.read_all() == b""
    assert ANSWER.fullmatch(active.ask())


def test_before_a_command_the_idle_timeout_does_not_count(shared_daemon: MakeDaemon) -> None:
    """`idle_timeout` begins with the first command."""
    served = shared_daemon(**IDLE)
    silent, active = served.connect(), served.connect()
    assert ANSWER.fullmatch(active.ask())
    assert active.read_all() == b""
    assert ANSWER.fullmatch(silent.ask())


@pytest.mark.quick
def test_a_busy_session_ends_after_max_duration(shared_daemon: MakeDaemon) -> None:
    """The client sends without a pause."""
    served = shared_daemon(**TOTAL)
    client = served.connect()
    client.send_until_closed(b"time" + b"\r\n" * 100)
    line = served.wait_for("client.disconnected")
    assert line["reason"] == "max_duration"
    assert line["duration"] >= 0.3


@pytest.mark.parametrize("words", [b"", b"ti", b"\n"])
def test_an_idle_session_ends_after_max_duration(shared_daemon: MakeDaemon, words: bytes) -> None:
    """Between two commands, and within one."""
    served = shared_daemon(**TOTAL)
    client = served.connect()
    client.send(words)
    assert client.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_an_echo_client_that_does_not_read_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """After `send_timeout`, although it still sends."""
    served = shared_daemon(**DEAF)
    served.connect_with_small_buffers(1).send_until_closed(FLOOD)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"


@pytest.mark.quick
def test_a_command_client_that_does_not_read_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """After `send_timeout`, with answers unread."""
    served = shared_daemon(**DEAF)
    served.connect_with_small_buffers().send_until_closed(b"long" * 256)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"


class SlowReader(NamedTuple):
    """A client that has read slowly, and then the rest at once."""

    name: str
    was_sent_more: bool
    read_bytes: int


@pytest.fixture(scope="module")
def slow_readers(shared_daemon: MakeDaemon) -> tuple[Daemon, dict[str, SlowReader]]:
    """Return a daemon and its slow readers by their service; they read at the same time."""
    served = shared_daemon(**SLOW)
    clients = {"command": served.connect(0), "echo": served.connect(1)}
    words = {"command": b"long", "echo": b"x" * ANSWER_BYTES}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reading = {
            service: pool.submit(read_slowly, served, client, words[service] * ANSWERS)
            for service, client in clients.items()
        }
    return served, {service: done.result() for service, done in reading.items()}


def read_slowly(daemon: Daemon, client: Client, data: bytes) -> SlowReader:
    """Send data, and read a little within each `send_timeout`, for three of them."""
    sending = in_background(lambda: send_all(client, data))
    read, enough = 0, time.monotonic() + 3 * SLOW_SEND_SECONDS
    while time.monotonic() < enough and (part := client.socket.recv(65536)):
        read += len(part)
        time.sleep(SLOW_SEND_SECONDS / 10)  # the pace of a slow client
    was_sent_more = client.name in {session["client"] for session in daemon.status()["sessions"]}
    read += len(client.read_all())
    sending.join()
    return SlowReader(client.name, was_sent_more, read)


@pytest.mark.parametrize("service", ["command", "echo"])
def test_a_client_that_reads_slowly_is_served_to_the_end(
    slow_readers: tuple[Daemon, dict[str, SlowReader]], service: str
) -> None:
    """Reading a little within each `send_timeout` is enough, with megabytes still to send."""
    served, readers = slow_readers
    reader = readers[service]
    assert reader.was_sent_more
    assert reader.read_bytes == ANSWERS * ANSWER_BYTES
    line = served.wait_for("client.disconnected", client=reader.name)
    assert line["reason"] == "eof"


def test_a_client_that_has_to_read_first_is_not_idle(shared_daemon: MakeDaemon) -> None:
    """`idle_timeout` does not end a session whose input waits for the handler."""
    served = shared_daemon(**IDLE)
    client = served.connect(1)
    sending = in_background(lambda: send_all(client, FLOOD * 200))
    for _ in range(3):
        outlast_the_idle_timeout(served)
    assert len(client.read_all()) == 200 * len(FLOOD)
    sending.join()


def test_input_that_arrived_before_a_deadline_is_processed_after_it(
    shared_daemon: MakeDaemon,
) -> None:
    """A handler that did not run for a while reads before it decides that the client is idle."""
    served = shared_daemon(**IDLE)
    client = served.connect(1)

    def waiting_handlers() -> list[int]:
        assert client.echo(b"x") == b"x"
        time.sleep(0.03)  # longer than the fast path waits
        return served.handlers

    [handler] = until(waiting_handlers, "the handler's title")
    assert client.echo(b"x") == b"x"
    with stopped(handler):
        client.send(b"y")
        outlast_the_idle_timeout(served)
    assert client.socket.recv(1) == b"y"


def send_all(client: Client, data: bytes) -> None:
    """Send data, and close the sending side."""
    client.send(data)
    client.half_close()


def outlast_the_idle_timeout(daemon: Daemon) -> None:
    """Wait until another client has been disconnected for being idle."""
    client = daemon.connect(1)
    client.send(b"x")
    assert client.read_all() == b"x"


def test_max_duration_ends_a_session_that_is_sending(shared_daemon: MakeDaemon) -> None:
    """To a client that does not read."""
    served = shared_daemon(**TOTAL)
    served.connect_with_small_buffers(1).send_until_closed(FLOOD)
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_deadlines_hold_for_unix_sockets(shared_daemon: MakeDaemon) -> None:
    """A silent client is disconnected."""
    served = shared_daemon(**SILENT)
    assert served.connect_to_path("t.sock").read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"
