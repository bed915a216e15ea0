"""HAProxy as Debian's service, with the shipped configuration, in front of the service."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import until
from tests.support.system_programs import require
from tests.support.systemd_container import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service

PORT = 65010
"""The balancer's port; the daemon has the default port of the same host."""

ADDRESS = "192.0.2.11"
"""The first tetrad's address in the shipped configuration; the others do not exist."""

SHIPPED = f"{PREFIX}/lib/python3*/site-packages/tetrad/data/etc/haproxy"


@pytest.fixture
def balanced(service: Service) -> Iterator[Service]:
    """Start the service, and HAProxy in front of it."""
    require("haproxy", "socat")  # the container has this machine's programs
    do = service.container.do
    do("ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo")
    service.configure(listen=[{"address": ADDRESS, "proxy": {"trusted": [ADDRESS]}}])
    service.do("start", "tetrad")
    do("sh", "-c", f"cp {SHIPPED}/tetrad.cfg /etc/haproxy/haproxy.cfg")
    service.container.write("/etc/default/haproxy", f"TETRAD_BIND=:{PORT}\n")
    service.do("start", "haproxy")
    yield service
    service.do("stop", "haproxy")
    do("ip", "address", "del", f"{ADDRESS}/32", "dev", "lo")


def admin(service: Service, command: str) -> str:
    """Send a command to HAProxy's admin socket, as an operator does."""
    socat = "socat - /run/haproxy/admin.sock"
    return service.container.do("sh", "-c", f"echo '{command}' | {socat}")


def lines(service: Service) -> list[dict[str, str]]:
    """Return HAProxy's log lines about sessions, from the journal."""
    output = service.container.do("journalctl", "--no-pager", "-u", "haproxy", "-o", "cat")
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_a_session_has_the_same_id_in_both_logs(balanced: Service) -> None:
    """HAProxy's log line is in the journal and has tetrad's `unique_id` of the session."""
    assert balanced.serves(PORT)
    until(lambda: balanced.commands() >= 2, "tetrad's lines")
    ours = [one for one in balanced.events() if one["event"].startswith("client.")]
    (name,) = {one["unique_id"] for one in ours}
    theirs = until(lambda: [one for one in lines(balanced) if one["unique_id"] == name], "the line")
    assert {one["client"] for one in ours} == {one["client"] for one in theirs}


def test_missing_tetrads_are_marked_down(balanced: Service) -> None:
    """After the first checks only the existing tetrad gets sessions."""
    others = ["two", "three"]
    until(lambda: statuses(balanced) == {"one": "UP"} | dict.fromkeys(others, "DOWN"), "checks")
    assert balanced.serves(PORT)


def test_a_haproxy_reload_ends_no_session(balanced: Service) -> None:
    """A client stays with the old HAProxy process, the next one gets the new process."""
    client = balanced.connect(PORT)
    assert client.ask()
    balanced.do("reload", "haproxy")
    assert client.ask()
    client.close()
    assert balanced.serves(PORT)


def test_the_rolling_restart_of_the_readme_works(balanced: Service) -> None:
    """The README's commands drain the tetrad, restart it, and put it back."""
    before = balanced.master
    text = balanced.container.do("sh", "-c", f"cat {SHIPPED}/README.md")
    (commands,) = re.findall(r"```sh\n(admin\(\).*?)```", text, re.DOTALL)
    assert "one," in balanced.container.do("sh", "-euc", commands)
    balanced.wait_for_new_master(before)
    until(lambda: statuses(balanced)["one"] == "UP", "the restarted tetrad")
    assert balanced.serves(PORT)


def statuses(service: Service) -> dict[str, str]:
    """Return the state of each tetrad in HAProxy."""
    rows = [row.split(",") for row in admin(service, "show stat tetrads 4 -1").splitlines()]
    return {row[1]: row[17] for row in rows[1:] if len(row) > 17}
