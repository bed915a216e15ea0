"""Which of the sessions that run a reload ends: those that are not let in any more. No I/O."""

from __future__ import annotations

from tetrad.system.addresses import source_of_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.master.admission import Admission
    from tetrad.master.connections import Client, Listener
    from tetrad.master.handler_table import HandlerProcess
    from tetrad.tls.context import TlsContext
    from tetrad.tls.trust import ClientTrust


class SessionRules:
    """Decides by the access lists, the balancers and the client certificates that are trusted now.

    Only the access lists concern a session whose listener is gone.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._listeners: dict[str, Listener] = {}
        self._trust: dict[str, ClientTrust | None] = {}
        self._changed: dict[str, float] = {}

    def configure(
        self, listeners: Iterable[Listener], contexts: list[TlsContext | None], now: float
    ) -> None:
        """Decide by other listeners and their TLS contexts from `now` on."""
        old = self._trust
        self._listeners = {one.name: one for one in listeners}
        self._trust = {
            name: None if (context := contexts[one.index]) is None else context.trust
            for name, one in self._listeners.items()
        }
        for name, trust in self._trust.items():
            if old.get(name, trust) != trust:
                self._changed[name] = now

    def allows(self, handler: HandlerProcess, certificate: bytes | None) -> bool:
        """Tell whether the client of a handler, with a certificate that was reported, may stay.

        Without a report, only a client is accepted that came after the last change of what is
        trusted: the handshake of another one was by the rules before.
        """
        client = handler.client
        return client is None or (
            self._admission.allows(client.address)
            and self._is_balancer_trusted(client)
            and self._is_certificate_trusted(client.listener, certificate, handler.since)
        )

    def _is_balancer_trusted(self, client: Client) -> bool:
        listener = self._listeners.get(client.listener)
        balancer = (client.proxy_fields or {}).get("proxy")
        if listener is None or not listener.is_behind_proxy or balancer is None:
            return True
        return listener.trusts(source_of_name(str(balancer)))

    def _is_certificate_trusted(
        self, listener: str, certificate: bytes | None, since: float
    ) -> bool:
        trust = self._trust.get(listener)
        if trust is None:
            return True
        if certificate is None:
            return since >= self._changed.get(listener, 0.0)
        return trust.allows(certificate)
