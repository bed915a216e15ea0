"""Access lists: which rule allows or denies a client's address. No I/O.

Used by the master, and by `tetrad explain`.
"""

from __future__ import annotations

from tetrad.system.addresses import network_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule, ListenerConfig
    from tetrad.system.addresses import Source


class AccessList:
    """Rules that allow or deny networks. The most specific match wins; on a tie, deny.

    An address without a match is allowed, unless at least one rule allows a network.
    """

    def __init__(self, rules: Iterable[AccessRule]) -> None:
        self._rules: dict[tuple[int, int], dict[int, AccessRule]] = {}
        self._allows_unmatched = True
        for rule in rules:
            networks = self._rules.setdefault((rule["bits"], rule["prefix"]), {})
            network = rule["network"] >> (rule["bits"] - rule["prefix"])
            if not rule["allow"] or network not in networks:
                networks[network] = rule
            self._allows_unmatched = self._allows_unmatched and not rule["allow"]
        self._most_specific_first = sorted(self._rules, reverse=True)

    def rule(self, bits: int, address: int) -> AccessRule | None:
        """Return the rule that applies to an address; None if no rule matches."""
        for length, prefix in self._most_specific_first:
            if length == bits:
                rule = self._rules[length, prefix].get(address >> (bits - prefix))
                if rule is not None:
                    return rule
        return None

    def allows(self, bits: int, address: int) -> bool:
        """Tell whether an address is allowed."""
        rule = self.rule(bits, address)
        return self._allows_unmatched if rule is None else rule["allow"]

    def denying_rule(self, address: Source) -> str:
        """Return the name of the rule that denies an address, or of the list that lacks it."""
        rule = self.rule(*address)
        return "access.allow" if rule is None else rule["name"]

    def report(self, address: Source) -> dict[str, object]:
        """Return the rule that applies to an address, and its network; None if no rule matches."""
        rule = self.rule(*address)
        if rule is None:
            return {"rule": None, "network": None}
        network = network_text(rule["bits"], rule["network"], rule["prefix"])
        return {"rule": rule["name"], "network": network}


def listener_report(config: ListenerConfig, name: str, address: Source) -> dict[str, object]:
    """Return what differs at a listener for a client; the rule is one of `proxy.trusted`."""
    proxy = config["proxy"]
    return {
        "key": f"listen[{config['index']}]",
        "name": name,
        "family": config["family"],
        "proxy": proxy is not None,
        **AccessList(() if proxy is None else proxy["trusted"]).report(address),
    }
