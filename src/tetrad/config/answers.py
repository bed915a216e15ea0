"""What an operator says of answers: how long they may be, and what ends them."""

from __future__ import annotations

import re
from typing import Self

_SIZE = re.compile(r"([0-9]{1,18})\s*(B|KiB|MiB|GiB)?")
_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_LARGEST = 1 << 30

_LONGEST_TERMINATOR = 16


class Size(int):
    """A number of bytes, written `4KiB`, `1MiB` or as a number."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read text or a number of bytes, from one byte to a gibibyte."""
        match = _SIZE.fullmatch(str(value)) if isinstance(value, (int, str)) else None
        size = int(match[1]) * _UNITS[match[2] or "B"] if match else 0
        if not 1 <= size <= _LARGEST:
            raise ValueError("expected a size such as 4KiB or a number of bytes, from 1 to 1GiB")
        return cls(size)

    def __str__(self) -> str:
        """Write it in the largest unit of which it is a multiple."""
        unit = next(unit for unit, count in _UNITS.items() if self % count == 0)
        return f"{self // _UNITS[unit]}{unit}"


class Terminator(str):
    """What ends an answer, such as a line feed, which YAML has in double quotes only."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a short text; a backslash is one that YAML has not read as it was meant."""
        if not isinstance(value, str) or len(value) > _LONGEST_TERMINATOR or "\\" in value:
            raise ValueError('expected a text of up to 16 characters: "\\n" in double quotes')
        return cls(value)
