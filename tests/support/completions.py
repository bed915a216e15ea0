"""The completions for bash, zsh and fish, made from the command line's parser by shtab.

`python -m tests.support.completions` writes them to etc/completions. shtab does not know which
options name files or events, and its script for bash does not complete `--option=VALUE`: both are
added here.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import shtab

from tests.support.project import ROOT
from tetrad.cli.parser import parser
from tetrad.ipc import log_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "etc" / "completions"

FILES = {"bash": "tetrad.bash", "zsh": "_tetrad", "fish": "tetrad.fish"}
"""The file of each shell."""

COMMAND = "python -m tests.support.completions"

EVENTS = [
    value
    for name, value in vars(log_protocol).items()
    if name.isupper() and isinstance(value, str) and "." in value and not name.startswith("LOGGER_")
]
"""The events of the log; the orders to the logger are not among them."""

_WORDS = " ".join(EVENTS)
_PREAMBLE: Any = {"bash": f'_tetrad_events() {{ compgen -W "{_WORDS}" -- "$1"; }}'}

_VALUES = {
    "FILE": shtab.FILE,
    "GLOB": {"bash": "_tetrad_events", "zsh": f"({_WORDS})", "fish": _WORDS},
}
"""How the values of options are completed, by their placeholders in `--help`."""

# bash splits `--level=info` into three words; shtab expects the option and its value.
_SPLIT_AT_EQUALS_SIGN = """
_tetrad() {
  local words=() cursor=$COMP_CWORD index
  for index in "${!COMP_WORDS[@]}"; do
    if [[ ${COMP_WORDS[index]} != = ]]; then
      words+=("${COMP_WORDS[index]}")
    elif ((index == COMP_CWORD)); then
      words+=("")
    elif ((index < COMP_CWORD)); then
      ((cursor -= 1))
    fi
  done
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$cursor
  _shtab_tetrad
}

complete -o bashdefault -F _tetrad tetrad
"""


def script(shell: str) -> str:
    """Return the completions for a shell."""
    top = parser()
    for action in _actions(top):
        if action.metavar in _VALUES:
            vars(action)["complete"] = _VALUES[action.metavar]  # the attribute that shtab reads
    made = shtab.complete(top, shell, preamble=_PREAMBLE)
    made = "\n".join(line.rstrip() for line in made.rstrip().splitlines()) + "\n"
    return made + _SPLIT_AT_EQUALS_SIGN if shell == "bash" else made


def _actions(top: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in top._actions:  # noqa: SLF001 - argparse has no public list of its options
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _actions(command)


if __name__ == "__main__":
    for _shell, _name in FILES.items():
        (FOLDER / _name).write_text(script(_shell), "utf-8")
