"""The reloader: reads the configuration file again for a master that cannot.

Its one argument list says how the daemon was started; its plan, or the problems, goes through
descriptor 3 to the master. It applies nothing.
"""

from __future__ import annotations

import marshal
import os
import pwd
import sys
from typing import Any

from tetrad import certificates, configfile, planning

ANSWER = 3


def main() -> None:
    """Read, and answer."""
    manner, explicit = sys.argv[1], sys.argv[2] or None
    with os.fdopen(ANSWER, "wb") as answer:
        marshal.dump(read(explicit, foreground=manner == "run"), answer)


def read(explicit: str | None, *, foreground: bool) -> dict[str, Any]:
    """Return the `plan` of the configuration, or the `errors` in it."""
    file = configfile.find(explicit)
    try:
        loaded = configfile.load(file).checked()
        found = certificates.read(loaded)
    except configfile.ConfigError as error:
        return {"errors": error.problems}
    except PermissionError:
        user = pwd.getpwuid(os.geteuid()).pw_name
        return {"errors": [f"{file}: the daemon's user, {user}, has no permission to read it"]}
    except OSError as error:
        return {"errors": [f"{file}: {error.strerror}"]}
    return {"plan": planning.make(loaded, explicit, foreground=foreground, certificates=found)}
