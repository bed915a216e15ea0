"""The sections of a listener that may be null: `tls` and `proxy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.configuration_files import config, problems
from tetrad.config.model import Listener, Proxy, Tls
from tetrad.config.types import Duration, Network, Path, TlsVersion

if TYPE_CHECKING:
    import pathlib

CLIENT_CA = "needs client_ca: without it, clients send no certificate"
BALANCERS = "list the trusted load balancers, e.g. {trusted: [192.0.2.10]}"
TRUST = "a Unix socket trusts every peer that its file mode lets connect; write {}"
DURATION = "expected a duration such as 500ms, 10s, 1h30m or a number of seconds"
NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


def test_the_settings_of_tls_and_proxy_are_read(file: pathlib.Path) -> None:
    """Paths are relative to the folder of the file."""
    (listener,) = config(
        file,
        """
listen:
- tls: {certificate: a.pem, key: b.pem, client_ca: /c.pem, minimum_version: 1.3, subjects: ["CN=x"]}
  proxy: {trusted: [192.0.2.1, 10.0.0.0/8], timeout: 2s}
""",
    ).listen
    assert listener.tls == Tls(
        certificate=Path(f"{file.parent}/a.pem"),
        key=Path(f"{file.parent}/b.pem"),
        client_ca=Path("/c.pem"),
        minimum_version=TlsVersion("1.3"),
        subjects=["CN=x"],
    )
    assert listener.proxy == Proxy(
        trusted=[Network("192.0.2.1/32"), Network("10.0.0.0/8")], timeout=Duration(2)
    )


def test_their_other_keys_have_defaults(file: pathlib.Path) -> None:
    """TLS 1.2 without client certificates; five seconds for a PROXY header."""
    (listener,) = config(
        file, "listen: [{tls: {certificate: /a}, proxy: {trusted: ['::1']}}]"
    ).listen
    assert listener.tls is not None
    assert (listener.tls.key, listener.tls.client_ca, listener.tls.subjects) == (None, None, [])
    assert listener.tls.minimum_version == TlsVersion("1.2")
    assert type(listener.tls.minimum_version) is TlsVersion
    assert listener.proxy is not None
    assert listener.proxy.timeout == 5.0


@pytest.mark.parametrize("word", ["null", "~", ""])
def test_null_means_neither(file: pathlib.Path, word: str) -> None:
    """As without the keys."""
    assert config(file, f"listen: [{{tls: {word} , proxy: {word} }}]").listen == [Listener()]


def test_a_unix_socket_needs_no_trusted_balancers(file: pathlib.Path) -> None:
    """Its file mode decides who connects."""
    (listener,) = config(file, "listen: [{address: unix:/x, proxy: {}}]").listen
    assert listener.proxy == Proxy()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tls: {}", "1:16: listen[0].tls.certificate: this key is required"),
        ("tls: {key: a}", "1:16: listen[0].tls.certificate: this key is required"),
        (
            "tls: {certificate: }",
            "1:30: listen[0].tls.certificate: expected a path, got no value (null)",
        ),
        (
            "tls: {certificate: [a]}",
            "1:30: listen[0].tls.certificate: expected a single value, got a list",
        ),
        (
            "tls: {certificate: !x a}",
            "1:30: listen[0].tls.certificate: the YAML tag !x is not supported",
        ),
        (
            "tls: {certificate: a, minimum_version: 1.1}",
            "1:50: listen[0].tls.minimum_version: expected 1.2 or 1.3, got 1.1",
        ),
        (
            "tls: {certificate: a, subjects: [x]}",
            f"1:43: listen[0].tls.subjects: {CLIENT_CA}",
        ),
        (
            "tls: {certificate: a, client_ca: b, subjects: ['']}",
            "1:58: listen[0].tls.subjects[0]: expected a string of length >= 1, got ''",
        ),
        (
            "tls: {certificate: a, keys: b}",
            "1:33: listen[0].tls.keys: unknown key; did you mean key?",
        ),
        (
            "proxy: {}",
            f"1:18: listen[0].proxy: {BALANCERS}",
        ),
        (
            "address: unix:/x, proxy: {trusted: [192.0.2.1]}",
            f"1:36: listen[0].proxy: {TRUST}",
        ),
        (
            "address: unix:/x, proxy: {trusted: [x]}",
            f"1:47: listen[0].proxy.trusted[0]: {NETWORK}, got 'x'",
        ),
        (
            "proxy: {trusted: ['::1'], timeout: null}",
            f"1:46: listen[0].proxy.timeout: {DURATION}, got no value (null)",
        ),
    ],
)
def test_their_errors_have_a_location_and_a_reason(
    file: pathlib.Path, text: str, problem: str
) -> None:
    """Each is reported once."""
    assert problems(file, f"listen: [{{{text}}}]") == [problem]


def test_all_required_keys_are_reported(file: pathlib.Path) -> None:
    """Of each listener, next to other errors."""
    text = "listen: [{tls: {key: a}}, {port: 1, tls: {certificte: a}}]"
    assert problems(file, text) == [
        "1:16: listen[0].tls.certificate: this key is required",
        "1:43: listen[1].tls.certificte: unknown key; did you mean certificate?",
        "1:42: listen[1].tls.certificate: this key is required",
    ]
