"""Certificates and keys of listeners: read, and verified before a daemon uses them.

A TLS server with the files and a client that trusts the last certificate of the chain perform a
handshake in memory. So the check finds what clients would find, and needs no certificate parser.
"""

from __future__ import annotations

import re
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tetrad.config.diagnostics import ConfigError
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.system import memory_file
from tetrad.system.text import reason_of
from tetrad.tls import der
from tetrad.tls.context import server_context
from tetrad.tls.errors import KEY_MISMATCHES, describe
from tetrad.tls.expiry import EXPIRY_WARNING_SECONDS
from tetrad.tls.subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tetrad.config.model import Tls
    from tetrad.config.result import ConfigResult

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_CRL = re.compile("-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_KEY = re.compile("-----BEGIN ((RSA|EC|ENCRYPTED) )?PRIVATE KEY-----")
_LABEL = re.compile("-----BEGIN ([A-Z0-9 ]+)-----")
_BINARY = re.compile("[\0-\b]")
_ENCRYPTED = re.compile("BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")

_MAX_BYTES = 1 << 20

_SHOWN_CAS = 4

_HANDSHAKE_STEPS = 4
"""The most steps of each side in a handshake."""

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` does not name: `_verify` checks the dates."""


class ListenerTls(NamedTuple):
    """The TLS configuration of a listener, and settings that show a reload what has changed."""

    config: TlsConfig
    settings: dict[str, str]


class _TlsError(Exception):
    """The file that a key of `listen[].tls` names cannot be used."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read(loaded: ConfigResult) -> list[ListenerTls | None]:
    """Return the TLS configuration of each listener; None without `tls`. Raises ConfigError."""
    found: list[ListenerTls | None] = []
    problems = []
    for index, listener in enumerate(loaded.config.listen):
        path = f"listen[{index}].tls"
        try:
            found.append(None if listener.tls is None else _read_listener(listener.tls, path))
        except _TlsError as error:
            problems.append(loaded.error_at(f"{path}.{error.key}", str(error)))
    if problems:
        raise ConfigError(problems)
    return found


def expiry_warnings(found: Sequence[ListenerTls | None]) -> Iterator[str]:
    """Return a warning for each certificate that expires soon."""
    for one in found:
        if one is not None and one.config["expires"] - time.time() < EXPIRY_WARNING_SECONDS:
            file, date = one.config["file"], _date(one.config["expires"])
            yield f"{file}: the certificate expires on {date}; renew it, then run tetrad reload"


def _read_listener(settings: Tls, path: str) -> ListenerTls:
    certificate = _read_file("certificate", settings.certificate)
    config = TlsConfig(
        file=str(settings.certificate),
        certificate=certificate,
        key=certificate if settings.key is None else _read_file("key", settings.key),
        expires=0.0,
        client_ca=settings.client_ca and _read_file("client_ca", settings.client_ca),
        client_crl=settings.client_crl and _read_file("client_crl", settings.client_crl),
        minimum_version=str(settings.minimum_version),
        subjects=[str(subject) for subject in settings.subjects],
    )
    shown = {}
    _require_certificates("certificate", settings.certificate, certificate)
    _require_key(*_key_setting(settings), config["key"])
    if config["client_ca"] is not None and settings.client_ca is not None:
        _require_certificates("client_ca", settings.client_ca, config["client_ca"])
        shown[f"{path}.client_ca"] = _describe_ca(settings.client_ca, config["client_ca"])
    if config["client_crl"] is not None:
        shown[f"{path}.client_crl"] = _describe_crl(str(settings.client_crl), config["client_crl"])
    facts = _verify(config, settings)
    config["expires"] = float(ssl.cert_time_to_seconds(facts["notAfter"]))
    until = _date(config["expires"])
    shown[f"{path}.certificate"] = (
        f"{config['file']} (serial {facts['serialNumber']}, until {until})"
    )
    return ListenerTls(config, shown)


def _read_file(key: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _TlsError(key, f"{path}: {reason_of(error)}") from None
    if len(data) > _MAX_BYTES:
        raise _TlsError(key, f"{path}: larger than 1 MiB; not a file of certificates and keys")
    # Comments between the PEM blocks may be in any encoding.
    return data.decode("ascii", "replace").replace("\ufffd", "?")


def _require_certificates(key: str, path: str, text: str) -> None:
    if not _CERTIFICATE.search(text):
        raise _TlsError(key, f"{path}: no certificate in PEM format in this file{_contents(text)}")
    try:
        for one in _CERTIFICATE.findall(text):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=one)
    except (ssl.SSLError, ValueError):
        raise _TlsError(key, f"{path}: a certificate in this file cannot be parsed") from None


def _describe_ca(path: str, text: str) -> str:
    """Return the names of the CAs in a file, which a reload compares; of many, the first ones."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=text)
    names = [subject_of(one) for one in context.get_ca_certs()]
    more = len(names) - _SHOWN_CAS
    shown = "; ".join(names[:_SHOWN_CAS]) + (f"; {more} more" if more > 0 else "")
    return f"{path} ({shown})" if names else path


def _describe_crl(path: str, text: str) -> str:
    """Check revocation lists; return how many certificates they revoke, and until when they are."""
    if not _CRL.search(text):
        raise _TlsError("client_crl", f"{path}: no CRL in PEM format in this file{_contents(text)}")
    try:
        with memory_file.path_of("crl", text.encode()) as file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
        crls = list(der.pem_blocks(text, der.CRL))
        revoked = {one for crl in crls for one in der.revoked_ids(crl)}
        ends = [_moment(end) for crl in crls if (end := der.next_update(crl)) is not None]
    except (ssl.SSLError, ValueError):
        raise _TlsError("client_crl", f"{path}: a CRL in this file cannot be parsed") from None
    if not ends:
        return f"{path} ({len(revoked)} revoked)"
    until = _date(min(ends))
    if min(ends) <= time.time():
        effect = f"so no client would be accepted{_clock(time.time())}"
        message = f"{path}: a CRL expired on {until}, {effect}"
        raise _TlsError("client_crl", message)
    return f"{path} ({len(revoked)} revoked, until {until})"


def _moment(text: str) -> float:
    """Return the time of a UTCTime (two digits of the year) or a GeneralizedTime."""
    year = "" if len(text) > len("YYMMDDHHMMSSZ") else "19" if text >= "50" else "20"
    return datetime.strptime(f"{year}{text}".replace("Z", "+0000"), "%Y%m%d%H%M%S%z").timestamp()


def _require_key(key: str, path: str, text: str) -> None:
    if not _KEY.search(text):
        raise _TlsError(key, f"{path}: no private key in PEM format in this file{_contents(text)}")
    if _ENCRYPTED.search(text):
        way_out = "remove its passphrase (openssl pkey -in FILE -out FILE)"
        raise _TlsError(key, f"{path}: the private key is encrypted; {way_out}")


def _contents(text: str) -> str:
    """Return what a file has instead, to follow a message; nothing if that cannot be told."""
    if labels := dict.fromkeys(_LABEL.findall(text)):
        return f", but {', '.join(labels)}"
    if _BINARY.search(text):
        way_out = "openssl x509, pkey or pkcs12 converts it"
        return f", which is binary, such as DER or PKCS #12; {way_out}"
    return "" if text.strip() else ", which is empty"


def _key_setting(settings: Tls) -> tuple[str, str]:
    """Return the key of the configuration that names the private key, and the file."""
    if settings.key is None:
        return "certificate", settings.certificate
    return "key", settings.key


def _verify(config: TlsConfig, settings: Tls) -> dict[str, Any]:
    """Check dates and chain of the certificate; return the fields of `getpeercert`."""
    facts = _handshake(config, settings, _NO_CHECK_TIME)
    now = time.time()
    since, until = (ssl.cert_time_to_seconds(facts[key]) for key in ("notBefore", "notAfter"))
    if until <= now:
        _reject(config, f"the certificate expired on {_date(until)}{_clock(now)}")
    if since > now:
        _reject(config, f"the certificate is not valid before {_second(since)}{_clock(now)}")
    _handshake(config, settings, 0)
    return facts


def _handshake(config: TlsConfig, settings: Tls, flags: int) -> dict[str, Any]:
    """Perform a handshake; return what the client knows of the server's certificate."""
    try:
        server = server_context(config)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason.startswith(("EE_", "CA_")):
            _reject(config, describe(error, "client"))
        key, path = _key_setting(settings)
        message = "the private key cannot be parsed"
        if reason in KEY_MISMATCHES:
            other = "this file" if path == config["file"] else config["file"]
            message = f"{describe(error, 'client')} in {other}"
        raise _TlsError(key, f"{path}: {message}") from None
    server.verify_mode = ssl.CERT_NONE
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | flags
    client.load_verify_locations(cadata=_CERTIFICATE.findall(config["certificate"])[-1])
    try:
        return _exchange(server, client)
    except ssl.SSLCertVerificationError as error:
        order = "the server's certificate comes first, then its intermediate CAs"
        _reject(config, f"server certificate rejected: {error.verify_message} ({order})")
    except ssl.SSLError as error:
        _reject(config, describe(error, "client"))


def _exchange(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    sides = (ours, server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(_HANDSHAKE_STEPS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    facts: dict[str, Any] = ours.getpeercert() or {}
    return facts


def _reject(config: TlsConfig, message: str) -> NoReturn:
    raise _TlsError("certificate", f"{config['file']}: {message}") from None


def _clock(now: float) -> str:
    """Return the time of a check, which may be wrong, to follow what it has found."""
    return f"; the clock of this host says {_second(now)}"


def _second(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
