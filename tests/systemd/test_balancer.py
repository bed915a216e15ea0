"""HAProxy as Debian's own service, with the configuration that is shipped, before the service."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from daemons import until

from .container import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .service import Service

PORT = 65010
"""Where the balancer listens: tetrad has the other port of the same machine."""

WHERE = "192.0.2.11"
"""Where the configuration that is shipped has the first tetrad, and nothing has the others."""

SHIPPED = f"{PREFIX}/lib/python3*/site-packages/tetrad/data/etc/haproxy"


@pytest.fixture
def balanced(service: Service) -> Iterator[Service]:
    """Start the service and, before it, HAProxy."""
    do = service.container.do
    if service.container.run("sh", "-c", "command -v haproxy && command -v socat").status:
        pytest.skip("haproxy or socat: not installed")
    do("ip", "address", "replace", f"{WHERE}/32", "dev", "lo")
    service.configure(listen=[{"address": WHERE, "proxy": {"trusted": [WHERE]}}])
    service.do("start", "tetrad")
    do("sh", "-c", f"cp {SHIPPED}/tetrad.cfg /etc/haproxy/haproxy.cfg")
    service.container.write("/etc/default/haproxy", f"TETRAD_BIND=:{PORT}\n")
    service.do("start", "haproxy")
    yield service
    service.do("stop", "haproxy")
    do("ip", "address", "del", f"{WHERE}/32", "dev", "lo")


def admin(service: Service, command: str) -> str:
    """Give HAProxy a command as an operator does."""
    socat = "socat - /run/haproxy/admin.sock"
    return service.container.do("sh", "-c", f"echo '{command}' | {socat}")


def lines(service: Service) -> list[dict[str, str]]:
    """Return HAProxy's lines about sessions, from the journal."""
    said = service.container.do("journalctl", "--no-pager", "-u", "haproxy", "-o", "cat")
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_both_logs_know_a_session(balanced: Service) -> None:
    """HAProxy's is in the journal, and has the name by which tetrad calls the session."""
    assert balanced.serves(PORT)
    until(lambda: balanced.commands() >= 2, "tetrad's lines")
    ours = [one for one in balanced.events() if one["event"].startswith("client.")]
    (name,) = {one["unique_id"] for one in ours}
    theirs = until(lambda: [one for one in lines(balanced) if one["unique_id"] == name], "the line")
    assert {one["client"] for one in ours} == {one["client"] for one in theirs}


def test_the_others_are_found_down(balanced: Service) -> None:
    """A tetrad that is not there gets no session once the checks have found that out."""
    others = ["two", "three"]
    until(lambda: statuses(balanced) == {"one": "UP"} | dict.fromkeys(others, "DOWN"), "checks")
    assert balanced.serves(PORT)


def test_a_reload_ends_no_session(balanced: Service) -> None:
    """A client stays with the process that it came to, and the next one is served by another."""
    client = balanced.connect(PORT)
    assert client.ask()
    balanced.do("reload", "haproxy")
    assert client.ask()
    client.close()
    assert balanced.serves(PORT)


def test_a_tetrad_is_rolled_as_the_readme_says(balanced: Service) -> None:
    """The commands that stand there take it out, restart it, and put it back."""
    before = balanced.master
    text = balanced.container.do("sh", "-c", f"cat {SHIPPED}/README.md")
    (commands,) = re.findall(r"```sh\n(admin\(\).*?)```", text, re.DOTALL)
    assert "one," in balanced.container.do("sh", "-euc", commands)
    balanced.replaced(before)
    until(lambda: statuses(balanced)["one"] == "UP", "the one that came back")
    assert balanced.serves(PORT)


def statuses(service: Service) -> dict[str, str]:
    """Return what HAProxy thinks of each tetrad."""
    rows = [row.split(",") for row in admin(service, "show stat tetrads 4 -1").splitlines()]
    return {row[1]: row[17] for row in rows[1:] if len(row) > 17}
