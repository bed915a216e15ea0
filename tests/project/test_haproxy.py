"""The shipped HAProxy configuration is valid and matches tetrad's defaults."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.processes import run
from tests.support.project import ROOT
from tests.support.system_programs import require
from tetrad.config.model import Config
from tetrad.config.types import Duration

SHIPPED = ROOT / "etc" / "haproxy" / "tetrad.cfg"

LINES = [line.strip() for line in SHIPPED.read_text("utf-8").splitlines()]


def value(name: str) -> str:
    """Return the value of a setting."""
    (found,) = {match[1] for line in LINES if (match := re.fullmatch(f"{name} (.*)", line))}
    return found


def test_haproxy_accepts_the_configuration() -> None:
    """HAProxy prints no error and no warning."""
    require("haproxy")
    ran = run(["haproxy", "-c", "-dW", "-f", str(SHIPPED)], dict(os.environ))
    assert ran.status == 0, ran.out + ran.err


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_balancers_timeouts_exceed_tetrads_deadlines(side: str) -> None:
    """Idle sessions are ended by tetrad, which logs the reason."""
    longest = max(Config().session.idle_timeout or 0, Config().session.first_command_timeout or 0)
    assert Duration.parse(value(f"timeout {side}")) > longest


def test_the_half_closed_timeout_exceeds_send_timeout() -> None:
    """The balancer waits longer than tetrad for a client that does not read."""
    assert Duration.parse(value("timeout server-fin")) > (Config().session.send_timeout or 0)


def test_limits_leave_room_for_health_checks() -> None:
    """`limits.clients` is a twentieth larger than the balancer's maximum."""
    limit = Config().limits.clients
    assert int(value("default-server maxconn")) <= limit - limit // 20
