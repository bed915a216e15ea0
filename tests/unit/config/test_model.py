"""The configuration model: the types of defaults, and immutability."""

from __future__ import annotations

import pytest

from tetrad.config.command_model import Clock, Close
from tetrad.config.model import Config, Listener, Proxy, Tls
from tetrad.config.section import Section
from tetrad.config.types import Address, ClockFormat, Path
from tetrad.config.yaml_reader import read
from tetrad.config.yaml_writer import dump


def leaves(value: object, path: str = "") -> dict[str, type]:
    """Return the type of each value in a configuration, by its path."""
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: type(value)}
    return {
        place: kind
        for key, item in value.items()
        for place, kind in leaves(item, f"{path}.{type(key).__name__}:{key}").items()
    }


def test_a_default_has_the_type_of_a_value_from_a_file() -> None:
    """The code that uses a value does not depend on its origin."""
    config = Config()
    assert leaves(config) == leaves(read(dump(config).encode(), "/t.yaml").checked().config)


@pytest.mark.parametrize(
    "section",
    [
        Config(),
        *(
            part
            for part in map(Config().__getattribute__, Config.__struct_fields__)
            if isinstance(part, Section)
        ),
        Listener(),
        Proxy(),
        Tls(certificate=Path("/a")),
        Clock(clock=ClockFormat("%H")),
        Close(close="bye"),
    ],
    ids=lambda section: type(section).__name__,
)
def test_a_configuration_is_immutable(section: Section) -> None:
    """A validated section cannot be changed."""
    name = section.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(section, name, None)


@pytest.mark.parametrize(
    ("listener", "name"),
    [
        (Listener(), "127.0.0.1:65000"),
        (Listener(address=Address("::1"), port=5), "[::1]:5"),
        (Listener(address=Address("unix:/x")), "unix:/x"),
    ],
)
def test_a_listener_is_named_after_its_address(listener: Listener, name: str) -> None:
    """The name is plain text, as lean processes need it."""
    assert (listener.name, type(listener.name)) == (name, str)
