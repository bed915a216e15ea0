"""The master: accepts, admits, forks, keeps watch; signals and operators are heard here.

The one process that forks, so the one that imports almost nothing: `tests/test_lean.py` holds the
list. It never reads YAML, never writes the log, never serves a client, and never waits for any of
those who do.
"""

from __future__ import annotations

import gc
import marshal
import os
import time

from tetrad import commands, encryption, events, listeners, pagetables, spawn
from tetrad.admission import Admission
from tetrad.clients import Listener
from tetrad.control import Control
from tetrad.crew import Crew
from tetrad.descriptors import (
    CONTROL,
    JOURNAL,
    LIFELINE_HELD,
    LISTENERS,
    PIDFILE,
    PLAN,
    READY,
)
from tetrad.door import Door
from tetrad.handler import Handler
from tetrad.jsonlines import encode
from tetrad.lean import signal
from tetrad.logkeeper import Logkeeper
from tetrad.loop import Loop
from tetrad.reloading import Reloading, same_place
from tetrad.supervision import Supervision
from tetrad.title import Title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.plan import Plan
    from tetrad.tls import Encryption

CATCH_UP_SECONDS = 1.0
"""How often the master tries to say what found no room in the journal."""

KILLED_AFTER_SECONDS = 1.0
"""How long handlers get beyond their own last moment before they are killed."""


class Master:
    """All that the daemon is, wired together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.title = Title()
        self.loop = Loop()
        self.journal = events.Journal(JOURNAL, plan["log"]["level"])
        self.admission = Admission(plan["limits"], plan["access"])
        self.crew = Crew(self.loop, self.journal, self.admission)
        self.door = Door(
            self.loop, self.journal, self.admission, self.crew, inherited=plan["inherited"]
        )
        self.logkeeper = Logkeeper(self.loop, self.journal, plan["logger"])
        self.reloading = Reloading(self)
        self.supervision = Supervision(self)
        self._encryptions = encryption.make(plan["listeners"])
        self._control_socket = listeners.adopt(CONTROL, "unix")
        self.control = Control(self._control_socket, self)
        self._pid = os.getpid()
        self._started = time.time()
        self._began = time.monotonic()
        self._is_ready = False
        self.is_stopping = False
        self._gone = False

    def run(self) -> None:
        """Serve until told to stop."""
        self._hear_signals()
        self._set_up_crew().rehearse()
        self._set_title()
        self.loop.watch(CONTROL, self.control.accept)
        self.logkeeper.start(self.plan["log"])
        for index, plan in enumerate(self.plan["listeners"]):
            socket = listeners.adopt(LISTENERS + index, plan["family"])
            self.door.open(Listener(plan, socket, inherited=self.plan["inherited"]))
        self.journal.event(
            "info", events.SERVER_STARTED, version=self.plan["version"], config=self.plan["file"]
        )
        for listener in self.door.listeners:
            self._log_listener(listener)
        encryption.remind(self.loop, self.journal, self.plan["listeners"])
        self._say_ready()
        self.supervision.begin()
        pagetables.have_text_copied()
        while not self._is_over():
            self._turn()
        self._leave()

    def _turn(self) -> None:
        self.journal.flush()
        self.supervision.look()
        if self.journal.is_behind and "behind" not in self.loop.timers:
            when = time.monotonic() + CATCH_UP_SECONDS
            self.loop.timers.set("behind", when, self.journal.flush)
        chore = self.crew.wants_spare and not self.is_stopping
        if not self.loop.turn(has_chore=chore) and chore:
            self.crew.hire_spare()

    def take_up(
        self, plan: Plan, opened: list[Listener], encryptions: list[Encryption | None]
    ) -> None:
        """Work by another plan; `opened` are the listeners that are new in it."""
        old, self.plan = self.plan, plan
        self._encryptions = encryptions
        for listener in self.door.listeners:
            match = [new for new in plan["listeners"] if same_place(new, listener.plan)]
            if match:
                listener.configure(match[0])
                listener.socket.listen(match[0]["backlog"])
            else:
                self.door.close(listener)
        for listener in opened:
            self.door.open(listener)
            self._log_listener(listener)
        self.admission.configure(plan["limits"], plan["access"])
        if plan["log"] != old["log"]:
            self.logkeeper.configure(plan["log"])
        encryption.remind(self.loop, self.journal, plan["listeners"])
        self._set_up_crew()
        for child in self.crew:
            if child.client is not None and not self.admission.allows(child.client.address):
                self.crew.dismiss(child)

    def status(self, written: int, lost: int) -> dict[str, object]:
        """Return what an operator wants to know; the logger has `written` and `lost` events."""
        now = time.monotonic()
        return {
            "state": "stopping" if self.is_stopping else "running",
            "pid": self._pid,
            "version": self.plan["version"],
            "config": self.plan["file"],
            "started": round(self._started, 6),
            "uptime": round(now - self._began, 3),
            "listeners": [
                {
                    "name": listener.name,
                    "address": listener.plan["address"],
                    "port": listener.port,
                    "service": listener.plan["service"],
                }
                for listener in self.door.listeners
            ],
            "clients": {
                "now": self.admission.clients,
                "peak": self.door.peak,
                "limit": self.plan["limits"]["clients"],
            },
            "handlers": {"now": len(self.crew), "idle": self.crew.idle, "lost": self.crew.lost},
            "accepted": self.door.accepted,
            "refused": self.door.refusals.counts,
            "log": {
                **self.plan["log"],
                "logger": self.logkeeper.pid,
                "written": written,
                "lost": lost + self.journal.lost_in_all,
            },
            "sessions": [
                {**child.client.fields(), "pid": child.pid, "age": round(now - child.since, 3)}
                for child in self.crew
                if child.client is not None
            ],
        }

    def fork(self, work: Callable[[], object], fd: int) -> None:
        """Fork a child that tells what the master knows, through `fd`. Raises OSError."""
        with spawn.SIGNALS_HELD:
            _, error = spawn.fork_each([(fd, work, ())], self.loop.highest)
        if error is not None:
            raise error

    def fail(self, error: Exception) -> None:
        """Say what defect ends the daemon."""
        self.journal.event("error", events.SERVER_FAILED, error=repr(error), place=_place(error))
        self.journal.flush()
        if not self._is_ready:
            failure = {"error": f"a defect in tetrad: {error!r}", "permission": False}
            os.write(READY, encode(failure).encode())

    def _set_up_crew(self) -> Handler:
        plan = self.plan
        handler = Handler(plan, commands.make(plan["commands"]), self.title, self._encryptions)
        self.crew.configure(handler, plan["spare"], plan["clients_each"])
        self._set_title()
        return handler

    def _set_title(self) -> None:
        self.title.set(f"master {self.plan['file'] or ''}".rstrip())

    def _log_listener(self, listener: Listener) -> None:
        self.journal.event(
            "info",
            events.SERVER_LISTENING,
            address=listener.plan["address"],
            port=listener.port,
            service=listener.plan["service"],
        )

    def _say_ready(self) -> None:
        """Tell who started us. Should they be gone, the start was interrupted, and is undone."""
        names = [[listener.name, listener.plan["service"]] for listener in self.door.listeners]
        try:
            os.write(READY, encode({"pid": os.getpid(), "listening": names}).encode())
        except BrokenPipeError:
            self._stop()
        os.close(READY)
        self._is_ready = True

    def _hear_signals(self) -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        self.loop.saw(theirs)
        self.loop.watch(ours, self._on_signals)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        for number in spawn.ORDERS:
            signal.signal(number, _do_nothing)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_signals(self, fd: int) -> None:
        """Obey the signals whose numbers the interpreter has put into the pipe."""
        for number in os.read(fd, 512):
            if number == signal.SIGHUP:
                self.reloading.ask(lambda _outcome: None)
            elif number == signal.SIGUSR1:
                self.logkeeper.reopen()
            elif number == signal.SIGQUIT or (number == signal.SIGINT and self.is_stopping):
                self._stop_now()
            elif number in {signal.SIGTERM, signal.SIGINT}:
                self._stop()

    def _stop(self) -> None:
        """Accept no more, and let sessions finish."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.journal.event("info", events.SERVER_STOPPING, clients=self.admission.clients)
        self.door.stop()
        self.supervision.stopping()
        self.reloading.stop()
        self.journal.flush()
        os.write(LIFELINE_HELD, b".")
        self.crew.retire()
        when = time.monotonic() + self.plan["stop_timeout"] + KILLED_AFTER_SECONDS
        self.loop.timers.set("kill", when, self.crew.kill)

    def _stop_now(self) -> None:
        """End all sessions without waiting for anybody."""
        self._stop()
        if not self._gone:
            self._gone = True
            os.close(LIFELINE_HELD)
            self.loop.timers.set("kill", time.monotonic() + KILLED_AFTER_SECONDS, self.crew.kill)

    def _is_over(self) -> bool:
        return self.is_stopping and not len(self.crew)

    def _leave(self) -> None:
        """Go, with nothing left behind and the log complete."""
        self.door.sum_up()
        self.journal.event("info", events.SERVER_STOPPED, accepted=self.door.accepted)
        # The pidfile last: who finds none takes everything else for free, too. And emptied, for the
        # folder may not be ours to take files away from.
        _unlink(self.plan["control"])
        os.ftruncate(PIDFILE, 0)
        _unlink(self.plan["pidfile"])
        self.logkeeper.see_off()


def main() -> None:
    """Run the master: the front has put everything into place (see `tetrad.descriptors`)."""
    with open(PLAN, "rb") as file:
        plan = marshal.load(file)  # noqa: S302 - the front's
    gc.disable()
    master = Master(plan)
    try:
        master.run()
    except Exception as error:  # noqa: BLE001 - a defect ends the daemon, and the log says which
        master.fail(error)
        os._exit(spawn.FAILED)


def _do_nothing(_number: int, _frame: object) -> None:
    """The interpreter tells the wakeup pipe only of signals that have a handler."""


def _place(error: Exception) -> str:
    """Return where an error was raised, as file and line, from the outermost call inwards."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # not our folder: an unlocked pidfile is as good as none
