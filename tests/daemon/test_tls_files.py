"""Files of certificates and keys: mistakes in them, their expiry, and reloads."""

from __future__ import annotations

import os
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import DAY, PROGRAM, Pair, concatenated, needs_openssl
from tests.support.tls_clients import secured

if TYPE_CHECKING:
    import pathlib

    from tests.support.clients import Client
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

pytestmark = needs_openssl

BAD: dict[str, tuple[str, str]] = {
    "absent": ("certificate", "no such file or directory"),
    "empty": ("certificate", "no certificate in PEM format in this file"),
    "damaged": ("certificate", "a certificate in this file cannot be parsed"),
    "expired": ("certificate", "the certificate expired on 20"),
    "early": ("certificate", "the certificate is not valid before 20"),
    "a client's": ("certificate", "server certificate rejected: unsuitable certificate purpose"),
    "broken chain": ("certificate", "server certificate rejected: unable to get"),
    "no key": ("key", "no private key in PEM format in this file"),
    "damaged key": ("key", "the private key cannot be parsed"),
    "another's key": ("key", "the key does not match the certificate"),
    "secret key": ("key", "the private key is encrypted; remove its passphrase (openssl pkey "),
    "no authority": ("client_ca", "no certificate in PEM format in this file"),
}


def bad_settings(pki: Certificates, folder: str, what: str) -> dict[str, Any]:
    """Return `tls` settings with one mistake."""
    file = os.path.join(folder, "bad.pem")
    good: dict[str, Any] = pki.tls()["tls"]
    with open(file, "w", encoding="ascii") as stream:
        if what.startswith("damaged"):
            kind = "PRIVATE KEY" if "key" in what else "CERTIFICATE"
            stream.write(f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
    if what == "absent":
        os.unlink(file)
    elif what == "expired":
        return good | pki.ca.issue("expired", since=-9 * DAY, until=-DAY)._asdict()
    elif what == "early":
        return good | pki.ca.issue("early", since=DAY)._asdict()
    elif what == "a client's":
        return good | pki.monitor._asdict()
    elif what == "broken chain":
        concatenated(file, pki.server.certificate, pki.other_ca.certificate)
    elif what == "another's key":
        return good | {"key": pki.other.key}
    elif what == "secret key":
        command = (PROGRAM, "pkey", "-aes128", "-passout", "pass:abcd", "-out", file)
        subprocess.run([*command, "-in", pki.server.key], check=True, timeout=60)
    return good | {BAD[what][0]: file}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_certificate_is_reported_with_its_place(
    prepared: MakeDaemon,
    pki: Certificates,
    tmp_path: pathlib.Path,
    what: str,
) -> None:
    """By check, start and restart, which start nothing then."""
    settings = bad_settings(pki, str(tmp_path), what)
    daemon = prepared(listen=[{"port": 0, "tls": settings}])
    key, message = BAD[what]
    with open(daemon.file, encoding="utf-8") as file:
        text = file.read().splitlines()
    line = next(n for n, one in enumerate(text, 1) if one.strip().startswith(f"{key}:"))
    column = text[line - 1].index(": ") + 3
    for command in ("check", "start", "restart"):
        ran = daemon.tetrad(command)
        assert ran.status == 78
        place = f"tetrad: {daemon.file}:{line}:{column}: listen[0].tls.{key}: {settings[key]}: "
        assert ran.err.startswith(place)
        assert message in ran.err
        assert (what in {"expired", "early"}) == ("; the clock of this host says 20" in ran.err)
        assert ran.err.count("\n") == 1


def test_mistakes_in_tls_keys_are_reported(prepared: MakeDaemon) -> None:
    """As in any other section."""
    listen = [
        {"port": 1, "tls": {"key": "x"}},
        {"port": 2, "tls": {"certificate": "x", "subjects": ["CN=x"]}},
        {"port": 3, "tls": {"certificate": "x", "minimum_version": 1.1}},
    ]
    ran = prepared(listen=listen).tetrad("check")
    assert ran.status == 78
    assert "listen[0].tls.certificate: this key is required" in ran.err
    assert (
        "listen[1].tls.subjects: needs client_ca: without it, clients send no certificate"
        in ran.err
    )
    assert "listen[2].tls.minimum_version: expected 1.2 or 1.3" in ran.err


def test_a_certificate_that_expires_soon_is_reported(
    prepared: MakeDaemon, pki: Certificates
) -> None:
    """On standard error and in the log; it is no error."""
    soon = pki.ca.issue("soon", until=20.5 * DAY)
    daemon = prepared(listen=[pki.tls(soon)])
    ran = daemon.tetrad("check")
    assert ran.status == 0
    assert f"tetrad: warning: {soon.certificate}: the certificate expires on 20" in ran.err
    daemon.start()
    line = daemon.wait_for("certificate.expires", level="warning")
    assert (line["certificate"], line["days"]) == (soon.certificate, 20)


def test_a_reload_reads_certificates_again(
    daemon: MakeDaemon, pki: Certificates, tmp_path: pathlib.Path
) -> None:
    """New sessions get the new one, others go on, and a bad one changes nothing."""
    files = Pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    renew(files, pki.server)
    served = daemon(listen=[pki.tls(files)])
    old = secured(served, pki.context())
    assert old.ask()
    assert "nothing changed" in served.tetrad("reload").out
    renew(files, pki.ca.issue("renewed", until=99 * DAY))
    assert "listen[0].tls.certificate: " in served.tetrad("reload").out
    new = secured(served, pki.context())
    assert serial_of(new) != serial_of(old)
    renew(files, Pair(pki.server.certificate, pki.other.key))
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert "the key does not match the certificate" in ran.err
    assert serial_of(secured(served, pki.context())) == serial_of(new)
    assert old.ask()


def renew(files: Pair, pair: Pair) -> None:
    """Replace a certificate and a key."""
    for file, text in zip(files, pair, strict=True):
        concatenated(file, text)


def serial_of(client: Client) -> str:
    """Return the serial number of the server's certificate."""
    assert isinstance(client.socket, ssl.SSLSocket)
    return str((client.socket.getpeercert() or {})["serialNumber"])


def test_a_reload_switches_tls_on_and_off(daemon: MakeDaemon, pki: Certificates) -> None:
    """In a master that started without."""
    served = daemon()
    served.configure(listen=[pki.tls()])
    assert "listen[0].tls" in served.tetrad("reload").out
    assert secured(served, pki.context()).quit() == b"quit"
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").status == 0
    assert served.served().quit() == b"quit"


def test_a_key_that_only_root_can_read_works_until_a_reload(
    prepared: MakeDaemon, pki: Certificates, nobodys_folder: str
) -> None:
    """It is read before the change of user; the reload fails, and the old key stays in use."""
    key = os.path.join(nobodys_folder, "key.pem")
    certificate = concatenated(os.path.join(nobodys_folder, "cert.pem"), pki.server.certificate)
    concatenated(key, pki.server.key)
    os.chmod(key, 0o600)
    settings = pki.tls(Pair(certificate, key))
    served = prepared(folder=nobodys_folder, listen=[settings], daemon={"user": "nobody"})
    served.start()
    assert secured(served, pki.context()).quit() == b"quit"
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert f"listen[0].tls.key: {key}: permission denied" in ran.err
    assert secured(served, pki.context()).quit() == b"quit"


def test_every_missing_file_is_reported(prepared: MakeDaemon) -> None:
    """In one run; a file that is for two keys, once."""
    tls = {name: f"missing/{name}" for name in ("certificate", "key", "client_ca", "client_crl")}
    both = {"certificate": "missing/both"}
    ran = prepared(listen=[{"port": 0, "tls": tls}, {"port": 0, "tls": both}]).tetrad("check")
    assert ran.status == 78
    named = [line.split(": ")[2] for line in ran.err.splitlines()]
    assert named == [f"listen[0].tls.{name}" for name in tls] + ["listen[1].tls.certificate"]
