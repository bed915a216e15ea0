"""A mapping of the configuration file, and what it may say of keys that cannot work together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

Text = Annotated[str, Meta(min_length=1, max_length=1024)]


class ConstraintViolation(NamedTuple):
    """What is wrong with one `key` of a section, or of one below it, in the light of the others."""

    key: str
    message: str


class ConstraintError(ValueError):
    """There are keys that cannot work together: `misfits` are all of them."""

    def __init__(self, misfits: list[ConstraintViolation]) -> None:
        super().__init__("; ".join(f"{key}: {message}" for key, message in misfits))
        self.misfits = misfits


class Section(Struct, frozen=True, kw_only=True):
    """A mapping of the file, whose keys are known. To make one raises ConstraintError."""

    def __post_init__(self) -> None:
        """Refuse what cannot work together."""
        if misfits := list(self.misfits()):
            raise ConstraintError(misfits)

    def misfits(self) -> Iterable[ConstraintViolation]:
        """Return what cannot work together."""
        return ()
