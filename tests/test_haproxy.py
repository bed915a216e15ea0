"""The configuration of HAProxy that is shipped: it is valid, and it fits tetrad's defaults."""

from __future__ import annotations

import os
import pathlib
import re
import shutil

import pytest

from processes import run
from tetrad.config.model import Config
from tetrad.config.types import Duration

SHIPPED = pathlib.Path(__file__).parents[1] / "etc" / "haproxy" / "tetrad.cfg"

LINES = [line.strip() for line in SHIPPED.read_text("utf-8").splitlines()]


def value(name: str) -> str:
    """Return what a setting is."""
    (found,) = {match[1] for line in LINES if (match := re.fullmatch(f"{name} (.*)", line))}
    return found


def test_haproxy_takes_it() -> None:
    """There is nothing in it that HAProxy would refuse, or even warn of."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: install haproxy")
    ran = run(["haproxy", "-c", "-dW", "-f", str(SHIPPED)], dict(os.environ))
    assert ran.status == 0, ran.out + ran.err


@pytest.mark.parametrize("side", ["client", "server"])
def test_it_is_tetrad_that_ends_sessions(side: str) -> None:
    """Whoever may be silent by tetrad's deadlines may be so by the balancer's."""
    longest = max(Config().session.idle_timeout or 0, Config().session.first_command_timeout or 0)
    assert Duration.parse(value(f"timeout {side}")) > longest


def test_who_half_closes_has_the_time_that_an_answer_takes() -> None:
    """The balancer waits longer than tetrad does for a client that does not read."""
    assert Duration.parse(value("timeout server-fin")) > (Config().session.send_timeout or 0)


def test_a_tetrad_has_room_for_checks_when_it_is_full() -> None:
    """A twentieth more than the balancer fills."""
    limit = Config().limits.clients
    assert int(value("default-server maxconn")) <= limit - limit // 20
