"""The rehearsal of an upgrade: the new version begins on stand-ins for what the daemon has.

It reads the file, makes the plan, imports the programs, builds a master from plan and state and
serves sessions. It changes nothing: the daemon's handlers are left alone, and nothing is logged.
"""

from __future__ import annotations

import marshal
import os
import socket
from typing import TYPE_CHECKING, Any

from tetrad import __version__, descriptors, logger, programs, reloader, succession
from tetrad.handover import put_into_place
from tetrad.listeners import FAMILIES
from tetrad.master import Master
from tetrad.reloading import fixed_problems

if TYPE_CHECKING:
    from tetrad.plan import Plan
    from tetrad.succession import State

PROGRAMS = (logger,)
"""What the new master will start and does not import: it is here to be imported."""


def rehearse(state: State, manner: str, explicit: str | None) -> dict[str, Any]:
    """Return what to execute and the plan to do it with; or `errors`.

    `is_file_bad`: whether it is the configuration that they are about.
    """
    try:
        succession.check(state, __version__)
    except succession.ForeignStateError as error:
        return {"errors": [str(error)], "is_file_bad": False}
    answer = reloader.read(explicit, foreground=manner == "run")
    if "errors" in answer:
        return answer
    problems = _problems(answer["plan"], state) + answer["problems"]
    if problems:
        return {"errors": problems, "is_file_bad": True}
    plan = marshal.dumps(answer["plan"])
    _stand_in(state)
    Master(answer["plan"], state).beginning.prepare()
    return {"command": programs.command("master"), "plan": plan}


def _problems(plan: Plan, state: State) -> list[str]:
    """Return what of the file cannot be applied to the daemon that runs."""
    problems = fixed_problems(state["fixed"], state["settings"], plan["settings"])
    if succession.paired(plan, state) is None:
        problems.append(
            "listen: an upgrade changes no listeners: put them back, upgrade, then change them "
            "and reload"
        )
    return problems


def _stand_in(state: State) -> None:
    """Put something of the same kind at each descriptor of the master's."""
    numbers = range(descriptors.JOURNAL, descriptors.LISTENERS)
    places = {place: os.open(os.devnull, os.O_RDWR) for place in numbers}
    kinds = {descriptors.CONTROL: "unix"}
    kinds |= {listener["fd"]: listener["family"] for listener in state["listeners"]}
    for place, family in kinds.items():
        places[place] = socket.socket(FAMILIES[family]).detach()
    places[descriptors.NOTICES_HEARD] = os.pipe()[0]
    places[descriptors.TALLY] = os.memfd_create("tally")
    put_into_place(places)
