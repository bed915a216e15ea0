"""The environment of the daemon: those of the starter's variables that its processes need.

Every program that a command runs can read it, in /proc, and every function has it. So it has
nothing else of the starter, who may be root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES_VARIABLE = "TETRAD_PASS_ENVIRONMENT"
"""The names of further variables that the daemon gets, separated by spaces."""

_NAMES = {
    "HOME",
    "JOURNAL_STREAM",
    "LANG",
    "PATH",
    "TZ",
    "TZDIR",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
}
_PREFIXES = ("LC_", "LD_", "OPENSSL_", "TETRAD_")


def of_daemon(starter: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the daemon, from that of the process that starts it."""
    names = _NAMES.union(starter.get(NAMES_VARIABLE, "").split())
    return {
        name: value
        for name, value in starter.items()
        if name in names or name.startswith(_PREFIXES)
    }
