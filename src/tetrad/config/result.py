"""What a configuration file gave: the model, its problems, and how far it can be relied on."""

from __future__ import annotations

import re
from typing import NamedTuple

from tetrad.config.model import Config
from tetrad.system.text import escape_unprintable

_BEHIND_SECTION = re.compile(r"[.\[]")  # as in access.deny[0]


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has a line for everything that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ConfigResult(NamedTuple):
    """What a file gave: where it had problems, the model has the defaults, or cannot work."""

    config: Config
    file: str | None
    problems: list[str]
    given: dict[str, int]
    """The keys that the file sets, as `log.file` or `access.deny[0]`, with their lines."""
    places: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Where their values are, as `FILE:LINE:COLUMN`."""
    spoilt: frozenset[str] = frozenset()
    """The keys that had problems, or were not known; the empty one is the whole file."""

    def is_sure_of(self, key: str) -> bool:
        """Tell whether a key such as `log.file` has the value that the operator means.

        One that is not given may be what another one was to be.
        """
        section = _section_of(key)
        if key in self.given:
            return self.spoilt.isdisjoint({"", section, key})
        others = set(Config.__struct_fields__) - {section}
        return {_section_of(path) for path in self.spoilt} <= others

    def place(self, key: str, message: str) -> str:
        """Return a problem with a key's value, with its place."""
        where = f"{self.places[key]}: " if key in self.places else ""
        return f"{where}{key}: {escape_unprintable(message)}"

    def checked(self) -> ConfigResult:
        """Return itself, or raise ConfigError if there were problems."""
        if self.problems:
            raise ConfigError(self.problems)
        return self


def _section_of(key: str) -> str:
    return _BEHIND_SECTION.split(key, maxsplit=1)[0]
