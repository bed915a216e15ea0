"""How a master begins: a daemon's life, or where another version of it has stopped.

Whoever waits for that, the command that starts the daemon or the one that upgrades it, is told.
"""

from __future__ import annotations

import os

from tetrad import __version__
from tetrad.ipc import log_protocol
from tetrad.ipc.fds import FIRST_LISTENER, READY
from tetrad.ipc.reply import send_reply
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
            saved_state.restore(master, self._state)
        master.configure_handlers().rehearse()
        if self._state is not None:
            return saved_state.adopted(master.config, self._state)
        configs, inherited = master.config["listeners"], master.config["inherited"]
        adopted = [
            sockets.from_fd(FIRST_LISTENER + n, one["family"]) for n, one in enumerate(configs)
        ]
        pairs = zip(configs, adopted, strict=True)
        return [Listener(*pair, inherited=inherited) for pair in pairs]

    def run(self) -> bool:
        """Open the door, and say so; False if who started us is gone: that was interrupted."""
        ours = self.prepare()
        state, self._state = self._state, None
        if state is None:
            return self._start_fresh(ours)
        self._resume(ours, state)
        return True

    def notify_starter(self, word: dict[str, object]) -> bool:
        """Tell who waits for us to serve, once; False if they are gone."""
        fd, self._starter = self._starter, None
        if fd is None:
            return True
        try:
            send_reply(self._master.fork, fd, encode(word).encode() + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _start_fresh(self, ours: list[Listener]) -> bool:
        master = self._master
        master.logger.start(master.config["log"])
        for listener in ours:
            master.acceptor.add_listener(listener)
        master.log_lifecycle(log_protocol.SERVER_STARTED)
        for listener in ours:
            master.log.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        names = [[listener.name, listener.config["service"]] for listener in ours]
        return self.notify_starter({"pid": master.pid, "listening": names})

    def _resume(self, ours: list[Listener], state: State) -> None:
        """Go on with the life of a daemon that was of another version until now."""
        master = self._master
        if self._starter is not None:
            master.loop.track_fd(self._starter)
            os.set_inheritable(self._starter, False)
        # Who has left meanwhile has left room for whoever waits at the door.
        master.handlers.check_alive()
        for listener in ours:
            listener.socket.listen(listener.config["backlog"])
            master.acceptor.add_listener(listener)
        master.acceptor.restore_pending(state["acceptor"]["pending_connections"])
        # A program of ours must not get what the loop has not seen yet.
        master.logger.take_over(master.config["log"], state["logger"])
        outcome = {
            "version": __version__,
            "from": state["version"],
            "changes": changes(state["settings"], master.config["settings"]),
        }
        master.log.event("info", log_protocol.SERVER_UPGRADED, **outcome)
        master.handlers.terminate_denied()
        self.notify_starter({**outcome, "pid": master.pid, "sessions": master.admission.clients})
