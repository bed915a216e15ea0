"""The result of reading a configuration file: the configuration, its errors, and its locations."""

from __future__ import annotations

import re
from typing import NamedTuple

from tetrad.config.diagnostics import ConfigError
from tetrad.config.model import Config
from tetrad.system.text import escape_unprintable

_SECTION_END = re.compile(r"[.\[]")  # in paths such as access.deny[0]


class ConfigResult(NamedTuple):
    """What was read from a file. A key whose value has an error has its default in `config`."""

    config: Config
    file: str | None
    problems: list[str]
    """One line for each error, each with its location."""
    key_lines: dict[str, int]
    """The keys that the file sets, such as `log.file` or `access.deny[0]`, and their lines."""
    value_locations: dict[str, str] = {}  # noqa: RUF012 - never changed
    """The keys that the file sets and the `FILE:LINE:COLUMN` of their values."""
    faulty_keys: frozenset[str] = frozenset()
    """The keys with errors and the unknown keys; an empty key is the whole file."""
    checksum: int | None = None
    """Of the bytes of the file; None without a file."""

    def is_reliable(self, key: str) -> bool:
        """Tell whether the value of a key such as `log.file` is certain in spite of the errors.

        If the file does not set the key, it is not certain when an unknown or faulty key could be
        a misspelling of it.
        """
        section = _section_of(key)
        if key in self.key_lines:
            return self.faulty_keys.isdisjoint({"", section, key})
        other_sections = set(Config.__struct_fields__) - {section}
        return {_section_of(path) for path in self.faulty_keys} <= other_sections

    def error_at(self, key: str, message: str) -> str:
        """Return an error message about the value of a key, with the location of the value."""
        where = f"{self.value_locations[key]}: " if key in self.value_locations else ""
        return f"{where}{key}: {escape_unprintable(message)}"

    def checked(self) -> ConfigResult:
        """Return this result, or raise ConfigError if the file has errors."""
        if self.problems:
            raise ConfigError(self.problems)
        return self


def _section_of(key: str) -> str:
    return _SECTION_END.split(key, maxsplit=1)[0]
