"""`tetrad status --format openmetrics`, read by the parser of the Prometheus client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics import parser

from tests.support.commands import run_here
from tests.support.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

Samples = dict[tuple[str, str], float]
"""Values by the name of the sample and the value of its label, if it has one."""


def families(text: str) -> Iterator[Metric]:
    """Return the metric families that Prometheus' parser reads."""
    yield from parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]


def scraped(daemon: Daemon, status: int = 0) -> Samples:
    """Return all samples of a status; check its exit status."""
    ran = run_here(daemon, "status", "--format", "openmetrics")
    assert (ran.status, ran.err) == (status, "")
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families(ran.out)
        for sample in family.samples
    }


@pytest.mark.quick
def test_the_counters_are_right(daemon: MakeDaemon) -> None:
    """Connected, past and refused clients and handlers are counted."""
    served = daemon(
        access={"deny": ["127.0.0.9"]},
        limits={"clients": 50, "clients_per_source": 2},
        handlers={"spare": 1},
    )
    for _ in range(2):
        served.served(source="127.0.0.2")
        served.served(source="127.0.0.3").quit()
        assert served.connect(source="127.0.0.9").is_refused()
    assert served.connect(source="127.0.0.2").is_refused()
    served.wait_for("client.disconnected", count=2)
    until(lambda: scraped(served)["tetrad_clients", ""] == 2, "the end of two sessions")
    until(lambda: scraped(served)["tetrad_handlers_idle", ""] == 1, "a spare handler")
    samples = scraped(served)
    assert samples["tetrad_up", ""] == 1
    assert 2 <= samples["tetrad_clients_peak", ""] <= 4
    assert samples["tetrad_clients_limit", ""] == 50
    assert samples["tetrad_handlers", ""] == 3
    assert samples["tetrad_handlers_lost_total", ""] == 0
    assert samples["tetrad_accepted_total", ""] == 4
    assert samples["tetrad_refused_total", "access"] == 2
    assert samples["tetrad_refused_total", "clients_per_source"] == 1
    assert samples["tetrad_refused_total", "rate"] == 0


def test_the_log_and_the_version_are_right(daemon: MakeDaemon) -> None:
    """Log lines are counted; version and start time are those of the status."""
    served = daemon()
    served.served().quit()
    served.wait_for("client.disconnected")
    lines = len(served.events())
    until(lambda: scraped(served)["tetrad_log_written_total", ""] == lines, "all lines")
    samples, status = scraped(served), served.status()
    assert samples["tetrad_log_lost_total", ""] == 0
    assert samples["tetrad_build_info", status["version"]] == 1
    assert samples["tetrad_start_time_seconds", ""] == status["started"]


def test_families_have_types_of_openmetrics(shared_daemon: MakeDaemon) -> None:
    """Every family has a type, a help text and the prefix of its name."""
    text = shared_daemon().tetrad("status", "--format", "openmetrics").out
    found = {family.name: family for family in families(text)}
    assert {name for name, family in found.items() if family.type == "counter"} == {
        "tetrad_accepted",
        "tetrad_handlers_lost",
        "tetrad_log_lost",
        "tetrad_log_written",
        "tetrad_refused",
        "tetrad_rejected",
        "tetrad_upgrades",
    }
    assert found["tetrad_build"].type == "info"
    assert all(name.startswith("tetrad_") for name in found)
    assert all(family.documentation for family in found.values())


def test_a_daemon_that_does_not_run_is_down(prepared: MakeDaemon) -> None:
    """A stopped and a dead daemon have the one metric `tetrad_up`, and no message."""
    daemon = prepared()
    assert scraped(daemon, 3) == {("tetrad_up", ""): 0}
    with open(daemon.pidfile, "w", encoding="ascii") as file:
        file.write("1\n")
    assert scraped(daemon, 1) == {("tetrad_up", ""): 0}
