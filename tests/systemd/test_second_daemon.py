"""A second daemon on one host, set up as tetrad(8) describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.daemons import ANSWER
from tests.support.manual_pages import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_container import Container
    from tests.support.systemd_service import Service

FILE = "/etc/tetrad/two.yaml"
UNIT = "/etc/systemd/system/tetrad2.service"


@pytest.fixture
def second(service: Service) -> Iterator[Container]:
    """Return the container with the second daemon; it is removed after the test."""
    service.do("start", "tetrad")
    blocks = [text for section, text in page("tetrad.8").blocks if section == "SYSTEMD"]
    (settings,) = (text for text in blocks if text.startswith("listen:"))
    (commands,) = (text for text in blocks if UNIT in text)
    container = service.container
    container.write(FILE, settings)
    try:
        container.do("sh", "-ec", commands)
        yield container
    finally:
        container.do("systemctl", "disable", "--now", "tetrad2")
        container.do("rm", FILE, UNIT)
        container.do("systemctl", "daemon-reload")


def test_two_daemons_run_side_by_side(second: Container, service: Service) -> None:
    """Each serves its own listener, and a command is about the daemon of its file."""
    settings = yaml.safe_load(second.read(FILE))
    port = settings["listen"][0]["port"]
    client = second.connect(port=port)
    assert ANSWER.fullmatch(client.ask())
    client.close()
    assert service.serves()
    assert f"127.0.0.1:{port}" in second.tetrad("-c", FILE, "status").out
    second.do("systemctl", "reload", "tetrad2")
    second.do("test", "-s", settings["log"]["file"])
