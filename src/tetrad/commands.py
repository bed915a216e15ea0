"""What a command answers."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.plan import CommandPlan


class Clock:
    """Answers the time, as strftime(3) writes it."""

    closes = False
    __slots__ = ("_answer", "_format", "_second", "_zone")

    def __init__(self, plan: CommandPlan) -> None:
        self._format = plan["text"]
        self._zone = plan["timezone"]
        self._second = -1
        self._answer = b""

    def answer(self) -> bytes:
        """Return the time now; within one second it is the same text."""
        second = int(time.time())
        if second != self._second:
            self._answer = self._write(second)
            self._second = second
        return self._answer

    def _write(self, second: int) -> bytes:
        if self._zone == "local":
            moment = time.localtime(second)
        elif self._zone == "UTC":
            moment = time.gmtime(second)
        else:
            moment = _in_zone(self._zone, second)
        return time.strftime(self._format, moment).encode()


class Close:
    """Answers a text, and the connection is closed."""

    closes = True
    __slots__ = ("_answer",)

    def __init__(self, plan: CommandPlan) -> None:
        self._answer = plan["text"].encode()

    def answer(self) -> bytes:
        """Return the text."""
        return self._answer


KINDS: dict[str, type[Clock | Close]] = {"clock": Clock, "close": Close}


def make(plans: dict[str, CommandPlan]) -> dict[bytes, Clock | Close]:
    """Return the commands by the four bytes that call them."""
    return {name.encode(): KINDS[plan["kind"]](plan) for name, plan in plans.items()}


def _in_zone(zone: str, second: int) -> time.struct_time:
    """Return the time in another zone. A handler has one thread, so nobody sees the change."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        return time.localtime(second)
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
