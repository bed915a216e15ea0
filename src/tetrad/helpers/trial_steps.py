"""The rehearsal of an upgrade: the new version begins on stand-ins for what the daemon has.

It reads the file, makes the plan, imports the programs, builds a master from plan and state and
serves sessions. It changes nothing: the daemon's handlers are left alone, and nothing is logged.
"""

from __future__ import annotations

import marshal
import os
import socket
from typing import TYPE_CHECKING, Any

from tetrad import __version__
from tetrad.helpers import config_reader
from tetrad.ipc import fds, saved_state
from tetrad.launch.fd_layout import put_into_place
from tetrad.logger import process
from tetrad.master.process import Master
from tetrad.master.reload import restart_problems
from tetrad.system import exec_commands
from tetrad.system.sockets import FAMILIES

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.ipc.saved_state import State

PROGRAMS = (process,)
"""What the new master will start and does not import: it is here to be imported."""


def rehearse(state: State, run_mode: str, config_path: str | None) -> dict[str, Any]:
    """Return what to execute and the plan to do it with; or `errors`.

    `is_file_bad`: whether it is the configuration that they are about.
    """
    try:
        saved_state.check_format(state, __version__)
    except saved_state.StateFormatError as error:
        return {"errors": [str(error)], "is_file_bad": False}
    answer = config_reader.read(config_path, foreground=run_mode == "run")
    if "errors" in answer:
        return answer
    problems = _problems(answer["config"], state) + answer["problems"]
    if problems:
        return {"errors": problems, "is_file_bad": True}
    config = marshal.dumps(answer["config"])
    _stand_in(state)
    Master(answer["config"], state).prepare()
    return {"command": exec_commands.command("master.process"), "config": config}


def _problems(config: RuntimeConfig, state: State) -> list[str]:
    """Return what of the file cannot be applied to the daemon that runs."""
    problems = restart_problems(state["restart_only"], state["settings"], config["settings"])
    if saved_state.pair_listeners(config, state) is None:
        problems.append(
            "listen: an upgrade changes no listeners: put them back, upgrade, then change them "
            "and reload"
        )
    return problems


def _stand_in(state: State) -> None:
    """Put something of the same kind at each descriptor of the master's."""
    numbers = range(fds.EVENTS_WRITE, fds.FIRST_LISTENER)
    places = {place: os.open(os.devnull, os.O_RDWR) for place in numbers}
    kinds = {fds.CONTROL: "unix"}
    kinds |= {listener["fd"]: listener["family"] for listener in state["acceptor"]["listeners"]}
    for place, family in kinds.items():
        places[place] = socket.socket(FAMILIES[family]).detach()
    places[fds.NOTICES_READ] = os.pipe()[0]
    places[fds.LOG_COUNTERS] = os.memfd_create("tally")
    put_into_place(places)
