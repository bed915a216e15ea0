"""Access lists: which rule allows or denies a client's address. No I/O.

Used by the master, and by `tetrad explain`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule


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
