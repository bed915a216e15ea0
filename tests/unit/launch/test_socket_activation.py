"""Socket activation: which environment variables count, and which of them are ignored."""

from __future__ import annotations

import pytest

from tetrad.launch import socket_activation
from tetrad.launch.socket_activation import PassedSocket, SocketActivation

PID = 4711


def test_variables_for_this_process_are_read_and_removed() -> None:
    """Child processes must not inherit them."""
    variables = {
        "LISTEN_PID": f"{PID}",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "tetrad:listen[1]",
        "NOTIFY_SOCKET": "@notify",
        "WATCHDOG_PID": f"{PID}",
        "WATCHDOG_USEC": "30000000",
        "HOME": "/",
    }
    popped = socket_activation.pop_environment(variables, PID)
    assert popped == SocketActivation(
        "@notify", 30.0, (PassedSocket(3, "tetrad"), PassedSocket(4, "listen[1]"))
    )
    assert variables == {"HOME": "/"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        {"LISTEN_FDS": "2"},
        {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "30000000"},
        {"LISTEN_PID": f"{PID}", "LISTEN_FDS": "many", "WATCHDOG_USEC": "soon"},
    ],
)
def test_variables_for_another_process_are_ignored(variables: dict[str, str]) -> None:
    """Variables for another pid, and invalid ones, are removed without effect."""
    assert socket_activation.pop_environment(variables, PID) == SocketActivation()
    assert not variables


def test_sockets_may_have_no_names() -> None:
    """Older versions of systemd pass none."""
    popped = socket_activation.pop_environment({"LISTEN_PID": f"{PID}", "LISTEN_FDS": "2"}, PID)
    assert popped.sockets == (PassedSocket(3, ""), PassedSocket(4, ""))


@pytest.mark.parametrize(
    ("variable", "most", "too_many"),
    [("LISTEN_FDS", "65536", "65537"), ("WATCHDOG_USEC", f"{2**64 - 1}", f"{2**64}")],
)
def test_too_large_numbers_are_ignored(variable: str, most: str, too_many: str) -> None:
    """No service manager sends them, and they would exhaust the memory."""
    for number, is_valid in ((most, True), (too_many, False), ("9" * 5000, False)):
        popped = socket_activation.pop_environment({"LISTEN_PID": f"{PID}", variable: number}, PID)
        assert (popped != SocketActivation()) is is_valid
