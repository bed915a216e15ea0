"""A reload takes out a subject, a client CA or a load balancer: the sessions that it let in end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import concatenated, needs_openssl
from tests.support.clients import ANSWER
from tests.support.commands import run_here
from tests.support.processes import until
from tests.support.proxy_headers import TCP4, version_2
from tests.support.tls_clients import secured

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

BALANCER, OTHER_BALANCER = "127.0.0.2", "127.0.0.3"


def reload(daemon: Daemon, listener: dict[str, Any], command: str = "reload") -> str:
    """Reload with another listener in the place of the first, and no others; return the output."""
    daemon.configure(listen=[listener])
    ran = run_here(daemon, command)
    assert ran.status == 0, ran.err
    return ran.out


def assert_ended(daemon: Daemon, *clients: Client) -> None:
    """Check that sessions have ended with the reason access."""
    for client in clients:
        assert client.is_refused()
        line = daemon.wait_for("client.disconnected", client=client.name)
        assert (line["reason"], line["level"]) == ("access", "warning")


def asking(daemon: Daemon, context: ssl.SSLContext) -> Client:
    """Return a TLS client that has been served."""
    client = secured(daemon, context)
    assert ANSWER.fullmatch(client.ask())
    return client


@needs_openssl
@pytest.mark.parametrize("handlers", [{}, {"clients_each": 9}])
def test_a_subject_that_is_taken_out(
    daemon: MakeDaemon, pki: Certificates, handlers: dict[str, int]
) -> None:
    """Of two clients, the one that no pattern matches any more."""
    served = daemon(listen=[pki.mutual(subjects=["CN=*"])], handlers=handlers)
    monitor, other = (asking(served, pki.context(one)) for one in (pki.monitor, pki.other))
    reload(served, pki.mutual(subjects=["CN=m*", "CN=x"]))
    assert_ended(served, other)
    assert ANSWER.fullmatch(monitor.ask())
    assert served.status()["rejected"]["access"] == 1
    reload(served, pki.mutual(subjects=["CN=nobody"]))
    assert_ended(served, monitor)


@needs_openssl
@pytest.mark.parametrize("command", ["reload", "upgrade"])
def test_a_client_ca_that_is_taken_out(
    daemon: MakeDaemon, pki: Certificates, tmp_path: Path, command: str
) -> None:
    """The clients of the other CA in the file stay. An upgrade reads the file, too."""
    bundle = concatenated(f"{tmp_path}/ca.pem", pki.ca.certificate, pki.other_ca.certificate)
    listener = pki.tls(client_ca=bundle)
    served = daemon(listen=[listener])
    monitor, forged = (asking(served, pki.context(one)) for one in (pki.monitor, pki.forged))
    concatenated(bundle, pki.ca.certificate)
    said = reload(served, listener, command)
    ours = "CN=tetrad test CA,O=tetrad"
    change = f"listen[0].tls.client_ca: {bundle} ({ours}; {ours}) -> {bundle} ({ours})"
    assert command == "upgrade" or change in said
    assert_ended(served, forged)
    assert ANSWER.fullmatch(monitor.ask())


@needs_openssl
def test_a_handshake_that_was_not_over_ends(daemon: MakeDaemon, pki: Certificates) -> None:
    """It would be by the rules before; a handshake that begins after the reload is not affected."""
    served = daemon(listen=[pki.mutual()])
    silent = served.connect()
    served.wait_for("client.connected", client=silent.name)
    reload(served, pki.mutual(subjects=["CN=monitor*"]))
    assert_ended(served, silent)
    assert asking(served, pki.context(pki.monitor)).quit() == b"quit"


@needs_openssl
def test_a_reload_that_takes_nothing_out(daemon: MakeDaemon, pki: Certificates) -> None:
    """No session ends, not even in a handshake; nor does one of a listener that is removed."""
    listener = pki.mutual(subjects=["CN=monitor,*"])
    served = daemon(listen=[listener, pki.mutual()])
    client = asking(served, pki.context(pki.monitor))
    at_removed = secured(served, pki.context(pki.other), 1)
    silent = served.connect()
    served.wait_for("client.connected", client=silent.name)
    reload(served, {**listener, "reply_terminator": "\r\n"})
    assert ANSWER.fullmatch(client.ask())
    assert ANSWER.fullmatch(at_removed.ask())
    secured(served, pki.context(pki.monitor), plain=silent)
    assert silent.quit() == b"quit"
    assert not served.events("client.disconnected", reason="access")


def behind(daemon: Daemon, balancer: str, *, has_header: bool = True) -> Client:
    """Return a client behind a balancer, which has been served if it has sent a header."""
    client = daemon.connect(source=balancer)
    if has_header:
        client.send(version_2(TCP4))
        assert ANSWER.fullmatch(client.ask())
    else:
        client.send(version_2(TCP4)[:5])
    return client


def test_a_balancer_that_is_taken_out(daemon: MakeDaemon) -> None:
    """The sessions behind it, and connections whose header is not complete; not those of others."""
    listener = {"port": 0, "proxy": {"trusted": [BALANCER, OTHER_BALANCER]}}
    served = daemon(listen=[listener])
    stays, ends = behind(served, OTHER_BALANCER), behind(served, BALANCER)
    half = behind(served, BALANCER, has_header=False)
    until(lambda: served.status()["clients"]["now"] == 3, "the connections")
    reload(served, {"port": 0, "proxy": {"trusted": [OTHER_BALANCER]}})
    assert ends.is_refused()
    half.send(version_2(TCP4)[5:])
    assert half.is_refused()
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["proxy"].split(":")[0]) == ("access", BALANCER)
    line = served.wait_for("client.refused")
    assert (line["reason"], line["rule"]) == ("access", "listen[0].proxy.trusted")
    assert ANSWER.fullmatch(stays.ask())
