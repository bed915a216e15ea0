"""The formats of `tetrad status`: text, JSON, Prometheus and OpenMetrics."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tetrad.cli import status as cli_status
from tetrad.ipc.control_messages import Status

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use UTC as the local time zone."""
    monkeypatch.setitem(os.environ, "TZ", "<UTC>0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def session(client: str, age: float, pid: int = 4713) -> dict[str, Any]:
    """Return a session."""
    return {
        "connection": f"1f-{pid}",
        "client": client,
        "service": "echo",
        "listener": "127.0.0.1:65000",
        "pid": pid,
        "age": age,
    }


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - a value of JSON
    """Return a status as the master sends it."""
    return {
        "state": "running",
        "pid": 4711,
        "version": "1.2.3",
        "config": "/etc/tetrad/tetrad.yaml",
        "started": 1795349914.5,
        "uptime": 93784.2,
        "listeners": [
            {
                "name": "127.0.0.1:65000",
                "address": "127.0.0.1",
                "port": 65000,
                "service": "echo",
                "tls": False,
                "proxy": False,
            },
            {
                "name": "unix:/x",
                "address": "/x",
                "port": None,
                "service": "command",
                "tls": True,
                "proxy": True,
            },
        ],
        "clients": {"now": 1, "peak": 7, "limit": 1000},
        "handlers": {"now": 3, "idle": 2, "lost": 5},
        "accepted": 12,
        "refused": {"access": 1, "clients": 0, "rate": 4},
        "log": {
            "file": "/var/log/tetrad/tetrad.log",
            "level": "info",
            "format": "json",
            "logger": 4712,
            "written": 40,
            "lost": 6,
        },
        "sessions": [session("192.0.2.1:5", 61.4)],
        "upgrades": 0,
        "upgraded": None,
        "rejected": {"tls": 0, "access": 0},
        **changes,
    }


def status(**changes: Any) -> Status:  # noqa: ANN401 - a value of JSON
    """Return that status as its type."""
    return msgspec.convert(document(**changes), Status)


def test_the_text_has_a_line_for_each_fact() -> None:
    """Each line has a name and a value."""
    assert cli_status.as_text(status()).splitlines() == [
        "tetrad 1.2.3: running (pid 4711)",
        "  since      2026-11-22 12:18:34 UTC, 1d2h3m4s ago",
        "  config     /etc/tetrad/tetrad.yaml",
        "  listening  127.0.0.1:65000 (echo)",
        "  listening  unix:/x (command, tls, proxy)",
        "  clients    1 now, 7 at most, 1000 allowed",
        "  handlers   3 now, 2 idle, 5 lost",
        "  accepted   12",
        "  refused    1 access, 4 rate",
        "  log        /var/log/tetrad/tetrad.log: 40 written, 6 lost",
    ]


@pytest.mark.parametrize(("upgrades", "times"), [(1, "once"), (20, "20 times")])
def test_an_upgrade_has_a_line(upgrades: int, times: str) -> None:
    """The line has the number of upgrades and the time of the last one."""
    text = cli_status.as_text(status(upgrades=upgrades, upgraded=1795349974.5))
    line = f"\n  upgraded   {times}, last at 2026-11-22 12:19:34 UTC\n"
    assert line in text


def test_a_status_without_upgrades_is_accepted() -> None:
    """An older daemon does not send these fields."""
    old = {k: v for k, v in document().items() if not k.startswith("upgrade")}
    assert msgspec.convert(old, Status) == status()


def test_a_listener_without_newer_fields_is_accepted() -> None:
    """An older daemon does not send `tls` and `proxy`."""
    old = {"name": "unix:/x", "address": "/x", "port": None, "service": "command"}
    assert "  listening  unix:/x (command)\n" in cli_status.as_text(status(listeners=[old]))


def test_missing_values_have_a_text() -> None:
    """No configuration file, no refusals and no log file are named."""
    log = {**document()["log"], "file": None}
    text = cli_status.as_text(status(config=None, refused={"rate": 0}, log=log, sessions=[]))
    assert "  config     built-in defaults\n" in text
    assert "  refused    none\n" in text
    assert text.endswith("  log        standard error: 40 written, 6 lost")


def test_sources_with_several_sessions_are_listed() -> None:
    """The source with the most sessions is first; sources with one session are not listed."""
    clients = ["192.0.2.1:5", "[::1]:5", "192.0.2.1:6", "[::1]:6", "192.0.2.3:5", "[::1]:7"]
    busy = status(sessions=[session(client, 1.0) for client in clients])
    assert cli_status.top_sources(busy) == [("[::1]", 3), ("192.0.2.1", 2)]
    assert cli_status.as_text(busy).endswith("\n  top        [::1] (3), 192.0.2.1 (2)")
    assert "top" not in cli_status.as_text(status())


def test_at_most_five_sources_are_listed() -> None:
    """Only the five with the most sessions are listed."""
    clients = [f"192.0.2.{host}:{port}" for host in range(9) for port in range(2)]
    assert len(cli_status.top_sources(status(sessions=[session(c, 1.0) for c in clients]))) == 5


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "1ms"),
        (0.0004, "1ms"),
        (0.3456, "346ms"),
        (0.9996, "1s"),
        (1.4, "1s"),
        (59.6, "1m"),
        (3600.2, "1h"),
    ],
)
def test_an_age_is_rounded(seconds: float, shown: str) -> None:
    """Ages from one second on have no fraction; the shortest is one millisecond."""
    assert cli_status.format_age(seconds) == shown


def test_sessions_are_a_table_sorted_by_age() -> None:
    """The table has a header, and no trailing spaces."""
    sessions = [session("192.0.2.1:5", 5.0, 7), session("[2001:db8::1]:65000", 3600.0, 4713)]
    assert cli_status.session_table(status(sessions=sessions)).splitlines() == [
        "CONNECTION  CLIENT               SERVICE  AGE  PID",
        "1f-4713     [2001:db8::1]:65000  echo     1h   4713",
        "1f-7        192.0.2.1:5          echo     5s   7",
    ]
    assert cli_status.session_table(status(sessions=[])) == "CONNECTION  CLIENT  SERVICE  AGE  PID"


def test_json_is_the_document_of_the_master() -> None:
    """The JSON is equal to the received document."""
    assert json.loads(cli_status.as_json(status())) == document()
    assert json.loads(cli_status.as_json({"state": "stopped"})) == {"state": "stopped"}


def test_openmetrics_has_every_number() -> None:
    """Each metric has its type, its help text and its value."""
    lines = cli_status.as_openmetrics(status()).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "tetrad_up 1",
        "tetrad_start_time_seconds 1795349914.5",
        "tetrad_upgrades_total 0",
        "tetrad_clients 1",
        "tetrad_clients_peak 7",
        "tetrad_clients_limit 1000",
        "tetrad_handlers 3",
        "tetrad_handlers_idle 2",
        "tetrad_handlers_lost_total 5",
        "tetrad_accepted_total 12",
        'tetrad_refused_total{reason="access"} 1',
        'tetrad_refused_total{reason="clients"} 0',
        'tetrad_refused_total{reason="rate"} 4',
        'tetrad_rejected_total{reason="access"} 0',
        'tetrad_rejected_total{reason="tls"} 0',
        "tetrad_log_written_total 40",
        "tetrad_log_lost_total 6",
        'tetrad_build_info{version="1.2.3"} 1',
    ]
    assert lines[:2] == ["# TYPE tetrad_up gauge", "# HELP tetrad_up Whether the daemon runs."]
    assert lines[-1] == "# EOF"
    assert "# UNIT tetrad_start_time_seconds seconds" in lines


def test_the_format_of_prometheus_has_the_same_numbers() -> None:
    """The metadata have the names of the samples; there are no units and no type info."""
    ours, theirs = cli_status.as_prometheus(status()), cli_status.as_openmetrics(status())
    values = [line for line in theirs.splitlines() if not line.startswith("#")]
    assert [line for line in ours.splitlines() if not line.startswith("#")] == values
    metadata = "^# ([A-Z]+) (?:tetrad_handlers_lost|tetrad_build)(.*)"
    assert re.findall(metadata, ours, re.MULTILINE) == [
        ("HELP", "_total Handlers that exited unexpectedly."),
        ("TYPE", "_total counter"),
        ("HELP", "_info Version of the daemon."),
        ("TYPE", "_info gauge"),
    ]
    assert not re.search("^# (UNIT|EOF)", ours, re.MULTILINE)


@pytest.mark.parametrize(
    "text", [cli_status.as_openmetrics(status()), cli_status.as_openmetrics(None)]
)
def test_every_metric_has_its_type_before_its_values(text: str) -> None:
    """A value belongs to the family before it, and has the suffix of its type."""
    ends = {"gauge": "", "counter": "_total", "info": "_info"}
    name = ""
    for line in text.splitlines()[:-1]:
        family = re.fullmatch("# TYPE (tetrad_[a-z_]+) ([a-z]+)", line)
        if family:
            name = family[1] + ends[family[2]]
        else:
            assert re.match(rf"# (HELP|UNIT) tetrad_|{name}(\{{[^}}]*\}})? [0-9.]+$", line)


def test_a_daemon_that_is_down_has_one_metric() -> None:
    """Without a status there is only `tetrad_up`."""
    assert cli_status.as_openmetrics(None).splitlines() == [
        "# TYPE tetrad_up gauge",
        "# HELP tetrad_up Whether the daemon runs.",
        "tetrad_up 0",
        "# EOF",
    ]
