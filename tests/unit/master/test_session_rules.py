"""Which sessions a reload ends: by address, load balancer and certificate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tetrad.ipc.access_list import AccessList
from tetrad.master.session_rules import SessionRules
from tetrad.system.addresses import parse

NAME = "127.0.0.1:65000"
BEFORE, CHANGE, AFTER = 1.0, 2.0, 3.0


class Trust:
    """Stands for `ClientTrust`: accepts these certificates."""

    def __init__(self, *certificates: bytes) -> None:
        self._certificates = set(certificates)

    def __eq__(self, other: object) -> bool:
        """Tell whether both accept the same."""
        return isinstance(other, Trust) and self._certificates == other._certificates

    __hash__ = None  # type: ignore[assignment]

    def allows(self, certificate: bytes) -> bool:
        """Tell whether it is one of these."""
        return certificate in self._certificates


def rules(*steps: Trust | None, balancers: str | None = None) -> Any:  # noqa: ANN401 - stand-ins
    """Return rules for one listener, for which a second step changed the certificates at CHANGE."""
    trusted = [] if balancers is None else [network(balancers)]
    listener = SimpleNamespace(
        name=NAME,
        index=0,
        is_behind_proxy=balancers is not None,
        trusts=lambda source: source is None or AccessList(trusted).allows(*source),
    )
    made: Any = SessionRules(SimpleNamespace(allows=lambda address: address != parse("192.0.2.9")))  # type: ignore[arg-type]
    for number, trust in enumerate(steps or (None,)):
        context = None if trust is None else SimpleNamespace(trust=trust)
        made.configure([listener], [context], CHANGE * number)
    return made


def network(address: str) -> Any:  # noqa: ANN401 - a dictionary of its own type
    """Return a rule that allows one address."""
    bits, value = parse(address)
    return {"name": "", "bits": bits, "network": value, "prefix": bits, "allow": True}


def handler(
    address: str = "192.0.2.1", listener: str = NAME, balancer: str = "", since: float = BEFORE
) -> Any:  # noqa: ANN401 - stand-in
    """Return a handler with a client."""
    fields = {"proxy": balancer} if balancer else None
    client = SimpleNamespace(address=parse(address), listener=listener, proxy_fields=fields)
    return SimpleNamespace(client=client, since=since)


def test_the_access_lists_decide_everywhere() -> None:
    """Also for a session whose listener is gone; a handler without a client stays."""
    assert rules().allows(handler(), None)
    assert not rules().allows(handler("192.0.2.9"), None)
    assert not rules().allows(handler("192.0.2.9", listener="gone"), None)
    assert rules().allows(SimpleNamespace(client=None), None)


@pytest.mark.parametrize(
    ("balancer", "is_allowed"),
    [("192.0.2.10:7", True), ("192.0.2.11:7", False), ("unix:3", True), ("", True)],
)
def test_the_balancer_has_to_be_trusted(balancer: str, *, is_allowed: bool) -> None:
    """One that connects by a Unix socket is; and a client that came without one has none."""
    made = rules(balancers="192.0.2.10")
    assert made.allows(handler(balancer=balancer), None) is is_allowed
    assert made.allows(handler(balancer=balancer, listener="gone"), None)
    assert rules().allows(handler(balancer=balancer), None)


def test_the_certificate_has_to_be_trusted() -> None:
    """By what is trusted now, at a listener that asks for one."""
    made = rules(Trust(b"a", b"b"), Trust(b"a"))
    assert made.allows(handler(), b"a")
    assert not made.allows(handler(), b"b")
    assert made.allows(handler(listener="gone"), b"b")
    assert rules(Trust(b"a"), None).allows(handler(), b"b")


@pytest.mark.parametrize(
    ("steps", "since", "is_allowed"),
    [
        ([Trust(b"a")], BEFORE, True),
        ([Trust(b"a"), Trust(b"a")], BEFORE, True),
        ([Trust(b"a"), Trust(b"b")], BEFORE, False),
        ([Trust(b"a"), Trust(b"b")], AFTER, True),
        ([None, Trust(b"b")], BEFORE, False),
        ([Trust(b"a"), None], BEFORE, True),
    ],
)
def test_an_unknown_certificate_outlives_no_change(
    steps: list[Trust | None], since: float, *, is_allowed: bool
) -> None:
    """That of a handshake which is not over, or which a version before has done."""
    assert rules(*steps).allows(handler(since=since), None) is is_allowed
