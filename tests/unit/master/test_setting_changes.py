"""The changes that a reload reports: whole listeners and commands, and single keys."""

from __future__ import annotations

import pytest

from tetrad.config.command_model import Clock, Close, Command, FixedText, Run
from tetrad.config.model import Config, Limits, Listener, Proxy, Tls
from tetrad.config.result import ConfigResult
from tetrad.config.types import (
    Address,
    Argument,
    ClockFormat,
    CommandName,
    Duration,
    Network,
    Path,
    Variable,
)
from tetrad.launch import runtime_config
from tetrad.master.setting_changes import changes

A, B, C = (Listener(port=port) for port in (65001, 65002, 65003))
TLS = Tls(certificate=Path("/x/cert.pem"))


def between(old: Config, new: Config) -> dict[str, str]:
    """Return the changes from one configuration to another."""
    return changes(*(settings(one) for one in (old, new)))


def settings(config: Config) -> dict[str, str]:
    """Return the settings of a configuration."""
    loaded = ConfigResult(config, None, [], {})
    return runtime_config.build(loaded, None, foreground=False)["settings"]


def listeners(old: list[Listener], new: list[Listener]) -> dict[str, str]:
    """Return the changes from one list of listeners to another."""
    return between(Config(listen=old), Config(listen=new))


def commands(old: dict[str, Command | None], new: dict[str, Command | None]) -> dict[str, str]:
    """Return the changes from the commands of one file to those of another."""
    made = [
        Config(commands={CommandName(name): one for name, one in named.items()})
        for named in (old, new)
    ]
    return between(*made)


def run(**env: str) -> Run:
    """Return a command with these environment variables."""
    variables = {Variable(name): Argument(value) for name, value in env.items()}
    return Run(run=[Argument("true"), Argument("-x")], env=variables, timeout=Duration(1))


def test_equal_configurations_have_no_changes() -> None:
    """Summaries are no changes."""
    full = Config(listen=[A, Listener(tls=TLS)], commands={CommandName("true"): run(A="b")})
    assert between(full, full) == {}


def test_a_changed_key_has_both_values() -> None:
    """As in the file."""
    old, new = Config(), Config(limits=Limits(clients=7), listen=[Listener(backlog=5)])
    assert between(old, new) == {"limits.clients": "1000 -> 7", "listen[0].backlog": "1024 -> 5"}


@pytest.mark.parametrize(
    ("new", "shown"),
    [
        (B, "127.0.0.1:65002 (command)"),
        (Listener(address=Address("::1"), port=1, service="echo"), "[::1]:1 (echo)"),
        (Listener(address=Address("unix:/x/y"), proxy=Proxy()), "unix:/x/y (command, proxy)"),
        (Listener(port=65443, tls=TLS), "127.0.0.1:65443 (command, tls)"),
    ],
)
def test_a_listener_is_one_change(new: Listener, shown: str) -> None:
    """With its address, its service and the protocols around it."""
    assert listeners([A], [A, new]) == {"listen[1]": f"added {shown}"}
    assert listeners([A, new], [A]) == {"listen[1]": f"removed {shown}"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([A, B], [B], {"listen[0]": "removed 127.0.0.1:65001 (command)"}),
        ([B], [A, B], {"listen[0]": "added 127.0.0.1:65001 (command)"}),
        ([A, B], [B, A], {}),
        ([A, B], [C, B], {"listen[0].port": "65001 -> 65003"}),
        (
            [A, B],
            [B, C],
            {
                "listen[0]": "removed 127.0.0.1:65001 (command)",
                "listen[1]": "added 127.0.0.1:65003 (command)",
            },
        ),
        (
            [A, B],
            [Listener(port=65002, backlog=5)],
            {
                "listen[0]": "removed 127.0.0.1:65001 (command)",
                "listen[0].backlog": "1024 -> 5",
            },
        ),
        (
            [Listener(port=0)],
            [Listener(port=0), Listener(port=0)],
            {"listen[1]": "added 127.0.0.1:0 (command)"},
        ),
        ([A], [Listener(port=65001, tls=TLS)], {"listen[0].tls": "added certificate /x/cert.pem"}),
        (
            [Listener(port=1, proxy=Proxy(trusted=[Network.parse("192.0.2.1")]))],
            [Listener(port=1)],
            {"listen[0].proxy": 'removed trusted ["192.0.2.1/32"]'},
        ),
    ],
)
def test_a_listener_is_the_same_one_at_another_place(
    old: list[Listener], new: list[Listener], expected: dict[str, str]
) -> None:
    """It is known by its address, as the master pairs listeners; other changes have its number."""
    assert listeners(old, new) == expected


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (FixedText(text="hello"), "text hello"),
        (Close(close="so long"), "close so long"),
        (Clock(clock=ClockFormat("%F")), "clock %F"),
        (run(), 'run ["true","-x"]'),
        (run(A="b"), 'run ["true","-x"]'),
    ],
)
def test_a_command_is_one_change(command: Command, shown: str) -> None:
    """With its kind and that key's value."""
    assert commands({}, {"mine": command}) == {"commands.mine": f"added {shown}"}
    assert commands({"mine": command}, {}) == {"commands.mine": f"removed {shown}"}


def test_a_built_in_command_is_removed_and_restored() -> None:
    """Null in the file is no value for an operator to see."""
    assert commands({}, {"quit": None}) == {"commands.quit": "removed close quit"}
    assert commands({"quit": None}, {}) == {"commands.quit": "added close quit"}


def test_another_kind_of_command_changes_its_keys() -> None:
    """Keys that only one kind has are added and removed."""
    assert commands({"time": FixedText(text="x")}, {}) == {
        "commands.time.clock": "added %Y/%m/%d %H:%M:%S",
        "commands.time.text": "removed x",
        "commands.time.timezone": "added local",
    }


def test_an_environment_variable_is_one_change() -> None:
    """Also the first and the last one."""
    assert commands({"mine": run(A="b")}, {"mine": run(A="c", D="e")}) == {
        "commands.mine.env.A": "b -> c",
        "commands.mine.env.D": "added e",
    }
    assert commands({"mine": run(A="b")}, {"mine": run()}) == {"commands.mine.env.A": "removed b"}


def test_a_long_value_is_shortened() -> None:
    """A change fits in a line of the log."""
    (change,) = commands({}, {"mine": FixedText(text="x" * 5000)}).values()
    assert len(change) < 500


def test_settings_of_a_version_without_summaries_are_compared() -> None:
    """After an upgrade the old settings may have only the keys of the file."""
    new = settings(Config(listen=[A, B]))
    old = {key: value for key, value in settings(Config(listen=[A, B])).items() if key[-1] != "]"}
    for name in ("commands.time", "commands.quit"):
        del old[name]
    assert changes(old, new) == {}
    assert changes(old | {"listen[0].port": "1"}, new) == {"listen[0].port": "1 -> 65001"}
