"""A mapping of the configuration file with a fixed set of keys, and constraints between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

Text = Annotated[str, Meta(min_length=1, max_length=1024)]


class ConstraintViolation(NamedTuple):
    """A constraint between keys that is violated; `key` is the path of the key to change.

    `other` is the path of the key that it contradicts. If the value of either is not valid, it is
    not known whether the constraint is violated.
    """

    key: str
    message: str
    other: str = ""


class ConstraintError(ValueError):
    """Valid values that contradict each other; `violations` has all of them."""

    def __init__(self, violations: list[ConstraintViolation]) -> None:
        super().__init__("; ".join(f"{one.key}: {one.message}" for one in violations))
        self.violations = violations


class Section(Struct, frozen=True, kw_only=True):
    """A mapping with a fixed set of keys. Creating one raises ConstraintError."""

    def __post_init__(self) -> None:
        """Check the constraints."""
        if violations := list(self.violations()):
            raise ConstraintError(violations)

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return the constraints between keys of this section that are violated."""
        return ()
