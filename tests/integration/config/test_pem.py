"""PEM files as other tools write them: a listener accepts what OpenSSL accepts."""

from __future__ import annotations

import codecs
import os
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import PROGRAM, needs_openssl
from tests.support.configuration_files import read
from tetrad.config import certificates
from tetrad.config.diagnostics import ConfigError
from tetrad.tls import trust

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_openssl

PASSWORD = ("-aes128", "-passout", "pass:abcd")
DAMAGED_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
OTHER = b"-----BEGIN X-----\nAAAA\n-----END X-----\n"

NO_KEY = "no private key in PEM format in this file"
NO_CERTIFICATE = "no certificate in PEM format in this file"
ENCRYPTED = "the private key is encrypted; remove its passphrase (openssl pkey -in FILE -out FILE)"
CANNOT_SIGN = "the private key cannot sign, such as one for X25519; use RSA, EC or Ed25519"


def openssl(*arguments: str | Path) -> None:
    """Run openssl."""
    subprocess.run([PROGRAM, *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return certificates (.crt) and keys (.key) by algorithm, and other blocks."""
    folder = tmp_path_factory.mktemp("pem")
    algorithms = {
        "rsa": ("rsa",),
        "ec": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        "secp256k1": ("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
        "ed25519": ("ed25519",),
        "ed448": ("ed448",),
        "x25519": ("x25519",),
        "dh": ("dh", "-pkeyopt", "group:ffdhe2048"),
    }
    key = folder / "rsa.key"
    for name, algorithm in algorithms.items():
        made = folder / f"{name}.key"
        openssl("genpkey", "-algorithm", *algorithm, "-out", made)
        if name not in {"x25519", "dh"}:
            subject = ("-days", "9", "-subj", f"/CN={name}")
            openssl("req", "-x509", *subject, "-key", made, "-out", folder / f"{name}.crt")
    openssl("rsa", "-traditional", "-in", key, "-out", folder / "pkcs1")
    openssl("ec", "-in", folder / "ec.key", "-out", folder / "sec1")
    openssl("ecparam", "-name", "P-256", "-out", folder / "parameters")
    openssl("pkey", *PASSWORD, "-in", key, "-out", folder / "secret")
    openssl("rsa", *PASSWORD, "-traditional", "-in", key, "-out", folder / "old secret")
    openssl("pkey", "-aes128", "-passout", "pass:", "-in", key, "-out", folder / "open secret")
    openssl("pkey", "-pubout", "-in", key, "-out", folder / "public")
    for use in ("trust", "reject"):
        trust = ("-trustout", f"-add{use}", "serverAuth")
        openssl("x509", *trust, "-in", folder / "rsa.crt", "-out", folder / f"{use}ed")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def body_in_lines_of(count: int, block: bytes) -> bytes:
    """Return a block with this many characters in a line."""
    first, *lines, last = block.strip().split(b"\n")
    body = b"".join(lines)
    pieces = [body[start : start + count] for start in range(0, len(body), count)]
    return b"\n".join([first, *pieces, last, b""])


def as_written(block: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a block as tools and editors write it."""
    yield "byte order mark", codecs.BOM_UTF8 + block
    yield "CRLF", block.replace(b"\n", b"\r\n")
    yield "CRCRLF", block.replace(b"\n", b"\r\r\n")
    yield "byte order mark and CRLF", codecs.BOM_UTF8 + block.replace(b"\n", b"\r\n")
    yield "trailing spaces", block.replace(b"\n", b" \t \n")
    yield "trailing NBSP", block.replace(b"\n", "\xa0\n".encode())
    yield "no final newline", block.rstrip()
    yield "the end of a DOS file", block + b"\x1a"
    yield "comments", "# Főtanúsítvány\n".encode() + block + b"\n# \xff\n"
    yield "attributes", b"Bag Attributes\n    localKeyID: 01\nsubject=CN = \xe9\n\n" + block
    yield "markup", b"<pre>\n" + block + b"</pre>"
    yield "one line", body_in_lines_of(9999, block)
    yield "76 characters a line", body_in_lines_of(76, block)
    yield "another block before and after", OTHER + block + OTHER


def accepted(files: dict[str, bytes]) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield certificates and keys that OpenSSL accepts; the key may be in the first file."""
    certificate, key, sec1 = files["rsa.crt"], files["rsa.key"], files["sec1"]
    for (name, one), (_, other) in zip(as_written(certificate), as_written(key), strict=True):
        yield name, one, other
    for name in ("ec", "ed25519", "ed448"):
        yield name, files[f"{name}.crt"], files[f"{name}.key"]
    yield "PKCS #1", certificate, files["pkcs1"]
    yield "PKCS #8 labelled PKCS #1", certificate, key.replace(b" PRIVATE", b" RSA PRIVATE")
    yield "SEC 1", files["ec.crt"], sec1
    yield "parameters before", files["ec.crt"], files["parameters"] + sec1
    yield "parameters after", files["ec.crt"], sec1 + files["parameters"]
    yield "parameters first", files["parameters"] + certificate + key, b""
    yield "key first", key + certificate, b""
    yield "certificate, key", certificate, certificate + key
    yield "public key, key", certificate, files["public"] + key
    yield "several keys", certificate, key + files["ec.key"] + key
    yield "key, encrypted keys", certificate, key + files["secret"] + files["old secret"]
    yield "empty passphrase", certificate, files["open secret"]
    yield "damaged key, key", certificate, DAMAGED_KEY + key
    yield "OpenSSH key, key", certificate, key.replace(b" PRIVATE", b" OPENSSH PRIVATE") + key
    yield "X509 CERTIFICATE", certificate.replace(b" CERT", b" X509 CERT"), key
    yield "TRUSTED CERTIFICATE", files["trusted"], key
    yield "TRUSTED CERTIFICATE, rejected", files["rejected"], key
    yield "CERTIFICATE, TRUSTED CERTIFICATE", certificate + files["trusted"], key


def refused(files: dict[str, bytes]) -> Iterator[tuple[bytes, bytes, str]]:
    """Yield certificates and keys that OpenSSL does not accept, and the message."""
    certificate, key = files["rsa.crt"], files["rsa.key"]
    last = certificate.count(b"\n")
    end, joined = "-----END CERTIFICATE-----", "what follows needs a line of its own"
    key_end = "line {}: text after -----END PRIVATE KEY-----".format(key.count(b"\n"))
    other_end = f"line {last}: -----END OLD CERTIFICATE----- ends the block CERTIFICATE of line 1"
    unparsed = "a certificate in this file cannot be parsed"
    cut = f"-----BEGIN CERTIFICATE----- without {end}"
    yield (
        certificate.replace(b"\n", b"\r"),
        key,
        rf"certificate: {NO_CERTIFICATE}, whose lines end with CR; tr '\r' '\n' converts it",
    )
    yield (
        certificate,
        key.decode().encode("utf-16"),
        f"key: {NO_KEY}, which is UTF-16; iconv -f UTF-16 -t UTF-8 converts it",
    )
    yield (
        b"#\n " + certificate,
        key,
        f"certificate: {NO_CERTIFICATE}, but text before or after -----BEGIN ...----- in line 2",
    )
    yield (
        certificate.rstrip() + certificate,
        key,
        f"certificate: {unparsed}: line {last}: text after {end}; {joined}",
    )
    yield (
        certificate,
        key.rstrip() + certificate,
        f"key: the private key cannot be parsed: {key_end}; {joined}",
    )
    yield certificate + certificate[:99], key, f"certificate: {unparsed}: line {last + 1}: {cut}"
    yield certificate[:99] + b"\n" + certificate, key, f"certificate: {unparsed}: line 1: {cut}"
    yield (
        certificate.replace(b"END C", b"END OLD C"),
        key,
        f"certificate: {unparsed}: {other_end}",
    )
    yield (
        certificate + certificate.replace(b"\nM", b"\nA"),
        key,
        f"certificate: {unparsed}: line {last + 1}",
    )
    mismatch = "key: the key does not match the certificate in certificate.pem"
    yield certificate, files["ec.key"] + key, mismatch
    first = "the server's certificate comes first"
    yield files["ec.crt"] + certificate, key, f"{mismatch}; {first}"
    yield certificate, files["secret"], f"key: {ENCRYPTED}"
    yield certificate, files["old secret"] + key, f"key: {ENCRYPTED}"
    yield certificate, DAMAGED_KEY, "key: the private key cannot be parsed"
    yield certificate, files["parameters"], f"key: {NO_KEY}, but EC PARAMETERS"
    yield certificate, files["x25519.key"], f"key: {CANNOT_SIGN}"
    yield certificate, files["dh.key"], f"key: {CANNOT_SIGN}"


def write(folder: Path, certificate: bytes, key: bytes) -> tuple[str, str | None]:
    """Write the files; return their paths."""
    for name, data in (("certificate.pem", certificate), ("key.pem", key)):
        (folder / name).write_bytes(data)
    return str(folder / "certificate.pem"), str(folder / "key.pem") if key else None


def loads(certificate: str, key: str | None) -> bool:
    """Tell whether OpenSSL accepts the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=str)
    except ssl.SSLError:
        return False
    return True


def problem(folder: Path, certificate: str, key: str | None) -> str:
    """Return the error of a listener with these files; nothing if there is none."""
    tls = f"certificate: {certificate}, key: {key or 'null'}"
    loaded = read(folder / "tetrad.yaml", f"listen: [{{port: 1, tls: {{{tls}}}}}]")
    try:
        certificates.read(loaded.checked())
    except ConfigError as error:
        (text,) = error.problems
        setting, _, message = text.partition("listen[0].tls.")[2].partition(": ")
        path, _, reason = message.partition(": ")
        assert path == {"key": key}.get(setting, certificate)
        return f"{setting}: {reason}".replace(f"{folder}/", "")
    return ""


def test_files_that_openssl_accepts_are_accepted(files: dict[str, bytes], tmp_path: Path) -> None:
    """However tools and editors write them, in any order, and with other blocks."""
    for name, certificate, key in accepted(files):
        paths = write(tmp_path, certificate, key)
        assert loads(*paths), name
        assert problem(tmp_path, *paths) == "", name


def test_files_that_openssl_refuses_are_described(files: dict[str, bytes], tmp_path: Path) -> None:
    """The message has the file at fault, what is wrong with it, and where."""
    for certificate, key, message in refused(files):
        paths = write(tmp_path, certificate, key)
        assert not loads(*paths), message
        assert problem(tmp_path, *paths) == message


def trust_in(folder: Path, files: dict[str, bytes], client_ca: bytes) -> trust.ClientTrust | None:
    """Return which clients a listener accepts that has CAs of clients."""
    certificate, key = write(folder, files["rsa.crt"], files["rsa.key"])
    (folder / "ca.pem").write_bytes(client_ca)
    tls = f"certificate: {certificate}, key: {key}, client_ca: {folder}/ca.pem"
    loaded = read(folder / "tetrad.yaml", f"listen: [{{port: 1, tls: {{{tls}}}}}]")
    (found,) = certificates.read(loaded.checked())
    return None if found is None else trust.of(found.config)


def test_client_cas_that_openssl_accepts_are_accepted(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    """However tools and editors write them."""
    for _, authority, _ in accepted(files):
        assert trust_in(tmp_path, files, authority) is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(tmp_path / "ca.pem")


def test_a_reload_knows_a_ca_by_every_label(files: dict[str, bytes], tmp_path: Path) -> None:
    """Also with the uses that it is trusted for."""
    plain = files["rsa.crt"]
    old = plain.replace(b" CERTIFICATE", b" X509 CERTIFICATE")
    assert trust_in(tmp_path, files, plain) != trust_in(tmp_path, files, files["ec.crt"])
    for authority in (old, files["trusted"], files["rejected"]):
        assert trust_in(tmp_path, files, authority) == trust_in(tmp_path, files, plain)


def test_a_key_that_no_client_supports_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    """OpenSSL accepts the file, but no handshake succeeds."""
    paths = write(tmp_path, files["secp256k1.crt"], files["secp256k1.key"])
    assert loads(*paths)
    expected = "certificate: no shared cipher; no client supports this kind of key"
    assert problem(tmp_path, *paths) == expected


def test_a_damaged_key_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    """OpenSSL accepts it if its public part is that of the certificate."""
    key = ssl.PEM_cert_to_DER_cert(files["sec1"].decode().replace("EC PRIVATE KEY", "CERTIFICATE"))
    damaged = key[:7] + bytes(byte ^ 1 for byte in key[7:39]) + key[39:]  # the secret number
    text = ssl.DER_cert_to_PEM_cert(damaged).replace("CERTIFICATE", "EC PRIVATE KEY")
    paths = write(tmp_path, files["ec.crt"], text.encode())
    assert loads(*paths)
    assert problem(tmp_path, *paths) == "key: the private key is damaged: bad signature"


def test_a_certificate_with_an_invalid_date_is_refused(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    """OpenSSL accepts the file, but no client accepts the certificate."""
    data = ssl.PEM_cert_to_DER_cert(files["ec.crt"].decode())
    at = data.index(b"\x17\x0d") + 4  # the month of the first UTCTime
    text = ssl.DER_cert_to_PEM_cert(data[:at] + b"99" + data[at + 2 :])
    paths = write(tmp_path, text.encode(), files["ec.key"])
    assert loads(*paths)
    found = problem(tmp_path, *paths)
    assert found.startswith("certificate: the certificate has an invalid date")


def test_a_named_pipe_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    """Opening it would wait for a writer."""
    certificate, _ = write(tmp_path, files["rsa.crt"], b"")
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    assert problem(tmp_path, certificate, pipe) == "key: not a regular file"
