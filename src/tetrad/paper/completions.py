"""Completions for bash, zsh and fish.

shtab makes them, as it knows the three shells; of our own is what a value can be. It is a library
of the development only, in one exact version, since the files that are kept are compared with what
it makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tetrad.cli.parser import parser
from tetrad.paper.commandline import actions, parsers
from tetrad.paper.prose import EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tetrad.paper.commandline import Parser

_FILE = "FILE"
_EVENT = "GLOB"
_WORDS = " ".join(EVENTS)

_EVENTS: dict[str, object] = {"bash": "_tetrad_events", "zsh": f"({_WORDS})", "fish": _WORDS}
_PREAMBLE: Any = {"bash": f'_tetrad_events() {{ compgen -W "{_WORDS}" -- "$1"; }}'}

# bash makes three words of `--level=info`, and shtab expects two.
_JOINED = """
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
    import shtab  # noqa: PLC0415 - the schema must be had without it

    top = parser()
    for one in parsers(top).values():
        _say_what_completes(one, {_FILE: shtab.FILE, _EVENT: _EVENTS})
    made: str = shtab.complete(top, shell, preamble=_PREAMBLE)
    made = "\n".join(line.rstrip() for line in made.rstrip().splitlines()) + "\n"
    return made + _JOINED if shell == "bash" else made


def _say_what_completes(parser: Parser, values: Mapping[str, Mapping[str, object]]) -> None:
    """Tell shtab, which looks at an attribute that argparse does not have."""
    for action in actions(parser):
        if isinstance(action.metavar, str) and action.metavar in values:
            vars(action)["complete"] = values[action.metavar]
