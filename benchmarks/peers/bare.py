# ruff: noqa: INP001 — a program, not part of a package
"""The cost of a fork in Python and nothing else: `python -I -S bare.py PORT`.

No log, no limits, no deadlines, and only built-in imports: the lower bound for a Python that forks
for each client, as fork.c is for C. One read is one command.
"""

import _signal  # type: ignore[import-not-found]  # the C module behind signal
import _socket
import gc
import os
import sys
import time


def serve(client: int) -> None:
    """Answer one client until it sends `quit` or closes."""
    while command := os.read(client, 4):
        if command == b"time":
            os.write(client, time.strftime("%Y/%m/%d %H:%M:%S").encode())
        elif command == b"quit":
            os.write(client, command)
            return


def main() -> None:
    """Fork for every client."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    listener = _socket.socket()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(1024)
    gc.disable()
    gc.freeze()
    while True:
        client, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        if os.fork() == 0:
            listener.close()
            serve(client)
            os._exit(0)
        os.close(client)


main()
