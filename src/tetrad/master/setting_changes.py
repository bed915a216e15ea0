"""What differs between two configurations, for people: compares `RuntimeConfig["settings"]`."""

from __future__ import annotations

from tetrad.ipc import listener_pairs
from tetrad.ipc.log_protocol import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def changes(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return what has changed by key: `old -> new`, `added new` or `removed old`, shortened.

    A mapping that only one side has, such as a listener or a command, is one change; its own key
    has the summary. A listener that keeps its address is the same one wherever it is in the list.
    """
    old, removed = _with_numbers_of(old, new)
    old_mappings, new_mappings = _mappings(old), _mappings(new)
    found = removed
    reported = "."
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        in_old, in_new = key in old_mappings, key in new_mappings
        if was == now or (in_old and in_new) or key.startswith(reported):
            continue
        if was is None or in_new:
            found[key] = f"added {shorten(now)}"
        elif now is None or in_old:
            found[key] = f"removed {shorten(was)}"
        else:
            found[key] = f"{shorten(was)} -> {shorten(now)}"
        reported = f"{key}." if in_old or in_new else reported
    return {key: found[key] for key in sorted(found)}


def _mappings(settings: Iterable[str]) -> set[str]:
    """Return the keys that have other keys below them."""
    return {key.rpartition(".")[0] for key in settings}


def _with_numbers_of(
    old: dict[str, str], new: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the old settings with the numbers that its listeners have in the new ones.

    Listeners that are not in the new ones are left out, and returned as removed.
    """
    pairs, closed, opened = listener_pairs.pair(_listeners(old), _listeners(new), _is_same)
    numbers: dict[str, str | None] = {was[0]: now[0] for was, now in pairs}
    replaced = {key for key, _ in opened}
    removed = {}
    for key, _ in closed:
        if key not in replaced:
            numbers[key] = None
            removed[key] = f"removed {shorten(old[key])}"
    renumbered = {}
    for key, value in old.items():
        listener, bracket, rest = key.partition("]")
        number = numbers.get(listener + bracket, listener + bracket)
        if number is not None:
            renumbered[number + rest] = value
    return renumbered, removed


def _listeners(settings: dict[str, str]) -> list[tuple[str, str]]:
    """Return the key of each listener, such as `listen[0]`, and its name."""
    return [
        (key, settings[key].rpartition(" (")[0])
        for key in settings
        if key.startswith("listen[") and key.endswith("]")
    ]


def _is_same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[1] == other[1]
