"""`tetrad explain`: the verdict and its reasons, and that a real client gets the same verdict."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run_here
from tests.support.daemons import until
from tetrad.cli import explain as cli_explain
from tetrad.cli.parser import parser
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import AdmissionReport

if TYPE_CHECKING:
    from tests.support.daemons import Daemon, Ran
    from tests.support.fixtures import MakeDaemon

CHANGED = "the file has changed since the last reload; tetrad reload applies it"
UNCHECKED = "  ok  limits: not checked, no daemon is running"


def rule(daemon: Daemon, address: str) -> str:
    """Return the finding about the access lists, with `line` instead of the file."""
    lines = run_here(daemon, "explain", address).out.splitlines()
    return lines[1].replace(f"{daemon.file}:", "line ")


def meets(daemon: Daemon, source: str, host: str = "127.0.0.1") -> bool:
    """Tell whether a real client is let in; it quits at once."""
    client = daemon.connect(source=source, host=host)
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def explained(daemon: Daemon, address: str) -> bool:
    """Tell whether a client would be let in; check that exit status and first line agree."""
    ran = run_here(daemon, "explain", address)
    assert ran.err == ""
    word = {0: "let in", 1: "refused"}[ran.status]
    assert ran.out.splitlines()[0].endswith(f": {word}")
    return ran.status == 0


def finding(ran: Ran, topic: str) -> str:
    """Return the line that begins with `topic`."""
    return next(line for line in ran.out.splitlines() if line[6:].startswith(topic))


@pytest.mark.quick
def test_the_rule_and_its_line_are_printed(prepared: MakeDaemon) -> None:
    """The first line is the verdict, the second the rule with its location."""
    daemon = prepared(access={"allow": ["127.0.0.0/8"], "deny": ["127.0.0.2"]})
    with open(daemon.file, encoding="utf-8") as file:
        line = 1 + file.read().splitlines().index("  - 127.0.0.2")
    ran = daemon.tetrad("explain", "127.0.0.2")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        "127.0.0.2: refused",
        f"  NO  access: denied by 127.0.0.2/32 (access.deny[0], {daemon.file}:{line})",
        UNCHECKED,
    ]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.1.2.3", "  ok  access: allowed by 10.1.2.0/24 (access.allow[1], line 4)"),
        ("10.1.9.9", "  NO  access: denied by 10.1.0.0/16 (access.deny[0], line 8)"),
        ("10.9.9.9", "  ok  access: allowed by 10.0.0.0/8 (access.allow[0], line 3)"),
        ("192.0.2.7", "  NO  access: denied by 192.0.2.0/24 (access.deny[1], line 9)"),
        (
            "203.0.113.1",
            "  NO  access: denied, no rule matches (access.allow, line 2)",
        ),
        ("2001:db8::1", "  ok  access: allowed by 2001:db8::/32 (access.allow[3], line 6)"),
        ("2001:db8::bad", "  NO  access: denied by 2001:db8::bad/128 (access.deny[2], line 10)"),
        ("::1", "  NO  access: denied, no rule matches (access.allow, line 2)"),
        ("::ffff:10.1.2.3", "  ok  access: allowed by 10.1.2.0/24 (access.allow[1], line 4)"),
        ("::ffff:a01:909", "  NO  access: denied by 10.1.0.0/16 (access.deny[0], line 8)"),
    ],
)
def test_the_most_specific_rule_wins(prepared: MakeDaemon, address: str, said: str) -> None:
    """The longest prefix of both lists decides; on a tie, deny. IPv4-mapped IPv6 is IPv4."""
    allow = ["10.0.0.0/8", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"]
    deny = ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::bad"]
    assert rule(prepared(access={"allow": allow, "deny": deny}), address) == said


def test_without_rules_every_address_is_let_in(prepared: MakeDaemon) -> None:
    """Empty access lists let every address in."""
    daemon = prepared()
    assert explained(daemon, "203.0.113.1")
    assert rule(daemon, "203.0.113.1").startswith("  ok  access: allowed, no rule matches")


def test_an_address_that_no_rule_denies_is_let_in(prepared: MakeDaemon) -> None:
    """With deny rules only, all other addresses are let in."""
    daemon = prepared(access={"deny": ["192.0.2.0/24"]})
    assert explained(daemon, "203.0.113.1")
    assert not explained(daemon, "192.0.2.1")


@pytest.mark.parametrize("address", ["", "x", "127.1", "192.0.2.0/24", "010.0.0.1", "unix:/x"])
def test_an_invalid_address_is_a_usage_error(prepared: MakeDaemon, address: str) -> None:
    """Names, networks and short forms are not addresses."""
    ran = run_here(prepared(), "explain", address)
    assert (ran.status, ran.out) == (2, "")
    assert "expected an IPv4 or IPv6 address" in ran.err


def test_an_invalid_file_is_an_error(prepared: MakeDaemon) -> None:
    """No daemon would run with the rules of an invalid file."""
    daemon = prepared(limits={"clients": "many"})
    ran = run_here(daemon, "explain", "127.0.0.1")
    assert (ran.status, ran.out) == (78, "")
    assert "limits.clients: " in ran.err


@pytest.mark.quick
def test_a_client_gets_the_explained_verdict(daemon: MakeDaemon) -> None:
    """This holds for prefixes of all lengths, for ties and without a rule."""
    allow = ["127.0.0.0/28", "127.0.0.3", "127.0.0.4/31", "127.0.0.6"]
    deny = ["127.0.0.2", "127.0.0.5", "127.0.0.6", "127.0.0.0/29"]
    served = daemon(access={"allow": allow, "deny": deny})
    for number in (*range(2, 9), 16):
        host = f"127.0.0.{number}"
        assert explained(served, host) == meets(served, host) == (number in {3, 4, 8}), host


def test_an_ipv6_client_gets_the_explained_verdict(daemon: MakeDaemon) -> None:
    """Rules of both families apply to a dual-stack listener."""
    served = daemon(
        access={"allow": ["::1"], "deny": ["127.0.0.9"]}, listen=[{"address": "::", "port": 0}]
    )
    assert explained(served, "::1")
    assert meets(served, "::1", "::1")
    assert not explained(served, "127.0.0.1")
    assert not meets(served, "127.0.0.1")


@pytest.mark.parametrize(
    ("limits", "topic", "said"),
    [
        ({"clients": 2}, "clients:", "clients: {} of 2 connected (limits.clients, {}"),
        (
            {"clients_per_source": 2},
            "clients of",
            "clients of this source: {} of 2 connected (limits.clients_per_source, {}",
        ),
    ],
)
def test_the_clients_and_the_limit_are_printed(
    daemon: MakeDaemon, limits: dict[str, Any], topic: str, said: str
) -> None:
    """When the limit is reached, the verdict is a refusal."""
    served = daemon(limits=limits)
    for count in range(2):
        ran = run_here(served, "explain", "127.0.0.1")
        assert ran.status == 0
        assert finding(ran, topic).startswith("  ok  " + said.format(count, served.file))
        served.served()
    ran = run_here(served, "explain", "127.0.0.1")
    assert ran.status == 1
    assert finding(ran, topic).startswith("  NO  " + said.format(2, served.file))
    assert served.connect().is_refused()


def test_other_sources_have_limits_of_their_own(daemon: MakeDaemon) -> None:
    """A limit per source that is reached does not concern other sources."""
    served = daemon(limits={"clients_per_source": 1})
    served.served(source="127.0.0.2")
    assert not explained(served, "127.0.0.2")
    assert explained(served, "127.0.0.3")


def test_the_wait_of_the_rate_is_printed(daemon: MakeDaemon) -> None:
    """The line has the seconds until the rate allows another session."""
    served = daemon(limits={"rate_per_source": "2/h"})
    ran = run_here(served, "explain", "127.0.0.1")
    assert "rate of this source: 2 sessions in 1h, not used up (limits.rate_per_source, " in ran.out
    for _ in range(2):
        served.served()
    ran = run_here(served, "explain", "127.0.0.1")
    line = finding(ran, "rate of this source: 2 sessions in 1h, the next one in ")
    assert (ran.status, line[:4]) == (1, "  NO")
    assert 1700 < float(line.split(" s (")[0].rpartition(" ")[2]) <= 1800
    assert served.connect().is_refused()
    assert explained(served, "127.0.0.2")


def test_an_ipv4_mapped_network_is_an_ipv4_network(daemon: MakeDaemon) -> None:
    """A rule may be written in the form in which dual-stack sockets report clients."""
    served = daemon(access={"allow": ["::ffff:127.0.0.0/127"]})
    assert explained(served, "127.0.0.1") is meets(served, "127.0.0.1") is True
    assert explained(served, "127.0.0.2") is meets(served, "127.0.0.2") is False


def test_explain_does_not_count_as_a_session(daemon: MakeDaemon) -> None:
    """After several calls the one session of the rate is still available."""
    served = daemon(limits={"rate_per_source": "1/h", "clients": 1})
    assert all(explained(served, "127.0.0.1") for _ in range(3))
    assert served.status()["clients"]["peak"] == 0
    assert meets(served, "127.0.0.1")


def test_a_limit_that_is_not_set_is_marked_as_the_default(daemon: MakeDaemon) -> None:
    """Without limits in the file, only the number of clients is limited."""
    lines = run_here(daemon(), "explain", "127.0.0.1").out.splitlines()
    assert lines[2:] == ["  ok  clients: 0 of 1000 connected (limits.clients, default)"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            ["127.0.0.2"],
            [],
            "  NO  access: denied by 127.0.0.2/32 (access.deny[0] of the running daemon)",
        ),
        (
            [],
            ["127.0.0.2"],
            "  ok  access: allowed, no rule matches and access.allow is empty",
        ),
    ],
)
def test_the_rules_of_the_running_daemon_decide(
    daemon: MakeDaemon, before: list[str], after: list[str], said: str
) -> None:
    """Until a reload, the daemon's access lists count; `explain` reports that the file differs."""
    served = daemon(access={"deny": before})
    served.configure(access={"deny": after})
    assert explained(served, "127.0.0.2") == meets(served, "127.0.0.2") == (not before)
    assert rule(served, "127.0.0.2") == said
    assert run_here(served, "explain", "127.0.0.2").out.splitlines()[-1] == CHANGED
    assert run_here(served, "reload").status == 0
    assert explained(served, "127.0.0.2") == meets(served, "127.0.0.2") == (not after)
    assert "daemon" not in rule(served, "127.0.0.2")
    assert CHANGED not in run_here(served, "explain", "127.0.0.2").out


def test_another_rule_of_the_running_daemon_is_reported(daemon: MakeDaemon) -> None:
    """The same verdict by another rule is the daemon's rule, and a changed file."""
    served = daemon(access={"deny": ["127.0.0.0/24", "127.0.0.2"]})
    served.configure(access={"deny": ["127.0.0.0/24"]})
    ran = run_here(served, "explain", "127.0.0.2")
    assert ran.status == 1
    assert ran.out.splitlines()[1] == (
        "  NO  access: denied by 127.0.0.2/32 (access.deny[1] of the running daemon)"
    )
    assert ran.out.splitlines()[-1] == CHANGED


def test_an_older_daemon_reports_no_rule(
    prepared: MakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a rule in its answer there is only the daemon's verdict."""
    asked = prepared(access={"deny": ["192.0.2.0/24"]})
    monkeypatch.setattr(cli_explain, "look_for_daemon", lambda _result: object())
    answer = AdmissionReport(False, 0, 1000, 0, None, None, 0.0)  # noqa: FBT003 - as in the JSON
    monkeypatch.setattr(control_client, "ask", lambda *_arguments, **_users: answer)
    options = parser().parse_args(["-c", asked.file, "explain", "192.0.2.1"])
    assert cli_explain.explain(options) == 1
    assert "  NO  access: denied by the running daemon\n" in capsys.readouterr().out


def test_a_rate_that_only_the_daemon_has_counts(daemon: MakeDaemon) -> None:
    """A limit that was removed from the file applies until the reload."""
    served = daemon(limits={"rate_per_source": "1/h"})
    served.served()
    served.configure(limits={"rate_per_source": None})
    assert not explained(served, "127.0.0.1")
    assert run_here(served, "explain", "127.0.0.1").out.splitlines()[-1] == CHANGED
    assert not meets(served, "127.0.0.1")
    assert run_here(served, "reload").status == 0
    assert explained(served, "127.0.0.1")
    assert meets(served, "127.0.0.1")


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_an_ipv4_mapped_address_is_the_ipv4_address(
    shared_daemon: MakeDaemon, address: str
) -> None:
    """Access lists and limits are those of the IPv4 client."""
    served = shared_daemon(access={"allow": ["127.0.0.1"]}, limits={"clients_per_source": 1})
    assert explained(served, address)
    served.served()
    ran = run_here(served, "explain", address)
    assert (ran.status, ran.out.splitlines()[0]) == (1, "127.0.0.1: refused")
    assert finding(ran, "clients of this source: 1 of 1")


def test_no_answer_is_not_a_refusal(daemon: MakeDaemon) -> None:
    """If the daemon does not answer, the exit status is that of an unknown state."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = run_here(served, "explain", "127.0.0.1")
    assert (ran.status, ran.out) == (4, "")
    assert "no such file" in ran.err


def test_a_stopped_daemon_has_no_limits(daemon: MakeDaemon) -> None:
    """Without a daemon only the access lists of the file are checked."""
    served = daemon(limits={"clients": 1})
    served.served()
    until(lambda: not explained(served, "127.0.0.1"), "a client")
    served.stop()
    ran = run_here(served, "explain", "127.0.0.1")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, UNCHECKED)
