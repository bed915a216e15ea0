"""How the master starts: as a new daemon, or from the state of the version before it.

The command that started or upgraded the daemon waits for an answer on a descriptor.
"""

from __future__ import annotations

import os

from tetrad.ipc.fds import FIRST_LISTENER, READY
from tetrad.ipc.reply import send_reply
from tetrad.ipc.saved_state import match_listeners
from tetrad.master.connections import Listener
from tetrad.system import sockets
from tetrad.system.json_lite import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.reply import Fork
    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.ipc.saved_state import State


class Startup:
    """One start of the master. `state` is what the version before left; None for a new daemon.

    `requester` is the descriptor of the command that waits; None if no command waits.
    """

    def __init__(self, state: State | None, fork: Fork) -> None:
        self.state = state
        self.requester = READY if state is None else state["requester"]
        self._fork = fork

    def listeners(self, config: RuntimeConfig) -> list[Listener]:
        """Return the listeners, whose sockets the launcher or the version before has opened."""
        if self.state is None:
            pairs = [(one, FIRST_LISTENER + one["index"]) for one in config["listeners"]]
        else:
            matches = match_listeners(config, self.state) or ()
            pairs = [(one, present["fd"]) for one, present in matches]
        return [
            Listener(one, sockets.from_fd(fd, one["family"]), inherited=config["inherited"])
            for one, fd in pairs
        ]

    def notify(self, outcome: dict[str, object]) -> bool:
        """Send the outcome to the command that waits, once; False if it has ended."""
        fd, self.requester = self.requester, None
        if fd is None:
            return True
        try:
            send_reply(self._fork, fd, encode(outcome).encode() + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
