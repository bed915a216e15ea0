"""How a master begins: a daemon's life, or where another version of it has stopped.

Whoever waits for that, the command that starts the daemon or the one that upgrades it, is told.
"""

from __future__ import annotations

import os

from tetrad import __version__
from tetrad.ipc import log_protocol
from tetrad.ipc.fds import LISTENERS, READY
from tetrad.ipc.reply import deliver
from tetrad.master import saved_state
from tetrad.master.connections import Listener
from tetrad.master.reload import changes
from tetrad.system import sockets
from tetrad.system.json_lite import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.master.process import Master
    from tetrad.master.saved_state import State


class Startup:
    """One beginning. `state` is what the version before has left, None if there was none."""

    def __init__(self, master: Master, state: State | None) -> None:
        self._master = master
        self._state = state
        self._starter = READY if state is None else state["asker"]

    def prepare(self) -> list[Listener]:
        """Do what has no effect on anybody yet; return the listeners."""
        master = self._master
        if self._state is not None:
            saved_state.take(master, self._state)
        master.set_up_crew().rehearse()
        if self._state is not None:
            return saved_state.adopted(master.plan, self._state)
        plans, inherited = master.plan["listeners"], master.plan["inherited"]
        adopted = [sockets.adopt(LISTENERS + n, one["family"]) for n, one in enumerate(plans)]
        pairs = zip(plans, adopted, strict=True)
        return [Listener(*pair, inherited=inherited) for pair in pairs]

    def begin(self) -> bool:
        """Open the door, and say so; False if who started us is gone: that was interrupted."""
        ours = self.prepare()
        state, self._state = self._state, None
        if state is None:
            return self._begin_anew(ours)
        self._go_on(ours, state)
        return True

    def tell_starter(self, word: dict[str, object]) -> bool:
        """Tell who waits for us to serve, once; False if they are gone."""
        fd, self._starter = self._starter, None
        if fd is None:
            return True
        try:
            deliver(self._master, fd, encode(word).encode() + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _begin_anew(self, ours: list[Listener]) -> bool:
        master = self._master
        master.logkeeper.start(master.plan["log"])
        for listener in ours:
            master.door.open(listener)
        master.announce(log_protocol.SERVER_STARTED)
        for listener in ours:
            master.journal.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        names = [[listener.name, listener.plan["service"]] for listener in ours]
        return self.tell_starter({"pid": master.pid, "listening": names})

    def _go_on(self, ours: list[Listener], state: State) -> None:
        """Go on with the life of a daemon that was of another version until now."""
        master = self._master
        if self._starter is not None:
            master.loop.saw(self._starter)
            os.set_inheritable(self._starter, False)
        # Who has left meanwhile has left room for whoever waits at the door.
        master.crew.check()
        for listener in ours:
            listener.socket.listen(listener.plan["backlog"])
            master.door.open(listener)
        master.door.take_in(state["door"]["guests"])
        # A program of ours must not get what the loop has not seen yet.
        master.logkeeper.replace(master.plan["log"], state["logger"])
        outcome = {
            "version": __version__,
            "from": state["version"],
            "changes": changes(state["settings"], master.plan["settings"]),
        }
        master.journal.event("info", log_protocol.SERVER_UPGRADED, **outcome)
        master.crew.dismiss_denied()
        self.tell_starter({**outcome, "pid": master.pid, "sessions": master.admission.clients})
