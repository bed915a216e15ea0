"""The checks of the upgrade trial: the new version starts, with stand-ins for the descriptors.

It reads the configuration, imports all programs, builds a master from the saved state and serves
sessions. It changes nothing, signals no handler of the daemon and logs nothing.
"""

from __future__ import annotations

import marshal
import os
import socket
from typing import TYPE_CHECKING, Any

from tetrad import __version__
from tetrad.helpers import config_reader
from tetrad.ipc import fds, saved_state
from tetrad.ipc.log_counters import FILE_BYTES
from tetrad.launch.fd_layout import move_fds
from tetrad.logger import process
from tetrad.master.process import Master
from tetrad.master.reload import restart_problems
from tetrad.system import exec_commands, memory_file
from tetrad.system.sockets import FAMILIES

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.ipc.saved_state import State

PROGRAMS = (process,)
"""What the new master will execute but not import; imported here to find import errors."""


def run(state: State, *start: str) -> dict[str, Any]:
    """Return the `command` to execute and the `config` for it, or `errors`.

    `takes_sealed_file`: this version does not write to the file of the saved state.
    `is_file_bad` tells whether the errors are about the configuration. `start` is what the config
    reader gets.
    """
    try:
        saved_state.check_format(state, __version__)
    except saved_state.StateFormatError as error:
        return {"errors": [str(error)], "is_file_bad": False}
    answer = config_reader.read(*start)
    if "errors" in answer:
        return answer
    of_file, others = _problems(answer["config"], state), answer["problems"]
    if of_file or others:
        return {"errors": of_file + others, "is_file_bad": bool(of_file)}
    config = marshal.dumps(answer["config"])
    _open_stand_ins(state)
    Master(answer["config"], state).prepare()
    command = exec_commands.command("master.process")
    return {"command": command, "config": config, "takes_sealed_file": True}


def _problems(config: RuntimeConfig, state: State) -> list[str]:
    """Return what an upgrade cannot change of the running daemon."""
    problems = restart_problems(state["restart_only"], state["settings"], config["settings"])
    if saved_state.match_listeners(config, state) is None:
        problems.append(
            "listen: an upgrade cannot change listeners: restore them, run tetrad upgrade, then "
            "change them and run tetrad reload"
        )
    return problems


def _open_stand_ins(state: State) -> None:
    """Open something of the same kind at the number of each descriptor of the master."""
    numbers = range(fds.EVENTS_WRITE, fds.FIRST_LISTENER)
    targets = {number: os.open(os.devnull, os.O_RDWR) for number in numbers}
    kinds = {fds.CONTROL: "unix"}
    kinds |= {listener["fd"]: listener["family"] for listener in state["acceptor"]["listeners"]}
    for number, family in kinds.items():
        targets[number] = socket.socket(FAMILIES[family]).detach()
    targets[fds.NOTICES_READ] = os.pipe()[0]
    targets[fds.LOG_COUNTERS] = memory_file.create("log_counters", FILE_BYTES)
    move_fds(targets)
