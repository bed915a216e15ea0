"""`signal` without its enumerations: the C module behind it, for the programs that stay lean."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
