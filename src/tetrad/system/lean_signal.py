"""The C module behind `signal`: `signal` itself imports `enum`, which makes every fork slower."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
