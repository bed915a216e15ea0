"""X.509 certificates for the tests, issued with the program `openssl`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import NamedTuple

from tests.support.system_programs import needs

PROGRAM = shutil.which("openssl") or ""

needs_openssl = needs("openssl")

DAY = 86400.0

_USAGE = "critical, keyCertSign, cRLSign"
"""The key usage of a CA certificate. Python 3.13 and later require it."""

_SETTINGS = """
[ca]
default_ca = test_ca
[test_ca]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
certificate = {folder}/cert.pem
private_key = {folder}/key.pem
default_md = sha256
policy = any
unique_subject = no
email_in_dn = yes
[any]
countryName = optional
stateOrProvinceName = optional
localityName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
emailAddress = optional
[server]
basicConstraints = CA:false
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = CA:false
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical, CA:true
keyUsage = {usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Pair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: str
    key: str


class Authority:
    """A certificate authority (CA) with its files in a folder of its own."""

    def __init__(
        self, folder: str, name: str = "tetrad test CA", parent: Authority | None = None
    ) -> None:
        self.folder = folder
        os.mkdir(folder)
        self.certificate = os.path.join(folder, "cert.pem")
        self.key = os.path.join(folder, "key.pem")
        self._settings = os.path.join(folder, "openssl.cnf")
        for file, text in (
            ("index", ""),
            ("index.attr", ""),
            ("serial", "1000\n"),
            ("openssl.cnf", _SETTINGS.format(folder=folder, usage=_USAGE)),
        ):
            with open(os.path.join(folder, file), "w", encoding="ascii") as stream:
                stream.write(text)
        if parent is None:
            subject = f"/O=tetrad/CN={name}"
            out = ("-x509", "-days", "3650", "-keyout", self.key, "-out", self.certificate)
            openssl("req", *NEW_KEY, "-subj", subject, "-addext", f"keyUsage={_USAGE}", *out)
        else:
            made = parent.issue("an-authority", f"/O=tetrad/CN={name}", kind="authority")
            shutil.copy(made.certificate, self.certificate)
            shutil.copy(made.key, self.key)

    def issue(  # noqa: PLR0913
        self,
        name: str,
        subject: str = "/CN=localhost",
        *,
        kind: str = "server",
        since: float = -DAY,
        until: float = 365 * DAY,
        key: str = "",
    ) -> Pair:
        """Issue a certificate with a new key, or with `key`; the dates are seconds from now."""
        made = Pair(*(os.path.join(self.folder, f"{name}.{part}") for part in ("pem", "key")))
        request = os.path.join(self.folder, f"{name}.csr")
        if key:
            shutil.copy(key, made.key)
        key_options = ("-new", "-key", key) if key else (*NEW_KEY, "-keyout", made.key)
        openssl("req", *key_options, "-utf8", "-subj", subject, "-out", request)
        now = time.time()
        dates = ("-startdate", _moment(now + since), "-enddate", _moment(now + until))
        names = ("-config", self._settings, "-extensions", kind, "-utf8")
        files = ("-in", request, "-out", made.certificate)
        openssl("ca", "-batch", "-notext", "-preserveDN", *names, *dates, *files)
        return made

    def crl(self, *revoked: Pair, until: float = 30 * DAY) -> str:
        """Revoke certificates; return the file of the revocation list, which ends at `until`."""
        for pair in revoked:
            openssl("ca", "-config", self._settings, "-revoke", pair.certificate)
        path = os.path.join(self.folder, "crl.pem")
        now = time.time()
        dates = ("-crl_lastupdate", _moment(now - 2 * DAY), "-crl_nextupdate", _moment(now + until))
        openssl("ca", "-config", self._settings, "-gencrl", *dates, "-out", path)
        return path


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str) -> None:
    """Run `openssl`; fail if it exits with an error."""
    command = [PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def concatenated(path: str, *parts: str) -> str:
    """Concatenate files into one file, and return its path."""
    with open(path, "w", encoding="ascii") as combined:
        for part in parts:
            with open(part, encoding="ascii") as file:
                combined.write(file.read())
    return path


def _moment(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))
