"""An errand: a program of ours that is sent to do what the master must not, and answers."""

from __future__ import annotations

import marshal
import os
import time

from tetrad.system import fork
from tetrad.system.lean_signal import signal
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tetrad.system.event_loop import EventLoop

    Conclude = Callable[[dict[str, Any]], object]

PATIENCE_SECONDS = 30.0
"""How long an errand may take."""

_READ_BYTES = 65536


class HelperProcess:
    """Sends one program at a time; `doing` says what it does, for the messages.

    The program answers with a dictionary, through the pipe at its descriptor 3. Whatever goes wrong
    is an answer, too: one with `errors`, of which the file is no cause.
    """

    def __init__(self, loop: EventLoop, doing: str) -> None:
        self._loop = loop
        self._doing = doing
        self._pipe: int | None = None
        self._program = 0
        self._data = b""

    @property
    def is_under_way(self) -> bool:
        """Whether it has been sent and has not answered."""
        return self._pipe is not None

    def send(self, command: list[str], keep: tuple[int, ...], conclude: Conclude) -> None:
        """Start the program, which finds `keep` at 4 and above; `conclude` gets its answer."""
        self._conclude = conclude
        self._data = b""
        try:
            self._pipe = self._start(command, keep)
        except OSError as error:
            conclude(failed(f"no process for {self._doing}: {reason_of(error)}"))
            return
        self._loop.watch(self._pipe, self._hear)
        late = f"{self._doing} took longer than {PATIENCE_SECONDS:.0f} s"
        when = time.monotonic() + PATIENCE_SECONDS
        self._loop.timers.set(self._doing, when, lambda: self.call_off(late))

    def call_off(self, why: str) -> None:
        """End the program, if there is one, before it has answered."""
        if self._pipe is not None:
            fork.send_signal(self._program, signal.SIGKILL)
            self._hang_up(self._pipe)
            self._conclude(failed(why))

    def _start(self, command: list[str], keep: tuple[int, ...]) -> int:
        """Start the program, and return the pipe through which it answers."""
        ours, theirs = os.pipe()
        try:
            highest = max(self._loop.highest, ours, theirs)
            self._program = fork.run_program(command, (theirs, *keep), highest, is_deaf=True)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    def _hear(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        self._data += data
        if not data:
            self._hang_up(fd)
            self._conclude(self._answer())

    def _hang_up(self, fd: int) -> None:
        self._loop.timers.cancel(self._doing)
        self._loop.unwatch(fd)
        os.close(fd)
        self._pipe = None

    def _answer(self) -> dict[str, Any]:
        try:
            answer = marshal.loads(self._data)  # noqa: S302 - our own program's
        except (EOFError, ValueError, TypeError):
            answer = None
        return answer if isinstance(answer, dict) else failed(f"{self._doing} ended early")


def failed(why: str) -> dict[str, Any]:
    """Return an answer that says why there is none."""
    return {"errors": [why], "is_file_bad": False}
