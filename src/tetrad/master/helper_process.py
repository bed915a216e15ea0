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

HELPER_TIMEOUT_SECONDS = 30.0
"""How long an errand may take."""

_READ_BYTES = 65536


class HelperProcess:
    """Sends one program at a time; `doing` says what it does, for the messages.

    The program answers with a dictionary, through the pipe at its descriptor 3. Whatever goes wrong
    is an answer, too: one with `errors`, of which the file is no cause.
    """

    def __init__(self, loop: EventLoop, doing: str) -> None:
        self._loop = loop
        self._task = doing
        self._pipe: int | None = None
        self._program = 0
        self._data = b""

    @property
    def is_running(self) -> bool:
        """Whether it has been sent and has not answered."""
        return self._pipe is not None

    def start(self, command: list[str], keep: tuple[int, ...], conclude: Conclude) -> None:
        """Start the program, which finds `keep` at 4 and above; `conclude` gets its answer."""
        self._conclude = conclude
        self._data = b""
        try:
            self._pipe = self._spawn(command, keep)
        except OSError as error:
            conclude(failure(f"no process for {self._task}: {reason_of(error)}"))
            return
        self._loop.watch(self._pipe, self._on_readable)
        late = f"{self._task} took longer than {HELPER_TIMEOUT_SECONDS:.0f} s"
        when = time.monotonic() + HELPER_TIMEOUT_SECONDS
        self._loop.timers.set(self._task, when, lambda: self.cancel(late))

    def cancel(self, why: str) -> None:
        """End the program, if there is one, before it has answered."""
        if self._pipe is not None:
            fork.send_signal(self._program, signal.SIGKILL)
            self._close_pipe(self._pipe)
            self._conclude(failure(why))

    def _spawn(self, command: list[str], keep: tuple[int, ...]) -> int:
        """Start the program, and return the pipe through which it answers."""
        ours, theirs = os.pipe()
        try:
            highest = max(self._loop.highest_fd, ours, theirs)
            self._program = fork.run_program(command, (theirs, *keep), highest, is_deaf=True)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    def _on_readable(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        self._data += data
        if not data:
            self._close_pipe(fd)
            self._conclude(self._answer())

    def _close_pipe(self, fd: int) -> None:
        self._loop.timers.cancel(self._task)
        self._loop.unwatch(fd)
        os.close(fd)
        self._pipe = None

    def _answer(self) -> dict[str, Any]:
        try:
            answer = marshal.loads(self._data)  # noqa: S302 - our own program's
        except (EOFError, ValueError, TypeError):
            answer = None
        return answer if isinstance(answer, dict) else failure(f"{self._task} ended early")


def failure(why: str) -> dict[str, Any]:
    """Return an answer that says why there is none."""
    return {"errors": [why], "is_file_bad": False}
