"""`tetrad client` with TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.certificates import needs_openssl

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl


def talk(daemon: Daemon, *options: str, words: tuple[str, ...] = ("quit",)) -> Any:  # noqa: ANN401
    """Run `tetrad client`."""
    return daemon.tetrad("client", "--port", str(daemon.port), *options, *words)


def test_tetrad_client_with_tls(daemon: MakeDaemon, pki: Certificates) -> None:
    """With a CA, with a certificate, and without verification; its errors have hints."""
    served = daemon(listen=[pki.mutual()])
    shown = ("--cert", pki.monitor.certificate, "--key", pki.monitor.key)
    good = ("--tls", "--ca", pki.ca.certificate)
    assert talk(served, *good, *shown).out == "quit\n"
    assert "(command, tls)\n" in served.tetrad("status").out
    assert talk(served, "--insecure", *shown, words=("time", "quit")).out.endswith("\nquit\n")
    ran = talk(served, *good)
    assert (ran.status, ran.out) == (1, "")
    assert "the server requires a certificate (use --cert)" in ran.err
    ran = talk(served, "--tls", "--ca", pki.other_ca.certificate, *shown)
    assert ran.status == 1
    assert (
        "server certificate rejected: self-signed certificate in certificate chain (use --ca)\n"
        in ran.err
    )
    ran = talk(served, *good, "--cert", "/nowhere")
    assert (ran.status, "/nowhere: no such file" in ran.err) == (1, True)
    ran = talk(served, *good, "--cert", pki.monitor.certificate, "--key", pki.other.key)
    assert "the key does not match the certificate" in ran.err
    ran = talk(served, *good, "--cert", pki.monitor.certificate)
    assert f"{pki.monitor.certificate}: no private key in PEM format in this file" in ran.err
    ran = talk(served, "--ca", pki.monitor.key)
    assert f"{pki.monitor.key}: no certificate in PEM format in this file, but" in ran.err


def test_tetrad_client_with_tls_and_a_server_without(daemon: MakeDaemon) -> None:
    """It fails with one line when the server closes the connection, and prints no answer."""
    ran = talk(daemon(session={"first_command_timeout": "300ms"}), "--tls")
    assert (ran.status, ran.out) == (1, "")
    assert "Traceback" not in ran.err
