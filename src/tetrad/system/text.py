"""Text for people: errors in one line, and text that is safe on a terminal."""

from __future__ import annotations

import errno
import os

LIMIT_HINTS = {
    errno.EAGAIN: (
        "raise the limit of processes (ulimit -u, or LimitNPROC= and TasksMax= in the unit)"
    ),
    errno.EFBIG: "raise the limit of file sizes (ulimit -f, or LimitFSIZE= in the unit)",
    errno.EMFILE: "raise the limit (ulimit -n, or LimitNOFILE= in the unit)",
    errno.ENFILE: "raise the limit of the system (sysctl fs.file-max)",
    errno.ENOMEM: (
        "the machine or the control group (MemoryMax= in the unit) has no memory left, or a limit "
        "is too low (ulimit -v, ulimit -d)"
    ),
}
"""What to do about an error of fork(2), execve(2), open(2), write(2) or accept(2) by a limit."""


ADDRESS_HINTS = {
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "another program listens there, or connects from there (ss -tanp shows it)",
    errno.EADDRNOTAVAIL: "no network interface of this host has this address",
    errno.EAFNOSUPPORT: (
        "the kernel or a sandbox (RestrictAddressFamilies= in the unit) has no such addresses; "
        "0.0.0.0 is all of IPv4"
    ),
}
"""What is wrong if bind(2) fails for a TCP address."""


def reason_of(error: OSError) -> str:
    """Return the reason of a system error, to follow a name and a colon: `permission denied`."""
    text = error.strerror or str(error)
    is_name = text[1:2].isupper()  # such as AF_UNIX
    return text if is_name else text[:1].lower() + text[1:]


def with_limit_hint(error: OSError) -> str:
    """Return the reason of a system error, and what to do about a limit that causes it."""
    hint = LIMIT_HINTS.get(error.errno or 0)
    return f"{reason_of(error)}; {hint}" if hint else reason_of(error)


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception in one line: `ValueError: too many`."""
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.rstrip(": ").split())


def traceback_frames(error: BaseException) -> list[tuple[str, int]]:
    """Return the file and the line number of each frame of a traceback, outermost call first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return frames


def call_path(error: BaseException) -> str:
    """Return where an exception was raised: `process.py:12 > reload.py:40`, outermost first."""
    frames = traceback_frames(error)
    return " > ".join(f"{os.path.basename(file)}:{line}" for file, line in frames)


def is_utf_8(path: str) -> bool:
    """Tell whether a path can be part of the status and the log, which are in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_unprintable(text: str) -> str:
    """Return a text in one line, with every character escaped that is not printable.

    A byte of a path that is not UTF-8 is a character, too (os.fsdecode).
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
