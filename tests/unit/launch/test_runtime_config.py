"""The runtime configuration: the whole configuration as plain data."""

from __future__ import annotations

import grp
import ipaddress
import marshal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tetrad import __version__
from tetrad.config import paths, programs
from tetrad.config.command_model import Call, Clock, Close, Command, FixedText, Run
from tetrad.config.model import (
    Access,
    Config,
    Daemon,
    Handlers,
    Limits,
    Listener,
    Log,
    Proxy,
    Session,
)
from tetrad.config.result import ConfigResult
from tetrad.config.types import (
    Address,
    Argument,
    ClockFormat,
    CommandName,
    Duration,
    Function,
    Group,
    Mode,
    Network,
    Path,
    Rate,
    Size,
    SocketPath,
    Terminator,
    Timezone,
    Variable,
)
from tetrad.ipc.access_list import AccessList
from tetrad.launch import runtime_config

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig

COMMANDS: dict[CommandName, Command | None] = {
    CommandName("date"): Clock(clock=ClockFormat("%F"), timezone=Timezone("UTC")),
    CommandName("quit"): None,
    CommandName("exit"): Close(close="bye"),
    CommandName("motd"): FixedText(text="hello"),
    CommandName("true"): Run(
        run=[Argument("/bin/true"), Argument("-x")], env={Variable("A"): Argument("b")}
    ),
    CommandName("func"): Call(
        call=Function("x.y:z"),
        timeout=Duration(3),
        max_output=Size(9),
        on_error="sorry",
        max_running=None,
        memory=None,
        cpu=Duration(0.5),
        file_size=None,
    ),
}

FULL = Config(
    listen=[
        Listener(address=Address("127.0.0.1"), port=0, service="echo", backlog=5),
        Listener(address=Address("2001:db8::1"), reply_terminator=Terminator("\r\n")),
        Listener(address=Address("unix:/x/y.sock"), reply_terminator=Terminator("\r\n")),
    ],
    daemon=Daemon(
        pidfile=Path("/x/pid"),
        control=SocketPath("/x/control"),
        control_group=Group("daemon"),
        umask=Mode(0o077),
        stop_timeout=Duration(2.5),
    ),
    log=Log(file=Path("/x/log"), level="debug", format="logfmt"),
    handlers=Handlers(spare=2, clients_each=3),
    limits=Limits(clients=7, clients_per_source=4, rate_per_source=Rate.parse("300/m")),
    session=Session(
        first_command_timeout=Duration(1),
        idle_timeout=Duration(2),
        max_duration=Duration(3),
        send_timeout=None,
    ),
    access=Access(allow=[Network("10.0.0.0/8")], deny=[Network("2001:db8::/32")]),
    commands=COMMANDS,
)


def make(
    config: Config,
    *given: str,
    file: str | None = "/x/tetrad.yaml",
    config_path: str | None = None,
    foreground: bool = False,
) -> RuntimeConfig:
    """Return the runtime configuration; the keys `given` are set in the file."""
    loaded = ConfigResult(config, file, [], dict.fromkeys(given, 1))
    return runtime_config.build(loaded, config_path, foreground=foreground)


def types_in(value: object) -> set[type]:
    """Return the types of a value and of its parts, at every depth."""
    if isinstance(value, dict):
        return {type(value)}.union(*(types_in(part) for item in value.items() for part in item))
    if isinstance(value, list | tuple):
        return {type(value)}.union(*map(types_in, value))
    return {type(value)}


@pytest.mark.parametrize("config", [Config(), FULL])
@pytest.mark.parametrize("foreground", [True, False])
def test_the_runtime_configuration_is_plain_data(config: Config, *, foreground: bool) -> None:
    """A lean process needs no import to read it with marshal."""
    made = dict(make(config, config_path="/x/tetrad.yaml", foreground=foreground))
    assert types_in(made) <= {dict, list, tuple, str, int, float, bool, type(None)}
    assert marshal.loads(marshal.dumps(made)) == made  # noqa: S302 - the data of this test


def test_the_runtime_configuration_has_the_settings() -> None:
    """Every setting that a lean process needs is there, as a number or a string."""
    made = make(FULL)
    assert made["version"] == __version__
    assert made["file"] == "/x/tetrad.yaml"
    assert (made["pidfile"], made["control"], made["stop_timeout"]) == ("/x/pid", "/x/control", 2.5)
    assert (made["control_group"], make(Config())["control_group"]) == (
        grp.getgrnam("daemon").gr_gid,
        None,
    )
    assert made["log"] == {"file": "/x/log", "level": "debug", "format": "logfmt"}
    assert (made["spare"], made["clients_each"]) == (2, 3)
    assert made["limits"] == {
        "clients": 7,
        "clients_per_source": 4,
        "exempt": [],
        "rate_per_source": (300, 60),
    }
    assert made["session"] == {
        "first_command_timeout": 1.0,
        "idle_timeout": 2.0,
        "max_duration": 3.0,
        "send_timeout": None,
        "log_rate": (100, 1),
    }


def test_limits_without_a_value_are_none() -> None:
    """A source has no limits then."""
    limits = make(Config(limits=Limits(clients_per_source=None)))["limits"]
    assert (limits["clients_per_source"], limits["rate_per_source"]) == (None, None)
    assert limits["exempt"] == []


@pytest.mark.parametrize(("clients", "most"), [(1000, 500), (7, 3), (1, 1)])
def test_by_default_a_source_has_half_of_the_places(clients: int, most: int) -> None:
    """This host and the load balancers are not limited."""
    listeners = [Listener(), Listener(port=1, proxy=Proxy(trusted=[Network.parse("192.0.2.10")]))]
    limits = make(Config(listen=listeners, limits=Limits(clients=clients)))["limits"]
    assert limits["clients_per_source"] == most
    exempt = [(rule["bits"], rule["network"], rule["prefix"]) for rule in limits["exempt"]]
    assert exempt == [(32, 0x7F000001, 32), (128, 1, 128), (32, 0xC000020A, 32)]


def test_listeners_have_a_family() -> None:
    """A listener has the arguments of bind(2): a family, and an address and port, or a path."""
    rest = {
        "service": "command",
        "backlog": 1024,
        "reply_terminator": "\r\n",
        "proxy": None,
        "tls": None,
    }
    assert make(FULL)["listeners"] == [
        {
            "index": 0,
            "name": "127.0.0.1:0",
            "family": "inet",
            "address": "127.0.0.1",
            "port": 0,
            "service": "echo",
            "backlog": 5,
            "reply_terminator": "",
            "proxy": None,
            "tls": None,
        },
        {
            "index": 1,
            "name": "[2001:db8::1]:65000",
            "family": "inet6",
            "address": "2001:db8::1",
            "port": 65000,
            **rest,
        },
        {
            "index": 2,
            "name": "unix:/x/y.sock",
            "family": "unix",
            "address": "/x/y.sock",
            "port": 0,
            **rest,
        },
    ]


def test_commands_are_the_built_in_and_the_configured_ones() -> None:
    """Each command has its kind and values; removed commands are not there."""
    assert make(FULL)["commands"] == {
        "time": {"kind": "clock", "text": "%Y/%m/%d %H:%M:%S", "timezone": "local"},
        "date": {"kind": "clock", "text": "%F", "timezone": "UTC"},
        "exit": {"kind": "close", "text": "bye", "timezone": ""},
        "motd": {"kind": "text", "text": "hello", "timezone": ""},
        "true": {
            "kind": "run",
            "target": "/bin/true",
            "arguments": ["/bin/true", "-x"],
            "environment": {"PATH": programs.PATH, "LANG": "C.UTF-8", "A": "b"},
            "timeout": 10.0,
            "max_output": 65536,
            "on_error": None,
            "max_running": 100,
            "memory": 2 << 30,
            "cpu": 60,
            "file_size": 256 << 20,
        },
        "func": {
            "kind": "call",
            "target": "x.y:z",
            "arguments": [],
            "environment": {},
            "timeout": 3.0,
            "max_output": 9,
            "on_error": "sorry",
            "max_running": None,
            "memory": None,
            "cpu": 1,
            "file_size": None,
        },
    }


@pytest.mark.parametrize(
    ("network", "bits", "address", "prefix"),
    [
        ("192.0.2.0/24", 32, "192.0.2.0", 24),
        ("0.0.0.0/0", 32, "0.0.0.0", 0),  # noqa: S104 - no listener
        ("192.0.2.1/32", 32, "192.0.2.1", 32),
        ("2001:db8::/32", 128, "2001:db8::", 32),
        ("::/0", 128, "::", 0),
        ("::fffe:0:0/95", 128, "::fffe:0:0", 95),
        ("::192.0.2.0/120", 128, "::c000:200", 120),
    ],
)
def test_an_access_rule_has_numbers(network: str, bits: int, address: str, prefix: int) -> None:
    """The values are the address length in bits, the first address, and the prefix length."""
    (rule,) = make(Config(access=Access(deny=[Network(network)])))["access"]
    number = int(ipaddress.ip_address(address))
    expected = {"bits": bits, "network": number, "prefix": prefix}
    assert rule == {"name": "access.deny[0]", **expected, "allow": False}


@given(st.ip_addresses(), st.integers(0, 127), st.integers(0, 127))
def test_a_network_allows_exactly_its_addresses(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int, bit: int
) -> None:
    """From the text in the file to the decision: only the bits of the prefix matter."""
    bits = address.max_prefixlen
    prefix, bit = prefix % bits, bit % bits
    assume(int(address) >> 32 != 0xFFFF)
    network = Network.parse(str(ipaddress.ip_network(f"{address}/{prefix}", strict=False)))
    rules = make(Config(access=Access(allow=[network])))["access"]
    assert AccessList(rules).allows(bits, int(address) ^ (1 << bit)) is (bit < bits - prefix)


def test_rules_have_the_verdict_of_their_list() -> None:
    """The rules of `allow` and `deny` are in one list, each with its verdict."""
    rules = make(FULL)["access"]
    assert [(rule["bits"], rule["allow"]) for rule in rules] == [(32, True), (128, False)]


@pytest.mark.parametrize(
    ("log", "given", "foreground", "expected"),
    [
        (Log(file=Path("/x")), (), False, ("/x", "json")),
        (Log(file=Path("/x")), (), True, (None, "console")),
        (Log(file=Path("/x")), ("log.file",), True, ("/x", "json")),
        (Log(file=Path("/x"), format="logfmt"), ("log.format",), True, (None, "logfmt")),
        (Log(file=Path("/x"), format="json"), ("log.format",), True, (None, "json")),
        (Log(file=None), ("log.file",), True, (None, "console")),
        (Log(file=None), ("log.file",), False, (None, "console")),
        (Log(file=None), ("log.file", "log.format"), True, (None, "json")),
    ],
)
def test_the_log_goes_to_the_terminal_in_the_foreground(
    log: Log, given: tuple[str, ...], *, foreground: bool, expected: tuple[str | None, str]
) -> None:
    """In the foreground the format is `console`, unless the file sets a log file or a format."""
    made = make(Config(log=log), *given, foreground=foreground)["log"]
    assert (made["file"], made["format"], made["level"]) == (*expected, "info")


def test_settings_are_texts_as_in_the_file() -> None:
    """A reload reports changes with these texts."""
    settings = make(FULL)["settings"]
    assert settings["daemon.umask"] == "077"
    assert settings["daemon.stop_timeout"] == "2s500ms"
    assert settings["daemon.user"] == "null"
    assert settings["session.max_duration"] == "3s"
    assert settings["limits.rate_per_source"] == "300/m"
    assert settings["limits.clients"] == "7"
    assert settings["access.allow"] == '["10.0.0.0/8"]'
    assert settings["listen[0].address"] == "127.0.0.1"
    assert settings["listen[0].port"] == "0"
    assert settings["listen[2].address"] == "unix:/x/y.sock"
    assert settings["commands.date.timezone"] == "UTC"
    assert settings["commands.quit"] == "null"
    assert settings["commands.exit.close"] == "bye"
    assert settings["commands.exit"] == "close bye"
    assert settings["listen[1]"] == "[2001:db8::1]:65000 (command)"


def test_every_key_is_in_the_settings() -> None:
    """The settings have every key of the model, also keys with their default values."""
    settings = make(Config())["settings"]
    keys = {
        f"{section}.{key}"
        for section, value in Config().__rich_repr__()
        if section not in {"listen", "commands"}
        for key in value.__struct_fields__
    }
    keys |= {f"listen[0].{key}" for key in Listener.__struct_fields__}
    keys |= {"commands.time.clock", "commands.time.timezone", "commands.quit.close"}
    keys |= {"listen[0]", "commands.time", "commands.quit"}
    assert settings.keys() == keys


def test_restart_only_keys_are_in_the_settings() -> None:
    """Every key that a reload cannot change is a key of the settings."""
    made = make(Config())
    assert set(made["restart_only"]) <= made["settings"].keys()
    assert {"daemon.user", "daemon.group", "daemon.pidfile", "daemon.control"} <= set(
        made["restart_only"]
    )


@pytest.mark.parametrize(
    ("foreground", "config_path", "arguments"),
    [
        (True, "/x/tetrad.yaml", ["run", "/x/tetrad.yaml"]),
        (False, "/x/tetrad.yaml", ["start", "/x/tetrad.yaml"]),
        (False, None, ["start", ""]),
    ],
)
def test_the_runtime_configuration_has_the_commands_of_other_processes(
    *, foreground: bool, config_path: str | None, arguments: list[str]
) -> None:
    """The config reader and the upgrade trial get the arguments of the daemon's start."""
    made = make(Config(), config_path=config_path, foreground=foreground)
    arguments += [paths.runtime_folder(), paths.log_folder()]
    assert made["config_reader"][-4:] == made["upgrade_trial"][-4:] == arguments
    commands = {
        "logger.process": made["logger"],
        "helpers.config_reader": made["config_reader"],
        "helpers.upgrade_trial": made["upgrade_trial"],
    }
    for program, command in commands.items():
        assert command[0] == sys.executable
        assert any(f"from tetrad.{program} import main" in word for word in command)
