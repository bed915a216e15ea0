"""What root does as another user: in a session of its own, without the terminal of root."""

from __future__ import annotations

import os

import pytest

from tetrad.launch import privileges


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_does_not_get_the_session_of_the_caller() -> None:
    """A process that has the terminal of its session can type into it (TIOCSTI)."""
    nobody = privileges.identity_of("nobody")
    session, pid, uid = privileges.run_as(nobody, _who)
    assert (session, uid) == (pid, nobody.uid)
    assert _who() == (os.getsid(0), os.getpid(), 0)


def _who() -> tuple[int, int, int]:
    return os.getsid(0), os.getpid(), os.geteuid()
