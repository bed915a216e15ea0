"""Functions that use what a fork copies: generators of random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.jobs import ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon

MODULE = """
import random, uuid
random.random()

def pick(context):
    return f"{random.random()} {uuid.uuid4()} "
"""


def test_each_call_has_random_numbers_of_its_own(prepared: MakeDaemon, tmp_path: Path) -> None:
    """In new, spare and reused handlers alike."""
    (tmp_path / "chosen.py").write_text(MODULE)
    handlers = {"spare": 2, "clients_each": 2}
    served = prepared(handlers=handlers, commands={"pick": {"call": "chosen:pick"}})
    served.environment["PYTHONPATH"] = str(tmp_path)
    served.start()
    words = b"".join(ask(served, b"pickpickquit") for _ in range(4)).replace(b"quit", b"").split()
    assert len(words) == len(set(words)) == 16
