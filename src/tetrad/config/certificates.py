"""Certificates and keys of listeners: read, and verified before a daemon uses them.

A TLS server with the files and a client that trusts a CA of the chain perform a handshake in
memory. So the check finds what clients would find, and needs no certificate parser.
"""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from tetrad.config.diagnostics import ConfigError
from tetrad.config.pem import Block, PemError, PemFile
from tetrad.ipc.runtime_config import TlsConfig
from tetrad.system import memory_path
from tetrad.system.text import reason_of
from tetrad.tls import der
from tetrad.tls.context import server_context
from tetrad.tls.errors import KEY_MISMATCHES, describe, describe_key
from tetrad.tls.expiry import EXPIRY_WARNING_SECONDS
from tetrad.tls.subjects import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tetrad.config.model import Tls
    from tetrad.config.result import ConfigResult

_SHOWN_CAS = 4

_HANDSHAKE_STEPS = 4
"""The most steps of each side in a handshake."""

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl` does not name: `_verify` checks the dates."""

_DATE_ERRORS = {9, 10}
"""X509_V_ERR_* codes of certificates that are not valid yet, or have expired."""

_NO_CLIENT = {"NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM"}
"""The reasons for a key of an algorithm, or on a curve, that TLS does not use any more."""


class ListenerTls(NamedTuple):
    """The TLS configuration of a listener, and settings that show a reload what has changed.

    `warnings` are about certificates of CAs.
    """

    config: TlsConfig
    settings: dict[str, str]
    warnings: list[str]


class _TlsError(Exception):
    """The file that a key of `listen[].tls` names cannot be used."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read(loaded: ConfigResult) -> list[ListenerTls | None]:
    """Return the TLS configuration of each listener; None without `tls`. Raises ConfigError."""
    found: list[ListenerTls | None] = []
    problems: list[str] = []
    for index, listener in enumerate(loaded.config.listen):
        path = f"listen[{index}].tls"
        try:
            found.append(None if listener.tls is None else _read_listener(listener.tls, path))
        except* _TlsError as errors:
            texts = [
                loaded.error_at(f"{path}.{error.key}", str(error))
                for error in errors.exceptions
                if isinstance(error, _TlsError)
            ]
            problems += dict.fromkeys(texts)  # the certificate and the key may be in one file
    if problems:
        raise ConfigError(problems)
    return found


def expiry_warnings(found: Sequence[ListenerTls | None]) -> Iterator[str]:
    """Return a warning for each certificate that expires soon, or is of a CA and out of date."""
    for one in found:
        if one is None:
            continue
        if one.config["expires"] - time.time() < EXPIRY_WARNING_SECONDS:
            file, date = one.config["file"], _date(one.config["expires"])
            yield f"{file}: the certificate expires on {date}; renew it, then run tetrad reload"
        yield from one.warnings


def _read_listener(settings: Tls, path: str) -> ListenerTls:
    chain, keys, authorities, crls = _read_files(settings)
    # OpenSSL takes a certificate with trust settings only in the first place.
    chain = [one for one in chain if one is chain[0] or one.label != der.TRUSTED]
    config = TlsConfig(
        file=str(settings.certificate),
        certificate=_text_of(chain),
        key=_text_of(keys),
        expires=0.0,
        client_ca=_text_of(authorities) if authorities else None,
        client_crl=_text_of(crls) if crls else None,
        minimum_version=str(settings.minimum_version),
        subjects=[str(subject) for subject in settings.subjects],
    )
    shown = {}
    if settings.client_ca is not None:
        shown[f"{path}.client_ca"] = _describe_ca(settings.client_ca, authorities)
    if config["client_crl"] is not None:
        shown[f"{path}.client_crl"] = _describe_crl(str(settings.client_crl), config["client_crl"])
    try:
        facts = _verify(config, _server_context(config, settings, chain, keys), chain)
    except ssl.SSLError as error:
        key, file = _key_setting(settings)
        message = f"{file}: the private key is damaged: {describe(error, 'client')}"
        raise _TlsError(key, message) from None
    config["expires"] = _end(facts)
    warnings = [
        *_authority_warnings(settings.certificate, chain[1:]),
        *_authority_warnings(settings.client_ca, authorities),
    ]
    until = _date(config["expires"])
    shown[f"{path}.certificate"] = (
        f"{config['file']} (serial {facts['serialNumber']}, until {until})"
    )
    return ListenerTls(config, shown, warnings)


def _read_files(settings: Tls) -> list[list[Block]]:
    """Return what is in the files: certificates, private keys, client CAs, and revocation lists.

    Raises an ExceptionGroup with a _TlsError for each file that cannot be used.
    """
    files = (
        ("certificate", settings.certificate, PemFile.certificates),
        (*_key_setting(settings), PemFile.private_keys),
        ("client_ca", settings.client_ca, PemFile.certificates),
        ("client_crl", settings.client_crl, PemFile.revocation_lists),
    )
    found, errors = [], []
    for key, path, blocks in files:
        try:
            found.append([] if path is None else _read_blocks(key, path, blocks))
        except _TlsError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("files of a listener", errors)
    return found


def _read_blocks(key: str, path: str, blocks: Callable[[PemFile], list[Block]]) -> list[Block]:
    try:
        return blocks(PemFile(path))
    except OSError as error:
        raise _TlsError(key, f"{path}: {reason_of(error)}") from None
    except PemError as error:
        raise _TlsError(key, str(error)) from None


def _describe_ca(path: str, authorities: list[Block]) -> str:
    """Return the names of the CAs in a file, which a reload compares; of many, the first ones."""
    names = [subject_of(one.facts) for one in authorities if one.facts]
    more = len(names) - _SHOWN_CAS
    shown = "; ".join(names[:_SHOWN_CAS]) + (f"; {more} more" if more > 0 else "")
    return f"{path} ({shown})" if names else path


def _describe_crl(path: str, text: str) -> str:
    """Check revocation lists; return how many certificates they revoke, and until when they are."""
    try:
        with memory_path.path_of("crl", text.encode()) as file:
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


def _text_of(blocks: list[Block]) -> str:
    return "".join(one.text for one in blocks)


def _key_setting(settings: Tls) -> tuple[str, str]:
    """Return the key of the configuration that names the private key, and the file."""
    if settings.key is None:
        return "certificate", settings.certificate
    return "key", settings.key


def _authority_warnings(path: str | None, blocks: list[Block]) -> Iterator[str]:
    """Return a warning for each CA certificate that is out of date, or expires soon."""
    for one in blocks:
        problem = _date_problem(one.facts)
        if one.facts and not problem and _end(one.facts) - time.time() < EXPIRY_WARNING_SECONDS:
            problem = f"expires on {_date(_end(one.facts))}"
        if problem:
            yield f"{path}: {_authority(one)} {problem}; renew or remove it"


def _server_context(
    config: TlsConfig, settings: Tls, chain: list[Block], keys: list[Block]
) -> ssl.SSLContext:
    """Return the context of the listener, for handshakes without a client's certificate."""
    try:
        server = server_context(config)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason.startswith(("EE_", "CA_")):
            _reject(config, describe(error, "client"))
        key, path = _key_setting(settings)
        message = describe_key(error, is_encrypted=any(one.is_encrypted for one in keys))
        if reason in KEY_MISMATCHES:
            message += f" in {'this file' if path == config['file'] else config['file']}"
            message += "; the server's certificate comes first" * (len(chain) > 1)
        raise _TlsError(key, f"{path}: {message}") from None
    server.verify_mode = ssl.CERT_NONE
    return server


def _verify(config: TlsConfig, server: ssl.SSLContext, chain: list[Block]) -> dict[str, Any]:
    """Check dates and chain of the certificate; return the fields of `getpeercert`.

    Raises ssl.SSLError if the key does not sign.

    A client may know a CA by another certificate than that in the chain, which is then not needed,
    and may be out of date: a cross-certificate, for clients that do not know a new root.
    """
    current = [one for one in chain[1:] if not _date_problem(one.facts)]
    out_of_date = [one for one in chain[1:] if _date_problem(one.facts)]
    order = "the server's certificate comes first, then its intermediate CAs"
    try:
        facts = _handshake(server, (current or chain)[-1:], _NO_CHECK_TIME)
        if problem := _date_problem(facts):
            _reject(config, f"the certificate {problem}{_clock(time.time())}")
        if current:
            _handshake(server, current, 0)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _DATE_ERRORS and out_of_date:
            problem = f"{_authority(out_of_date[0])} {_date_problem(out_of_date[0].facts)}"
            _reject(config, f"{problem}{_clock(time.time())}")
        _reject(config, f"server certificate rejected: {error.verify_message} ({order})")
    except ssl.SSLError as error:
        if error.reason not in _NO_CLIENT:
            raise
        _reject(config, f"{describe(error, 'client')}; no client supports this kind of key")
    return facts


def _handshake(server: ssl.SSLContext, trusted: list[Block], flags: int) -> dict[str, Any]:
    """Perform a handshake; return what the client knows of the server's certificate.

    Raises ssl.SSLError.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | flags
    client.load_verify_locations(cadata="".join(one.without_trust() for one in trusted))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    sides = (ours, server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(_HANDSHAKE_STEPS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ours.getpeercert() or {}


def _reject(config: TlsConfig, message: str) -> NoReturn:
    raise _TlsError("certificate", f"{config['file']}: {message}") from None


def _authority(block: Block) -> str:
    return f"the CA certificate in line {block.line} ({subject_of(block.facts)})"


def _date_problem(facts: Mapping[str, Any]) -> str:
    """Return why a certificate is not valid now; nothing if it is valid, or no facts are known."""
    now = time.time()
    if not facts:
        return ""
    try:
        since, until = ssl.cert_time_to_seconds(facts["notBefore"]), _end(facts)
    except ValueError:
        return "has an invalid date"
    if until <= now:
        return f"expired on {_date(until)}"
    return f"is not valid before {_second(since)}" if since > now else ""


def _end(facts: Mapping[str, Any]) -> float:
    return float(ssl.cert_time_to_seconds(facts["notAfter"]))


def _clock(now: float) -> str:
    """Return the time of a check, which may be wrong, to follow what it has found."""
    return f"; the clock of this host says {_second(now)}"


def _second(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
