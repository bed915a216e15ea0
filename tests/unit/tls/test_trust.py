"""Which client certificates are accepted, by what is known of them after the handshake."""

from __future__ import annotations

import pytest

from tetrad.tls import der
from tetrad.tls.trust import ClientTrust

KEYS, ISSUED = ["k1", "k2"], ["c1", "c2"]


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> type[ClientTrust]:
    """Return the class, for which a PEM block holds identifiers instead of DER."""
    monkeypatch.setattr(der, "pem_blocks", lambda text, *_labels: text.encode().split())
    monkeypatch.setattr(der, "certificate_ids", lambda one: (one.decode(), ""))
    monkeypatch.setattr(der, "revoked_ids", lambda one: [one.decode()])
    return ClientTrust


@pytest.mark.parametrize(
    ("client_ca", "client_crl", "subjects", "is_allowed"),
    [
        ("k2", None, [], True),
        ("k9 k2", None, [], True),
        ("k9", None, [], False),
        ("k2", "c9", [], True),
        ("k2", "c1", [], False),
        ("k2", "c9 c2", [], False),
        ("k2", None, ["CN=x y"], True),
        ("k2", None, ["CN=x"], False),
    ],
)
def test_ca_revocation_and_subject_decide(
    trust: type[ClientTrust],
    client_ca: str,
    client_crl: str | None,
    subjects: list[str],
    *,
    is_allowed: bool,
) -> None:
    """One CA of the chain has to be known, no certificate of it may be revoked."""
    description = f"{','.join(KEYS)} {','.join(ISSUED)} CN=x y".encode()
    assert trust(client_ca, client_crl, subjects).allows(description) is is_allowed


def test_equal_trust_is_no_change(trust: type[ClientTrust]) -> None:
    """Whatever the order in the files."""
    assert trust("a b", "c", ["s"]) == trust("b a", "c", ["s"])
    assert trust("a", None, []) != trust("a", None, ["s"])
    assert trust("a", None, []) != trust("b", None, [])
    assert trust("a", "c", []) != trust("a", None, [])
