"""Match the listeners of a configuration with sockets that are open already."""

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
    """Return the pairs for which `is_same` holds, the unmatched `present`, the unmatched `wanted`.

    Each item is in at most one pair: several listeners may have the same name, with port 0.
    """
    pairs, only_present, only_wanted = [], [], list(wanted)
    for item in present:
        match = next((other for other in only_wanted if is_same(item, other)), None)
        if match is None:
            only_present.append(item)
        else:
            only_wanted.remove(match)
            pairs.append((item, match))
    return pairs, only_present, only_wanted
