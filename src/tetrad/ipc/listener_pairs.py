"""Pairs listeners of the configuration with sockets that exist already."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")
    U = TypeVar("U")


def pair(
    present: Iterable[T], wanted: Iterable[U], is_same: Callable[[T, U], bool]
) -> tuple[list[tuple[T, U]], list[T], list[U]]:
    """Return pairs that are the same listener, then what is only present, then only wanted.

    Each is in at most one pair: several listeners may have one name, that of port 0.
    """
    pairs, only_present, only_wanted = [], [], list(wanted)
    for one in present:
        match = next((other for other in only_wanted if is_same(one, other)), None)
        if match is None:
            only_present.append(one)
        else:
            only_wanted.remove(match)
            pairs.append((one, match))
    return pairs, only_present, only_wanted
