"""The master's log: warnings and errors about the daemon also go to the service manager."""

from __future__ import annotations

from tetrad.ipc.log_protocol import LogWriter, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PROBLEM_LEVELS = {"warning", "error"}
_ABOUT_CLIENTS = "client."


class DaemonLog(LogWriter):
    """The writing end of the event pipe in the master.

    `on_problem` is called with the text of each warning and error that is not about one client,
    whatever `log.level` is.
    """

    __slots__ = ("_on_problem",)

    def __init__(self, fd: int, level: str, on_problem: Callable[[str], object]) -> None:
        super().__init__(fd, level)
        self._on_problem = on_problem

    def event(self, level: str, event: str, /, **fields: object) -> None:
        """Add an event, as `LogWriter.event` does."""
        super().event(level, event, **fields)
        self._report(level, event, fields)

    def enqueue_reliable(self, level: str, event: str, /, **fields: object) -> None:
        """Write an event that must not be lost, as `LogWriter.enqueue_reliable` does."""
        super().enqueue_reliable(level, event, **fields)
        self._report(level, event, fields)

    def _report(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if level in _PROBLEM_LEVELS and not event.startswith(_ABOUT_CLIENTS):
            self._on_problem(describe(event, fields))


def describe(event: str, fields: Mapping[str, object]) -> str:
    """Return an event in one line: `server.overloaded: error=too many open files`."""
    errors = fields.get("errors")
    if isinstance(errors, list):
        text = "; ".join(map(str, errors))
    else:
        text = ", ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
    return str(shorten(f"{event}: {text}"))
