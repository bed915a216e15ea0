"""TLS failures and subjects that are not admitted: warnings, and counters in status and metrics."""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority, Pair, needs_openssl
from tests.support.clients import ANSWER
from tests.support.processes import until

if TYPE_CHECKING:
    import pathlib

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

pytestmark = needs_openssl


class Site:
    """A CA, a server with TLS, and two clients, one of which is admitted."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.ca = Authority(str(folder / "ca"))
        certificate, key = self.ca.issue("server")
        self.friend = self.ca.issue("friend", "/CN=friend", kind="client")
        self.other = self.ca.issue("other", "/CN=other", kind="client")
        tls = {"certificate": certificate, "key": key, "client_ca": self.ca.certificate}
        self.listener: dict[str, Any] = {"port": 0, "tls": {**tls, "subjects": ["CN=friend"]}}

    def connect(self, served: Daemon, pair: Pair) -> Client:
        """Connect with a client's certificate."""
        context = ssl.create_default_context(cafile=self.ca.certificate)
        context.load_cert_chain(*pair)
        client = served.connect()
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        return client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return the certificates."""
    return Site(tmp_path_factory.mktemp("site"))


def end_of(served: Daemon, client: Client) -> Event:
    """Wait for the end of a client's session in the log."""
    return served.wait_for("client.disconnected", client=client.name)


def reject_two(served: Daemon, site: Site) -> None:
    """Have one session ended by TLS and one for its subject, and serve one; check the log."""
    plain = served.connect()
    plain.send(b"timetimetimetime")
    with contextlib.suppress(ConnectionError):
        plain.read_all()
    assert (end_of(served, plain)["level"], end_of(served, plain)["reason"]) == ("warning", "tls")
    other = site.connect(served, site.other)
    assert other.is_refused()
    assert (end_of(served, other)["level"], end_of(served, other)["reason"]) == (
        "warning",
        "access",
    )
    friend = site.connect(served, site.friend)
    assert ANSWER.fullmatch(friend.ask())
    friend.quit()
    assert end_of(served, friend)["level"] == "info"


@pytest.mark.parametrize("handlers", [{}, {"spare": 1}, {"clients_each": 10}])
def test_rejected_clients_are_warnings_and_counted(
    daemon: MakeDaemon, site: Site, handlers: dict[str, int]
) -> None:
    """In the log, the status and the metrics; they are not refused, and no handler is lost."""
    served = daemon(listen=[site.listener], handlers=handlers)
    assert served.status()["rejected"] == {"tls": 0, "access": 0}
    assert "  rejected" not in served.tetrad("status").out
    reject_two(served, site)
    until(lambda: served.status()["clients"]["now"] == 0, "the end of the sessions")
    status = served.status()
    assert status["rejected"] == {"tls": 1, "access": 1}
    assert (status["accepted"], status["handlers"]["lost"]) == (3, 0)
    assert set(status["refused"].values()) == {0}
    assert "rejected   1 tls, 1 access\n" in served.tetrad("status").out
    metrics = served.tetrad("status", "--format", "openmetrics").out
    assert 'tetrad_rejected_total{reason="access"} 1\n' in metrics
    assert 'tetrad_rejected_total{reason="tls"} 1\n' in metrics


def test_an_upgrade_keeps_the_counts(daemon: MakeDaemon, site: Site) -> None:
    """Like the other counters."""
    served = daemon(listen=[site.listener])
    reject_two(served, site)
    until(lambda: served.status()["rejected"]["access"], "the count")
    assert served.tetrad("upgrade").status == 0
    assert served.status()["rejected"] == {"tls": 1, "access": 1}


def test_rejections_are_counted_at_every_log_level(daemon: MakeDaemon, site: Site) -> None:
    """They do not pass through the log."""
    served = daemon(listen=[site.listener], log={"level": "error"})
    plain = served.connect()
    plain.send(os.urandom(99))
    with contextlib.suppress(ConnectionError):
        plain.read_all()
    until(lambda: served.status()["rejected"]["tls"] == 1, "the count")
