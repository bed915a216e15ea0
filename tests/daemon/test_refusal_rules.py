"""The log line of a client that an access list refuses has the rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

LISTEN = [{"port": 0}, {"port": 0, "proxy": {"trusted": ["127.0.0.1"]}}]
DENIED = b"PROXY TCP4 127.0.0.2 127.0.0.1 4711 65000\r\n"


@pytest.mark.parametrize(
    ("access", "listener", "source", "rule"),
    [
        ({"deny": ["127.0.0.9", "127.0.0.2/31"]}, 0, "127.0.0.2", "access.deny[1]"),
        ({"deny": ["127.0.0.9", "127.0.0.2/31"]}, 1, "127.0.0.1", "access.deny[1]"),
        ({"deny": ["127.0.0.9", "127.0.0.2/31"]}, 1, "127.0.0.2", "listen[1].proxy.trusted"),
        ({"allow": ["127.0.0.1"]}, 0, "127.0.0.2", "access.allow"),
        ({"allow": ["127.0.0.1"]}, 1, "127.0.0.1", "access.allow"),
    ],
)
def test_a_refusal_names_its_rule(
    shared_daemon: MakeDaemon, access: dict[str, list[str]], listener: int, source: str, rule: str
) -> None:
    """An entry, or the list in which the client has none."""
    served = shared_daemon(listen=LISTEN, access=access)
    client = served.connect(listener, source=source)
    if listener and source == "127.0.0.1":
        client.send(DENIED)
    line = served.wait_for("client.refused", reason="access")
    assert line["rule"] == rule
    client.close()


def test_another_refusal_has_no_rule(shared_daemon: MakeDaemon) -> None:
    """The access lists allow the client."""
    served = shared_daemon(limits={"clients": 1})
    served.served()
    served.connect()
    assert "rule" not in served.wait_for("client.refused", reason="clients")
