"""The journal of the service: priorities of log lines, and problems in the status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemons import until

if TYPE_CHECKING:
    from tests.support.systemd_service import Service


def entries(service: Service) -> list[dict[str, Any]]:
    """Return what the service has written to the journal since the last start."""
    invocation = service.get_property("InvocationID")
    command = ("journalctl", "--no-pager", "-o", "json", f"_SYSTEMD_INVOCATION_ID={invocation}")
    return [json.loads(line) for line in service.container.do(*command).splitlines()]


def wait_for_entry(service: Service, text: str) -> dict[str, Any]:
    """Wait for an entry with this text."""
    found = until(
        lambda: [one for one in entries(service) if text in str(one["MESSAGE"])], f"{text}"
    )
    return found[0]


@pytest.mark.parametrize("style", ["console", "json"])
def test_the_journal_has_the_priority_of_each_line(service: Service, style: str) -> None:
    """With Type=notify; the line itself has neither a time nor a hint for a terminal."""
    service.drop_in(service.container.example("notify.conf"))
    service.configure(log={"file": None, "format": style})
    service.do("start", "tetrad")
    client = service.connect()
    with client.socket:
        client.send(b"help")
        invalid = wait_for_entry(service, "client.invalid")
    service.configure(listen=[{"port": 70000}])
    service.do("kill", "--signal=HUP", "--kill-whom=main", "tetrad")
    failed = wait_for_entry(service, "server.reload_failed")
    started = wait_for_entry(service, "server.started")
    assert (started["PRIORITY"], invalid["PRIORITY"], failed["PRIORITY"]) == ("6", "4", "3")
    texts = [str(entry["MESSAGE"]) for entry in entries(service)]
    assert not [text for text in texts if "Ctrl-C" in text or "timestamp" in text or "<4>" in text]


def test_a_failed_reload_by_a_signal_reaches_the_status(service: Service) -> None:
    """In the default mode: `systemctl status` shows it, with the place of the error."""
    service.do("start", "tetrad")
    service.configure(listen=[{"port": 70000}])
    service.do("kill", "--signal=HUP", "--kill-whom=main", "tetrad")
    service.wait_for_status_text("server.reload_failed: /etc/tetrad/tetrad.yaml:")
    service.configure()
    service.do("reload", "tetrad")
    wanted = "127.0.0.1:65000 (command); 0 clients"
    until(lambda: service.get_property("StatusText") == wanted, "a status without the problem")
