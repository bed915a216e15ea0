"""Judges a chaos run by what the clients saw and what the log says, and by nothing else.

It does not know the disturbances. What the log itself shows as a gap excuses what is missing there:
a master that ended without a line about it, and events that were reported lost. A handler that was
killed has its line, too: it replaces all others of its session that it had not written yet.
"""

from __future__ import annotations

import bisect
import collections
import datetime as dt
import itertools
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.support import chaos_clients as seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.chaos_clients import Observation
    from tests.support.log_lines import Event

GAP_SECONDS = 1.0
"""How long before its report a loss of events may have been."""

SILENCE_SECONDS = 5.0
"""The same if the log has no line for some time before: a logger was killed with a full batch."""

MARGIN_SECONDS = 0.2
"""How much earlier or later than its client a process may note a moment."""

SUPPRESSED_SECONDS = 2.0
"""How long after them a line may count refusals without a line of their own."""

CLOCK_SECONDS = 2
"""How far an answer to `time` may be from the client's clock."""

_ERRORS = {"handler.lost", "log.lost", "server.reload_failed", "server.upgrade_failed"}
"""Events of the level error that a disturbed daemon may log: a stop ends a reload or an upgrade."""

_ANSWERS = {b"quit": b"quit", b"prog": b"done\n"}

_REFUSALS = {"stopping", "clients"}
"""The only reasons for which a client may be refused."""


class Gap(NamedTuple):
    """A time in which the log may be incomplete, in Unix seconds."""

    start: float
    end: float


class Verdict(NamedTuple):
    """What is wrong, how many gaps the log has, and how many clients they excuse.

    `lost` are the handlers that ended without a notice; `refused` are clients.
    """

    complaints: list[str]
    gaps: int
    excused: int
    refused: int
    lost: int


def moment(event: Event) -> float:
    """Return the Unix time of a log line."""
    return dt.datetime.fromisoformat(event["timestamp"]).timestamp()


def check(observations: Iterable[Observation], events: Iterable[Event]) -> Verdict:
    """Compare what all clients saw with all lines of the log."""
    events = sorted(events, key=lambda event: event["timestamp"])
    gaps = _gaps(events)
    by_source = collections.defaultdict(list)
    for event in events:
        if "client" in event:
            by_source[event["client"].rpartition(":")[0]].append(event)
    complaints = [f"unexpected: {event}" for event in events if _is_failure(event)]
    complaints += _impossible_refusals(events)
    complaints += _wrong_totals(events, gaps)
    excused, silent = 0, []
    for one in observations:
        lines = by_source.pop(one.source, [])
        shown = f"{_shown(one)} {[*map(_shown_line, lines)]}"
        complaints += (f"{problem}: {shown}" for problem in _faults(one, lines))
        missing = _missing(one, lines)
        if missing and _has(gaps, one.began, one.ended):
            excused += 1
        elif missing and not lines:
            silent.append(one)
        elif missing:
            complaints.append(f"{missing} missing: {shown}")
    complaints += (f"session without a client: {lines}" for lines in by_source.values())
    refusals = [event for event in events if event["event"] == "client.refused"]
    suppressed = sum(event.get("suppressed", 0) for event in refusals)
    if not len(silent) <= suppressed <= len(silent) + excused:
        first = [*map(_shown, silent[:9])]
        complaints.append(f"{len(silent)} without a line, {suppressed} counted: {first}")
    logged = sum("suppressed" not in event for event in refusals)
    lost = sum(event["event"] == "handler.lost" for event in events)
    return Verdict(complaints, len(gaps), excused, logged + suppressed, lost)


def _shown(one: Observation) -> str:
    """Return an observation for a complaint, without all of its bytes."""
    sent = one.sent if one.service == seen.COMMAND else f"{len(one.sent)} bytes"
    times = f"{one.began:.3f} to {one.ended:.3f}"
    return f"{one.source} {one.service} {times} {sent!r}, received {len(one.received)}: {one.end}"


def _shown_line(event: Event) -> str:
    return f"{moment(event):.3f} {event['event']} {event.get('reason', '')}".rstrip()


def _gaps(events: list[Event]) -> list[Gap]:
    """Return the gaps that the log itself shows."""
    gaps, is_running, latest = [], False, 0.0
    moments = [*map(moment, events)]
    for when, event in zip(moments, events, strict=True):
        if event["event"] == "server.started":
            if is_running:
                gaps.append(Gap(latest - MARGIN_SECONDS, when + MARGIN_SECONDS))
            is_running = True
        elif event["event"] == "server.stopped":
            is_running = False
        elif event["event"] == "client.connected":
            latest = when
        elif event["event"] == "log.lost":
            start = min(when - GAP_SECONDS, _longest_silence(moments, when))
            gaps.append(Gap(start - MARGIN_SECONDS, when + MARGIN_SECONDS))
    return gaps


def _longest_silence(moments: list[float], end: float) -> float:
    """Return the beginning of the longest time without a line in SILENCE_SECONDS before `end`."""
    first = bisect.bisect_left(moments, end - SILENCE_SECONDS)
    near = moments[first : bisect.bisect_right(moments, end)]
    silences = [(later - when, when) for when, later in itertools.pairwise(near)]
    return max(silences, default=(0.0, end))[1]


def _has(gaps: list[Gap], start: float, end: float) -> bool:
    return any(gap.start <= end and start <= gap.end for gap in gaps)


def _is_failure(event: Event) -> bool:
    """Tell whether the log reports what no disturbance explains."""
    return (
        (event["level"] == "error" and event["event"] not in _ERRORS)
        or (event["event"] == "client.refused" and event["reason"] not in _REFUSALS)
        or (event["event"] == "client.disconnected" and event["reason"] == "error")
    )


def _impossible_refusals(events: list[Event]) -> list[str]:
    """Return the refusals at a full table while the log has no lowered limit of clients."""
    complaints, first, lowered_until = [], None, 0.0
    for event in events:
        when = moment(event)
        change = event.get("changes", {}).get("limits.clients")
        if event["event"] == "server.started" or change:
            if first is not None:
                lowered_until = when + MARGIN_SECONDS
            before, after = map(int, change.split(" -> ")) if change else (0, 0)
            first = when if after < before else None
        elif event["event"] == "client.refused" and event["reason"] == "clients":
            margin = SUPPRESSED_SECONDS if "suppressed" in event else 0.0
            if first is None and when > lowered_until + margin:
                complaints.append(f"the table was not full: {event}")
    return complaints


def _wrong_totals(events: list[Event], gaps: list[Gap]) -> list[str]:
    """Return the runs of a daemon that counted other sessions than the log has.

    A run with a gap is left out: the gap may lack sessions.
    """
    complaints = []
    served: set[str] = set()
    began = 0.0
    for event in events:
        if event["event"] == "server.started":
            served, began = set(), moment(event)
        elif event["event"] in {"client.connected", "handler.lost"} and "connection" in event:
            served.add(event["connection"])
        elif (
            event["event"] == "server.stopped"
            and event["accepted"] != len(served)
            and not _has(gaps, began, moment(event))
        ):
            complaints.append(f"{len(served)} sessions in the log: {event}")
    return complaints


def _faults(one: Observation, lines: list[Event]) -> list[str]:
    """Return what is wrong with a session, whatever the log lacks."""
    faults = []
    kinds = collections.Counter(line["event"] for line in lines)
    if one.end == seen.TIMEOUT:
        faults.append("neither served nor refused in time")
    if not _are_right(one):
        faults.append("wrong bytes")
    if one.end == seen.NOT_CONNECTED and lines:
        faults.append("not connected, but in the log")
    # A handler that is killed between its last line and its notice has both ends.
    once = ("client.connected", "client.disconnected", "handler.lost", "client.refused")
    if any(kinds[event] > 1 for event in once):
        faults.append("logged twice")
    if kinds["client.disconnected"] and "handler.lost" in [line["event"] for line in lines[:-1]]:
        faults.append("lost, and then disconnected")
    if kinds["client.refused"] and (kinds["client.connected"] or one.received):
        faults.append("refused and served")
    if len({(line["client"], line.get("connection")) for line in lines}) > 1:
        faults.append("more than one session")
    for line in lines:
        if line["event"] == "client.disconnected":
            faults += _faults_of_end(one, line)
    return faults


def _faults_of_end(one: Observation, line: Event) -> list[str]:
    """Compare the end of a session in the log with the end that the client saw."""
    faults = []
    if one.end == seen.COMPLETE and line["bytes_out"] != len(one.received):
        faults.append("other number of bytes")
    if one.end in {seen.EOF, seen.RESET} and line["reason"] in {"quit", "eof"}:
        faults.append("answers are missing")
    if line["bytes_out"] < len(one.received):
        faults.append("bytes that were not sent")
    if line["bytes_in"] > len(one.sent):
        faults.append("bytes that were not received")
    return faults


def _missing(one: Observation, lines: list[Event]) -> str:
    """Return what the log lacks about a client that was connected; empty if it is complete."""
    events = collections.Counter(line["event"] for line in lines)
    if one.end == seen.NOT_CONNECTED or events["client.refused"] or events["handler.lost"]:
        return ""
    if not events["client.connected"]:
        return "client.connected"
    ends = [line for line in lines if line["event"] == "client.disconnected"]
    if not ends:
        return "client.disconnected"
    if ends[0]["commands"] != events["client.command"]:
        return "client.command"
    return ""


def _are_right(one: Observation) -> bool:
    """Tell whether a client has received a beginning of what it asked for."""
    if one.service != seen.COMMAND:
        return one.sent.startswith(one.received)
    rest = one.received
    for word in re.findall(b"|".join(seen.WORDS), one.sent):
        answer, rest = rest[: seen.WORDS[word]], rest[seen.WORDS[word] :]
        if not answer:
            break
        if answer != _ANSWERS.get(word) and not (word == b"time" and _is_time(answer, one)):
            return False
    return not rest


def _is_time(answer: bytes, one: Observation) -> bool:
    try:
        told = time.mktime(time.strptime(answer.decode(), "%Y/%m/%d %H:%M:%S"))
    except ValueError:
        return False
    return one.began - CLOCK_SECONDS <= told <= one.ended + CLOCK_SECONDS
