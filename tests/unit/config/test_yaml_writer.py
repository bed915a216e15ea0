"""A dump of the configuration: it has every key, and is read back to the same."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configuration_files import read
from tetrad.config import types as config_types
from tetrad.config.command_model import BUILT_IN_COMMANDS, Clock, Close, FixedText, Run
from tetrad.config.model import Access, Config, Daemon, Handlers, Limits, Listener, Log, Session
from tetrad.config.yaml_writer import dump

if TYPE_CHECKING:
    from pathlib import Path

# Random configurations

words = st.sampled_from(
    ["no", "010", "22:00", "~", "null", "=", "<<", "#", "- a", "x: y", " ", "\n"]
)

characters = st.characters(codec="utf-8", exclude_characters="\x85")
texts = st.one_of(words, st.text(characters, min_size=1, max_size=20))

files = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85/"), min_size=1, max_size=20)
absolute = files.filter(lambda name: name not in {".", ".."}).map(lambda name: f"/x/{name}")
durations = st.integers(1, 10**9).map(lambda n: config_types.Duration.parse(n / 1000))
sockets = absolute.filter(lambda path: len(path.encode()) <= 107)
counts = st.integers(1, 1_000_000)
networks = st.ip_addresses().map(str).map(config_types.Network.parse)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate values or None."""
    return st.none() | values


arguments = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85"), max_size=9).map(
    config_types.Argument
)

listeners = st.builds(
    Listener,
    address=st.ip_addresses()
    .filter(lambda one: one.version == 4 or not one.is_link_local)
    .map(str)
    .map(config_types.Address.parse),
    port=maybe(st.integers(0, 65535)),
    service=st.sampled_from(["command", "echo"]),
    backlog=st.integers(1, 65535),
) | st.builds(
    Listener,
    address=sockets.map(lambda path: config_types.Address(f"unix:{path}")),
    reply_terminator=st.sampled_from(["", "\n", "\r\n", "\0"]).map(config_types.Terminator),
)

sizes = st.integers(1, 1 << 40).map(config_types.Size)
commands = (
    st.builds(
        Clock,
        clock=texts.filter(lambda text: "\0" not in text).map(
            lambda text: config_types.ClockFormat(text.replace("%", "%%"))
        ),
        timezone=st.sampled_from(["local", "UTC"]).map(config_types.Timezone),
    )
    | st.builds(Close, close=texts)
    | st.builds(FixedText, text=texts)
    | st.builds(
        Run,
        run=st.lists(arguments, max_size=3).map(
            lambda more: [config_types.Argument("true"), *more]
        ),
        env=st.dictionaries(
            st.sampled_from(["LC_ALL", "x"]).map(config_types.Variable), arguments, max_size=2
        ),
        timeout=durations,
        max_output=st.integers(1, 1 << 30).map(config_types.Size),
        on_error=maybe(texts),
        max_running=maybe(counts),
        memory=maybe(sizes),
        cpu=maybe(durations),
        file_size=maybe(sizes),
    )
)

names = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=4, max_size=4)
configurations = st.builds(
    Config,
    # Two listeners with one port exclude each other if one has all addresses.
    listen=st.lists(
        listeners,
        min_size=1,
        max_size=3,
        unique_by=(lambda listener: listener.name, lambda listener: listener.port or listener.name),
    ),
    daemon=st.builds(
        Daemon,
        pidfile=absolute.map(lambda path: config_types.Path(f"/run{path}")),
        control=sockets.map(lambda path: config_types.SocketPath(f"/c{path[:100]}")),
        working_directory=absolute.map(config_types.Path),
        umask=st.integers(0, 0o777).map(config_types.Mode),
        stop_timeout=durations,
    ),
    log=st.builds(
        Log,
        file=maybe(absolute.map(lambda path: config_types.Path(f"/log{path}"))),
        level=st.sampled_from(["debug", "info", "warning", "error"]),
        format=st.sampled_from(["json", "logfmt", "console"]),
    ),
    handlers=st.builds(Handlers, spare=st.integers(0, 10_000), clients_each=counts),
    limits=st.builds(
        Limits,
        clients=counts,
        clients_per_source=maybe(counts | st.just("auto")),
        rate_per_source=maybe(
            st.builds("{}/{}".format, counts, st.sampled_from("smh")).map(config_types.Rate.parse)
        ),
    ),
    session=st.builds(
        Session,
        first_command_timeout=maybe(durations),
        idle_timeout=maybe(durations),
        max_duration=maybe(durations),
        send_timeout=maybe(durations),
    ),
    access=st.builds(
        Access, allow=st.lists(networks, max_size=3), deny=st.lists(networks, max_size=3)
    ),
    commands=st.builds(
        operator.or_,
        st.dictionaries(names.map(config_types.CommandName), commands, max_size=3),
        st.dictionaries(st.sampled_from(sorted(BUILT_IN_COMMANDS)), st.none()),
    ),
)


@given(configurations)
def test_a_dump_loads_back_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, configuration: Config
) -> None:
    """A dump is a file with the same meaning in any folder."""
    file = tmp_path_factory.getbasetemp() / "dump.yaml"
    loaded = read(file, dump(configuration))
    assert (loaded.problems, loaded.config) == ([], configuration)


@pytest.mark.parametrize("text", ["1e3", "1", "0o7", "null", "true", "~", "", "12:30", "1.", "no"])
def test_a_string_stays_a_string_in_a_dump(file: Path, text: str) -> None:
    """A string that looks like another type is quoted."""
    command = Run(run=[config_types.Argument("true"), config_types.Argument(text)])
    configuration = Config(commands={config_types.CommandName("true"): command})
    assert read(file, dump(configuration)).checked().config == configuration


def test_a_dump_has_every_key() -> None:
    """A dump shows all keys with their effective values."""
    dumped = yaml.safe_load(dump(Config()))
    assert list(dumped) == list(Config.__struct_fields__)
    assert list(dumped["daemon"]) == list(Daemon.__struct_fields__)
    assert dumped["listen"] == [
        {
            "address": "127.0.0.1",
            "port": 65000,
            "service": "command",
            "backlog": 1024,
            "reply_terminator": "",
            "proxy": None,
            "tls": None,
        }
    ]
    assert dumped["commands"]["quit"] == {"close": "quit"}


def test_a_dump_is_readable() -> None:
    """Letters are not escaped, and only lines longer than 100 characters are broken."""
    text = "é " * 45 + "é"
    configuration = Config(commands={config_types.CommandName("long"): Close(close=text)})
    assert f"    close: {text}\n" in dump(configuration)


def test_a_dump_has_no_port_for_a_unix_socket() -> None:
    """A null port would be an error when the dump is read."""
    listener = Listener(address=config_types.Address("unix:/x"))
    assert "port" not in yaml.safe_load(dump(Config(listen=[listener])))["listen"][0]
