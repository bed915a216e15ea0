"""A daemon's status, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

from tetrad.quantities import Duration


def as_json(status: dict[str, Any]) -> str:
    """Return the status for programs, as one JSON document."""
    return json.dumps(status, indent=2)


def as_text(status: dict[str, Any]) -> str:
    """Return the status for people."""
    clients, handlers = status["clients"], status["handlers"]
    refused = (
        ", ".join(f"{count} {reason}" for reason, count in status["refused"].items()) or "none"
    )
    lines = [
        f"tetrad {status['version']}: {status['state']} (pid {status['pid']})",
        f"  up         {_span(status['uptime'])}",
        f"  config     {status['config'] or 'built-in defaults'}",
        *(f"  listening  {one['name']} ({one['service']})" for one in status["listeners"]),
        f"  clients    {clients['now']} now, {clients['peak']} at most, {clients['limit']} allowed",
        f"  handlers   {handlers['now']} now, {handlers['idle']} waiting, {handlers['lost']} lost",
        f"  accepted   {status['accepted']}",
        f"  refused    {refused}",
        f"  log        {status['logger']['file'] or 'standard error'}",
    ]
    for one in status["sessions"]:
        age = _span(one["age"])
        lines.append(
            f"  session    {one['connection']} {one['client']} for {age} (pid {one['pid']})"
        )
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return str(Duration.parse(max(0.001, round(seconds) or round(seconds, 1))))
