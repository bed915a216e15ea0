# ruff: noqa: INP001 — a program, not part of a package
"""The forking server of the standard library: `python forking.py PORT`.

One read of four bytes is one command, as in fork.c.
"""

import socket
import socketserver
import sys
import time


class Session(socketserver.BaseRequestHandler):
    """Answers one client until it sends `quit` or closes."""

    request: socket.socket

    def handle(self) -> None:
        """Read four bytes at a time, as fork.c does."""
        while command := self.request.recv(4):
            if command == b"time":
                self.request.sendall(time.strftime("%Y/%m/%d %H:%M:%S").encode())
            elif command == b"quit":
                self.request.sendall(b"quit")
                return


class Server(socketserver.ForkingTCPServer):
    """Forks for each client, without effective limits."""

    allow_reuse_address = True
    request_queue_size = 1024
    max_children = 20_000

    def server_activate(self) -> None:
        """Set TCP_NODELAY, which accepted sockets inherit from the listener."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().server_activate()


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Session) as server:
        server.serve_forever()
