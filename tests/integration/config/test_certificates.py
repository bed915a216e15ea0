"""Keys and certificates that do not belong together, and files of another kind."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import PROGRAM, needs_openssl
from tests.support.configuration_files import read
from tetrad.config import certificates
from tetrad.config.diagnostics import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_openssl

ALGORITHMS = {
    "rsa": ("rsa:2048",),
    "ec": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "other ec": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ed25519": ("ed25519",),
}

NO_KEY = "no private key in PEM format in this file"
NO_CERTIFICATE = "no certificate in PEM format in this file"
CUT = "-----BEGIN PRIVATE KEY----- without -----END PRIVATE KEY-----"
BINARY = "which is binary, such as DER or PKCS #12; openssl x509, pkey or pkcs12 converts it"


def openssl(*arguments: str | Path) -> None:
    """Run openssl."""
    subprocess.run([PROGRAM, *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate and a key for each algorithm, and with other files."""
    folder = tmp_path_factory.mktemp("keys")
    for name, algorithm in ALGORITHMS.items():
        key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
        request = ("req", "-x509", "-nodes", "-days", "9", "-subj", f"/CN={name}")
        openssl(*request, "-newkey", *algorithm, "-keyout", key, "-out", certificate)
    certificate, key = folder / "rsa.crt", folder / "rsa.key"
    for name in ("rsa", "ed25519"):
        cipher = ("pkey", "-aes128", "-passout", "pass:abcd")
        clear, secret = folder / f"{name}.key", folder / f"secret {name}.key"
        openssl(*cipher, "-in", clear, "-out", secret)
    old = ("rsa", "-aes128", "-passout", "pass:abcd", "-traditional")
    openssl(*old, "-in", key, "-out", folder / "old secret.key")
    openssl("pkey", "-outform", "DER", "-in", key, "-out", folder / "key.der")
    openssl("x509", "-outform", "DER", "-in", certificate, "-out", folder / "certificate.der")
    openssl("pkey", "-pubout", "-in", key, "-out", folder / "public.pem")
    openssl("req", "-new", "-subj", "/CN=x", "-key", key, "-out", folder / "request.pem")
    (folder / "empty").touch()
    (folder / "notes").write_text("not today")
    (folder / "cut.key").write_bytes(key.read_bytes()[:300])
    (folder / "both.pem").write_bytes((folder / "ec.key").read_bytes() + certificate.read_bytes())
    openssh = key.read_text().replace(" PRIVATE KEY", " OPENSSH PRIVATE KEY")
    (folder / "ssh.key").write_text(openssh)
    return folder


def problem(folder: Path, certificate: str, key: str) -> str:
    """Return the error of a listener with these files; nothing if there is none."""
    names = f"certificate: {folder}/{certificate}, key: {folder / key if key else 'null'}"
    loaded = read(folder / "tetrad.yaml", f"listen: [{{port: 1, tls: {{{names}}}}}]")
    assert loaded.problems == []
    try:
        certificates.read(loaded)
    except ConfigError as error:
        (text,) = error.problems
        return text.partition("listen[0].tls.")[2].replace(f"{folder}/", "")
    return ""


@pytest.mark.parametrize(("certificate", "key"), list(itertools.product(ALGORITHMS, repeat=2)))
def test_a_key_of_another_certificate_is_refused(folder: Path, certificate: str, key: str) -> None:
    """Whether it has another algorithm or only another value; both files are named."""
    expected = f"key: {key}.key: the key does not match the certificate in {certificate}.crt"
    found = problem(folder, f"{certificate}.crt", f"{key}.key")
    assert found == ("" if certificate == key else expected)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("secret rsa.key", "the private key is encrypted; remove its passphrase"),
        ("secret ed25519.key", "the private key is encrypted; remove its passphrase"),
        ("old secret.key", "the private key is encrypted; remove its passphrase"),
        (
            "cut.key",
            f"the private key cannot be parsed: line 1: {CUT}",
        ),
        ("rsa.crt", f"{NO_KEY}, but CERTIFICATE"),
        ("public.pem", f"{NO_KEY}, but PUBLIC KEY"),
        ("ssh.key", f"{NO_KEY}, but OPENSSH PRIVATE KEY"),
        ("key.der", f"{NO_KEY}, {BINARY}"),
        ("empty", f"{NO_KEY}, which is empty"),
        ("notes", NO_KEY),
    ],
)
def test_a_file_that_is_no_usable_key_is_described(folder: Path, key: str, message: str) -> None:
    """By what it has instead."""
    found = problem(folder, "rsa.crt", key)
    assert found.removesuffix(" (openssl pkey -in FILE -out FILE)") == f"key: {key}: {message}"


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("rsa.key", "rsa.key", f"{NO_CERTIFICATE}, but PRIVATE KEY"),
        ("request.pem", "rsa.key", f"{NO_CERTIFICATE}, but CERTIFICATE REQUEST"),
        ("certificate.der", "rsa.key", f"{NO_CERTIFICATE}, {BINARY}"),
        ("empty", "rsa.key", f"{NO_CERTIFICATE}, which is empty"),
        ("both.pem", "", "the key does not match the certificate in this file"),
        ("rsa.crt", "", f"{NO_KEY}, but CERTIFICATE"),
    ],
)
def test_a_file_that_is_no_usable_certificate_is_described(
    folder: Path, certificate: str, key: str, message: str
) -> None:
    """Also one that should have the key, too."""
    assert problem(folder, certificate, key) == f"certificate: {certificate}: {message}"
