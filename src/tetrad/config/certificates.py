"""Certificates and keys: read for the plan, and checked before anybody relies on them.

They are tried out: a server that has them and a client that knows the end of the chain shake hands,
in memory. So what is found is what clients would find, and no parser of certificates is needed.
"""

from __future__ import annotations

import re
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tetrad.config.diagnostics import ConfigError
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.system.text import reason_of
from tetrad.tls.context import server_context
from tetrad.tls.errors import describe
from tetrad.tls.expiry import EXPIRY_WARNING_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.config.model import Tls
    from tetrad.config.result import ConfigResult

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile("-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")
_ENCRYPTED = re.compile("BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")

_MOST_BYTES = 1 << 20

_MOST_STEPS = 4
"""What a handshake takes at most, each side in turn."""

_ANY_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the library does not name: we judge it ourselves."""


class Found(NamedTuple):
    """What a listener is encrypted with, and the settings by which a change of it is noticed."""

    config: TlsConfig
    settings: dict[str, str]


class _Bad(Exception):  # noqa: N818 - a problem, with its place
    """Something is wrong with what one key names."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read(loaded: ConfigResult) -> list[Found | None]:
    """Return what each listener is encrypted with, if it is. Raises ConfigError."""
    found: list[Found | None] = []
    problems = []
    for index, listener in enumerate(loaded.config.listen):
        try:
            path = f"listen[{index}].tls"
            found.append(None if listener.tls is None else _look(listener.tls, path))
        except _Bad as bad:
            problems.append(loaded.error_at(f"{path}.{bad.key}", str(bad)))
    if problems:
        raise ConfigError(problems)
    return found


def warnings(found: list[Found | None]) -> Iterator[str]:
    """Say which certificates are near their end."""
    for one in found:
        if one is not None and one.config["expires"] - time.time() < EXPIRY_WARNING_SECONDS:
            yield f"{one.config['file']}: the certificate expires on {_day(one.config['expires'])}"


def _look(settings: Tls, path: str) -> Found:
    certificate = _text("certificate", settings.certificate)
    made = TlsConfig(
        file=str(settings.certificate),
        certificate=certificate,
        key=certificate if settings.key is None else _text("key", settings.key),
        expires=0.0,
        client_ca=settings.client_ca and _text("client_ca", settings.client_ca),
        minimum_version=str(settings.minimum_version),
        subjects=[str(subject) for subject in settings.subjects],
    )
    _insist_on_certificates("certificate", settings.certificate, certificate)
    _insist_on_key(*_place_of_key(settings), made["key"])
    if made["client_ca"] is not None and settings.client_ca is not None:
        _insist_on_certificates("client_ca", settings.client_ca, made["client_ca"])
    facts = _try(made, settings)
    made["expires"] = float(ssl.cert_time_to_seconds(facts["notAfter"]))
    shown = f"{made['file']} (serial {facts['serialNumber']}, until {_day(made['expires'])})"
    return Found(made, {f"{path}.certificate": shown})


def _text(key: str, path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _Bad(key, f"{path}: {reason_of(error)}") from None
    if len(data) > _MOST_BYTES:
        raise _Bad(key, f"{path}: far too long for a file of certificates and keys")
    # Between what is in PEM there may be remarks in any language.
    return data.decode("ascii", "replace").replace("\ufffd", "?")


def _insist_on_certificates(key: str, path: str, text: str) -> None:
    if not _CERTIFICATE.search(text):
        raise _Bad(key, f"{path}: there is no certificate in it, in PEM")
    try:
        for one in _CERTIFICATE.findall(text):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=one)
    except (ssl.SSLError, ValueError):
        raise _Bad(key, f"{path}: a certificate in it cannot be read") from None


def _insist_on_key(key: str, path: str, text: str) -> None:
    if not _KEY.search(text):
        raise _Bad(key, f"{path}: there is no private key in it, in PEM")
    if _ENCRYPTED.search(text):
        raise _Bad(key, f"{path}: the key is encrypted, and a daemon cannot ask for its password")


def _place_of_key(settings: Tls) -> tuple[str, str]:
    """Return the key of the configuration that names the private key, and its file."""
    if settings.key is None:
        return "certificate", settings.certificate
    return "key", settings.key


def _try(made: TlsConfig, settings: Tls) -> dict[str, Any]:
    """Have a client meet a server that has these; return the facts of the certificate."""
    facts = _meet(made, settings, _ANY_TIME)
    now = time.time()
    since, until = (ssl.cert_time_to_seconds(facts[key]) for key in ("notBefore", "notAfter"))
    if until <= now:
        _refuse(made, f"the certificate has expired on {_day(until)}")
    if since > now:
        _refuse(made, f"the certificate is not valid before {_day(since)}")
    _meet(made, settings, 0)
    return facts


def _meet(made: TlsConfig, settings: Tls, flags: int) -> dict[str, Any]:
    try:
        context = server_context(made)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason.startswith(("EE_", "CA_")):
            _refuse(made, describe(error, "client"))
        message = (
            describe(error, "client") if reason == "KEY_VALUES_MISMATCH" else "no key can be read"
        )
        key, path = _place_of_key(settings)
        raise _Bad(key, f"{path}: {message}") from None
    context.verify_mode = ssl.CERT_NONE
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | flags
    client.load_verify_locations(cadata=_CERTIFICATE.findall(made["certificate"])[-1])
    try:
        return _shake_hands(context, client)
    except ssl.SSLCertVerificationError as error:
        _refuse(made, f"the certificates in it are no chain for a server: {error.verify_message}")
    except ssl.SSLError as error:
        _refuse(made, describe(error, "client"))


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there)
    sides = (ours, server.wrap_bio(there, back, server_side=True))
    for _ in range(_MOST_STEPS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    facts: dict[str, Any] = ours.getpeercert() or {}
    return facts


def _refuse(made: TlsConfig, message: str) -> NoReturn:
    raise _Bad("certificate", f"{made['file']}: {message}") from None


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
