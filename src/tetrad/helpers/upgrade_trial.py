"""The probe: the newly installed version, tried out by a daemon that is to become it.

It finds at descriptor 3 where to answer, at 4 the daemon's state, and as arguments how the daemon
was started. So that it can tell of whatever is wrong with its version, it imports the rest of it
late, and answers through descriptor 0: 3 and above are where the master's stand-ins come.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys

from tetrad.system.text import describe_error, traceback_frames

ANSWER, STATE = 3, 4

MOST_SECONDS = 120
"""After this it ends, should there be no daemon any more that would end it."""


def main() -> None:
    """Try, and answer."""
    signal.alarm(MOST_SECONDS)
    with open(STATE, "rb") as file:
        marshal.load(file)  # noqa: S302 - the daemon's; there is no plan yet
        state = marshal.load(file)  # noqa: S302
    os.dup2(ANSWER, 0)
    try:
        from tetrad.helpers import trial_steps  # noqa: PLC0415 - what is wrong with it is to be told

        answer = trial_steps.rehearse(state, sys.argv[1], sys.argv[2] or None)
    except BaseException as error:  # noqa: BLE001 - as above
        answer = {"errors": [f"the new version fails: {_describe(error)}"]}
    with open(0, "wb") as file:
        marshal.dump(answer, file)
    os._exit(0)


def _describe(error: BaseException) -> str:
    """Return what was raised and where, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {describe_error(error)}"
    file, line = traceback_frames(error)[-1]
    return f"{file}:{line}: {describe_error(error)}"
