"""Revocation lists of client certificates: the key `client_crl`."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import DAY, Authority, Pair, concatenated, needs_openssl
from tests.support.clients import ANSWER
from tests.support.commands import run_here
from tests.support.tls_clients import handshake_error, secured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl


class Site:
    """A CA with an intermediate CA, certificates of clients by both, and a file of CRLs."""

    def __init__(self, folder: str, pki: Certificates) -> None:
        self.root = Authority(os.path.join(folder, "root"))
        self.middle = Authority(os.path.join(folder, "middle"), "middle", self.root)
        self.alice = self.root.issue("alice", "/CN=alice", kind="client")
        self.bob = self.root.issue("bob", "/CN=bob", kind="client")
        carol = self.middle.issue("carol", "/CN=carol", kind="client")
        chain = concatenated(f"{folder}/carol.pem", carol.certificate, self.middle.certificate)
        self.carol = Pair(chain, carol.key)
        self.crls = os.path.join(folder, "crls.pem")
        self.write()
        self.listener = pki.tls(client_ca=self.root.certificate, client_crl=self.crls)
        self._pki = pki

    def write(self, *revoked: Pair) -> None:
        """Write the file, with certificates revoked by the root."""
        concatenated(self.crls, self.root.crl(*revoked), self.middle.crl())

    def context(self, pair: Pair) -> ssl.SSLContext:
        """Return the context of a client."""
        return self._pki.context(pair)


@pytest.fixture
def site(tmp_path: Path, pki: Certificates) -> Site:
    """Return the CAs."""
    return Site(str(tmp_path), pki)


def asking(daemon: Daemon, site: Site, pair: Pair) -> Client:
    """Return a TLS client that has been served."""
    client = secured(daemon, site.context(pair))
    assert ANSWER.fullmatch(client.ask())
    return client


def test_a_revoked_certificate_is_rejected_and_its_session_ends(
    daemon: MakeDaemon, site: Site
) -> None:
    """From the reload on; that of a revoked intermediate CA too, and no other."""
    served = daemon(listen=[site.listener])
    alice, bob, carol = (asking(served, site, one) for one in (site.alice, site.bob, site.carol))
    site.write(site.bob, Pair(site.middle.certificate, ""))
    ran = run_here(served, "reload")
    assert "listen[0].tls.client_crl" in ran.out
    for client in (bob, carol):
        assert client.is_refused()
        line = served.wait_for("client.disconnected", client=client.name)
        assert line["reason"] == "access"
    assert ANSWER.fullmatch(alice.ask())
    assert asking(served, site, site.alice).quit() == b"quit"
    client = served.connect()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured(served, site.context(site.bob), plain=client).ask()
    error = handshake_error(served, client)
    assert error == "client certificate rejected: certificate revoked"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda site: site.root.crl(until=-DAY), "a CRL expired on 20"),
        (lambda site: site.root.certificate, "no CRL in PEM format in this file, but CERTIFICATE"),
        (lambda site: write(site.crls, "x"), "no CRL in PEM format in this file"),
        (lambda site: write(site.crls, CUT), "a CRL in this file cannot be parsed"),
        (lambda site: site.crls + "x", "no such file or directory"),
    ],
)
def test_a_file_without_a_usable_crl_is_refused(
    prepared: MakeDaemon,
    site: Site,
    make: Callable[[Site], str],
    error: str,
) -> None:
    """By `check`, at its line."""
    site.listener["tls"]["client_crl"] = make(site)
    ran = run_here(prepared(listen=[site.listener]), "check")
    assert ran.status == 78
    assert "listen[0].tls.client_crl: " in ran.err
    assert error in ran.err


CUT = "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"


def write(path: str, text: str) -> str:
    """Write a file; return its path."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def test_a_crl_needs_a_ca(prepared: MakeDaemon, pki: Certificates) -> None:
    """Without `client_ca`, clients send no certificate."""
    ran = run_here(prepared(listen=[pki.tls(client_crl="x.pem")]), "check")
    assert "listen[0].tls.client_crl: needs client_ca" in ran.err
