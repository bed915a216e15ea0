"""The upgrade trial: the newly installed version, executed by a daemon that is to become it.

Descriptor 3 is for the answer, 4 has the daemon's saved state; the arguments are those of the
config reader. The rest of the new version is imported late, so that an import error is an answer
too, and the answer goes to descriptor 0: the stand-ins of the checks take 3 and above.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys

from tetrad.system.text import describe_error, traceback_frames

ANSWER, STATE = 3, 4

MAX_SECONDS = 120
"""After this time the trial ends itself; usually the daemon has ended it long before."""


def main() -> None:
    """Run the checks and write the answer."""
    signal.alarm(MAX_SECONDS)
    with open(STATE, "rb") as file:
        marshal.load(file)  # noqa: S302 - the daemon's; the place of the runtime configuration
        state = marshal.load(file)  # noqa: S302
    os.dup2(ANSWER, 0)
    try:
        from tetrad.helpers import upgrade_checks  # noqa: PLC0415 - see the module's docstring

        answer = upgrade_checks.run(state, *sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - whatever the new version raises is the answer
        answer = {"errors": [f"the new version failed its trial: {_describe(error)}"]}
    with open(0, "wb") as file:
        marshal.dump(answer, file)
    os._exit(0)


def _describe(error: BaseException) -> str:
    """Return the place and the exception in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {describe_error(error)}"
    file, line = traceback_frames(error)[-1]
    return f"{file}:{line}: {describe_error(error)}"
