"""The four deadlines of a session, each with its word in the log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER, ANSWER_BYTES
from processes import in_background, stopped, until

if TYPE_CHECKING:
    from clients import Client
    from conftest import MakeDaemon
    from daemons import Daemon

SHORT = "300ms"
ECHO = [{"port": 0, "service": "echo"}]
FLOOD = bytes(1 << 16)


def deadlines(**given: object) -> dict[str, Any]:
    """Return the section of a file that has only these deadlines."""
    names = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
    return {"session": dict.fromkeys(names) | given}


def test_a_client_that_says_nothing_is_let_go(daemon: MakeDaemon) -> None:
    """Whoever says nothing hears nothing, and is gone after `first_command_timeout`."""
    served = daemon(**deadlines(first_command_timeout=SHORT))
    assert served.connect().read_all() == b""
    line = served.wait_for("client.disconnected")
    assert line["reason"] == "first_command_timeout"
    assert line["duration"] >= 0.3


@pytest.mark.parametrize("words", [b"\r\n", b"\0 \t", b"t", b"tim"])
def test_less_than_a_command_is_nothing(daemon: MakeDaemon, words: bytes) -> None:
    """Line endings and the beginning of a command are not a first command."""
    served = daemon(**deadlines(first_command_timeout=SHORT))
    client = served.connect()
    client.send(words)
    assert client.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"


def test_line_endings_without_end_do_not_keep_a_session(daemon: MakeDaemon) -> None:
    """A deadline is kept though there is always something to read."""
    served = daemon(**deadlines(first_command_timeout=SHORT))
    served.connect().send_until_closed(b"\n" * 65536)
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"


def test_a_client_that_falls_silent_is_let_go(daemon: MakeDaemon) -> None:
    """After its first command a client has `idle_timeout` for each further one."""
    served = daemon(**deadlines(idle_timeout=SHORT))
    client = served.served()
    assert client.read_all() == b""
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["commands"]) == ("idle_timeout", 1)


def test_an_echo_client_that_falls_silent_is_let_go(daemon: MakeDaemon) -> None:
    """For the echo service anything is a command."""
    served = daemon(listen=ECHO, **deadlines(idle_timeout=SHORT))
    client = served.connect()
    client.send(b"x")
    assert client.read_all() == b"x"
    assert served.wait_for("client.disconnected")["reason"] == "idle_timeout"


def test_who_has_spoken_has_only_the_idle_timeout(daemon: MakeDaemon) -> None:
    """The first command ends `first_command_timeout`, and null is no deadline at all."""
    served = daemon(**deadlines(first_command_timeout=SHORT))
    speaker, silent = served.served(), served.connect()
    assert silent.read_all() == b""
    assert ANSWER.fullmatch(speaker.ask())


def test_who_has_not_spoken_has_no_idle_timeout(daemon: MakeDaemon) -> None:
    """`idle_timeout` begins with the first command."""
    served = daemon(**deadlines(idle_timeout=SHORT))
    silent, speaker = served.connect(), served.served()
    assert speaker.read_all() == b""
    assert ANSWER.fullmatch(silent.ask())


def test_a_session_has_a_longest_duration(daemon: MakeDaemon) -> None:
    """However busy it is, a session ends after `max_duration`."""
    served = daemon(**deadlines(max_duration=SHORT))
    client = served.served()
    in_background(lambda: client.send_until_closed(b"\r\n" * 100)).join()
    line = served.wait_for("client.disconnected")
    assert line["reason"] == "max_duration"
    assert line["duration"] >= 0.3


@pytest.mark.parametrize("words", [b"", b"ti", b"\n"])
def test_the_longest_duration_is_for_idle_clients_too(daemon: MakeDaemon, words: bytes) -> None:
    """A client between or within commands ends after `max_duration`."""
    served = daemon(**deadlines(max_duration=SHORT))
    client = served.connect()
    client.send(words)
    assert client.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_an_echo_client_that_does_not_read_is_let_go(daemon: MakeDaemon) -> None:
    """A client that takes nothing for `send_timeout` is gone, whatever it says."""
    served = daemon(listen=ECHO, **deadlines(send_timeout=SHORT))
    served.connect().send_until_closed(FLOOD)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"


def test_a_command_client_that_does_not_read_is_let_go(daemon: MakeDaemon) -> None:
    """Answers that nobody reads are not waited with for longer than `send_timeout`."""
    verbose = {"long": {"clock": "0123456789" * 90}}
    served = daemon(commands=verbose, **deadlines(send_timeout=SHORT))
    served.connect().send_until_closed(b"long" * 256)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"


@pytest.mark.parametrize(("service", "count"), [("echo", 3_000_000), ("command", 600_000)])
def test_a_client_that_reads_slowly_is_served_to_the_end(
    daemon: MakeDaemon, service: str, count: int
) -> None:
    """Whoever takes a little within each `send_timeout` does read, though megabytes wait for it."""
    served = daemon(listen=[{"port": 0, "service": service}], **deadlines(send_timeout="1s"))
    client = served.connect()
    words = b"time" * count
    sending = in_background(lambda: say_all(client, words))
    answer = len(words) if service == "echo" else count * ANSWER_BYTES
    read, enough = 0, time.monotonic() + 4
    while time.monotonic() < enough and (data := client.socket.recv(40_000)):
        read += len(data)
        time.sleep(0.05)  # the pace of a slow client
    assert read + len(client.read_all()) == answer
    sending.join()
    assert served.wait_for("client.disconnected")["reason"] == "eof"


def test_who_waits_for_a_client_to_read_does_not_find_it_idle(daemon: MakeDaemon) -> None:
    """`idle_timeout` is for clients that say nothing, not for one whose words wait for us."""
    served = daemon(listen=ECHO, **deadlines(idle_timeout=SHORT))
    client = served.connect()
    sending = in_background(lambda: say_all(client, FLOOD * 200))
    for _ in range(3):
        pass_the_idle_timeout(served)
    assert len(client.read_all()) == 200 * len(FLOOD)
    sending.join()


def test_what_has_come_by_a_deadline_is_heard_by_who_is_late(daemon: MakeDaemon) -> None:
    """A handler that got no processor for a while looks before it says that nothing came."""
    served = daemon(listen=ECHO, **deadlines(idle_timeout=SHORT))
    client = served.connect()
    for _ in range(2):  # the second time, it waits in a session
        client.send(b"x")
        assert client.socket.recv(1) == b"x"
    [handler] = until(lambda: served.handlers, "the handler's title")
    with stopped(handler):
        client.send(b"y")
        pass_the_idle_timeout(served)
    assert client.socket.recv(1) == b"y"


def say_all(client: Client, words: bytes) -> None:
    """Send all there is to say, and say that it was all."""
    client.send(words)
    client.half_close()


def pass_the_idle_timeout(daemon: Daemon) -> None:
    """Be a client who says something, and is let go for saying no more."""
    client = daemon.connect()
    client.send(b"x")
    assert client.read_all() == b"x"


def test_a_client_that_does_not_read_has_a_longest_duration(daemon: MakeDaemon) -> None:
    """`max_duration` ends a session that is stuck in sending."""
    served = daemon(listen=ECHO, **deadlines(max_duration=SHORT))
    served.connect().send_until_closed(FLOOD)
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_deadlines_hold_for_unix_sockets(daemon: MakeDaemon) -> None:
    """A silent client of a Unix socket is let go like the others."""
    served = daemon(listen=[{"address": "unix:t.sock"}], **deadlines(first_command_timeout=SHORT))
    assert served.connect_to_path("t.sock").read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "first_command_timeout"
