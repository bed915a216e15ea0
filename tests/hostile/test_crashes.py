"""A client that guesses addresses in a handler's memory: each wrong guess crashes the handler."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.support.clients import ANSWER
from tests.support.processes import until
from tetrad.master.admission import CRASHES

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

SOURCE = "127.0.0.9"


def test_a_source_whose_handlers_crash_is_kept_out(daemon: MakeDaemon) -> None:
    """For a while, and no other source."""
    served = daemon(limits={"clients_per_source": 100})
    served.allow_lost_handlers = True
    clients = [served.served(source=SOURCE) for _ in range(CRASHES)]
    for pid in served.handlers:
        os.kill(pid, signal.SIGSEGV)
    served.wait_for("handler.lost", count=len(clients))
    assert until(lambda: served.connect(source=SOURCE).is_refused(), "a refusal")
    assert served.wait_for("client.refused")["reason"] == "crashes"
    explained = served.tetrad("explain", SOURCE)
    assert explained.status == 1
    assert "crashes of this source's handlers: the next client in" in explained.out
    assert ANSWER.fullmatch(served.served().ask())
