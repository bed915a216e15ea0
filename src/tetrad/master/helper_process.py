"""Helper processes: programs that do for the master what it must not do, and answer."""

from __future__ import annotations

import marshal
import os
import time

from tetrad.system.supervise import REPORT_MARK, run_supervised
from tetrad.system.text import with_limit_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tetrad.system.event_loop import EventLoop

    OnAnswer = Callable[[dict[str, Any]], object]

HELPER_TIMEOUT_SECONDS = 30.0

MAX_ANSWER_BYTES = 1 << 26
"""Enough for a configuration of any size."""

REPLACED_HINT = "if Python or its packages were replaced, use tetrad restart"
"""Says what to do about a program that no longer starts."""

_READ_BYTES = 65536


class HelperProcess:
    """Runs one helper at a time; `task` names it in messages: "the upgrade trial".

    The program writes a dictionary to the pipe at its descriptor 3. Every failure is an answer too:
    a dictionary with `errors`. Its supervisor (`tetrad.system.supervise`) reports how it ended.
    """

    def __init__(self, loop: EventLoop, task: str) -> None:
        self._loop = loop
        self._task = task
        self._pipe: int | None = None
        self._data = b""

    @property
    def is_running(self) -> bool:
        """Whether a helper has been started and has not answered."""
        return self._pipe is not None

    def start(self, command: list[str], keep: tuple[int, ...], on_answer: OnAnswer) -> None:
        """Start a program; it finds the descriptors `keep` at 4 and above."""
        self._on_answer = on_answer
        self._data = b""
        try:
            self._pipe = self._spawn(command, keep)
        except OSError as error:
            on_answer(failure(f"cannot fork for {self._task}: {with_limit_hint(error)}"))
            return
        self._loop.watch(self._pipe, self._on_readable)
        late = f"{self._task} took longer than {HELPER_TIMEOUT_SECONDS:.0f} s"
        when = time.monotonic() + HELPER_TIMEOUT_SECONDS
        self._loop.timers.set(self._task, when, lambda: self.cancel(late))

    def cancel(self, why: str) -> None:
        """End the helper, if one runs, by closing its pipe; the answer is `why`."""
        if self._pipe is not None:
            self._close_pipe(self._pipe)
            self._on_answer(failure(why))

    def _spawn(self, command: list[str], keep: tuple[int, ...]) -> int:
        """Start a program, and return the pipe with its answer."""
        ours, theirs = os.pipe()
        try:
            highest = max(self._loop.highest_fd, ours, theirs)
            run_supervised(command, (theirs, *keep), highest)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    def _on_readable(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        self._data += data
        if len(self._data) > MAX_ANSWER_BYTES:
            self.cancel(f"{self._task} failed: its answer has more than {MAX_ANSWER_BYTES} bytes")
        elif not data:
            self._close_pipe(fd)
            self._on_answer(self._answer())

    def _close_pipe(self, fd: int) -> None:
        self._loop.timers.cancel(self._task)
        self._loop.unwatch(fd)
        os.close(fd)
        self._pipe = None

    def _answer(self) -> dict[str, Any]:
        """Return the answer, whose `errors`, if any, are a list of texts."""
        data, mark, report = self._data.rpartition(REPORT_MARK)
        if not mark:
            data, report = report, b"exited without an answer"
        self._data = b""
        try:
            answer = marshal.loads(data)  # noqa: S302 - written by tetrad
        except Exception:  # noqa: BLE001 - whatever a program writes that failed
            answer = None
        if not isinstance(answer, dict):
            return failure(f"{self._task} {report.decode('utf-8', 'replace')}; {REPLACED_HINT}")
        if "errors" in answer:
            errors = answer["errors"]
            texts = [str(one) for one in errors] if isinstance(errors, list) else [str(errors)]
            return {"errors": texts, "is_file_bad": answer.get("is_file_bad") is True}
        return answer


def failure(why: str) -> dict[str, Any]:
    """Return an answer with an error that the configuration file did not cause."""
    return {"errors": [why], "is_file_bad": False}
