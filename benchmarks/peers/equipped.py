# ruff: noqa: INP001 — a program, not part of a package
"""The minimum of tetrad's task in Python: `python -I -S equipped.py PORT LOGGER...`.

bare.py with the features that a daemon needs: events in tetrad's own logger (the command LOGGER), a
process title, exit with the master, an idle deadline, and a master that counts its clients. One
file, without limits, access lists, reload and protection against hostile clients.
"""

import _signal  # type: ignore[import-not-found]  # the C module behind signal
import _socket
import gc
import os
import select
import sys
import time

RECEIVE_TIMEOUT_MICROSECONDS = 20_000
IDLE_MILLISECONDS = 300_000
EVENTS_FD, COUNTERS_FD = 3, 4
"""Descriptors of the logger: the event pipe, and its counters."""
NUMBER_BYTES = 8
"""An exit notice: the number of the handler's client."""
NOTICES_BYTES = 512 * NUMBER_BYTES

HEADER = b'\x1e{"pid":%d,"client":"%b:%d","connection":"%d"}\n'
CONNECTED = b"%d info client.connected {}\n"
COMMAND = b'%d info client.command {"command":"%b"}\n'
DISCONNECTED = (
    b'%d info client.disconnected {"reason":"%b","duration":%d.%06d,"bytes_in":%d,"bytes_out":%d,'
    b'"commands":%d}\n'
)


class Server:
    """A listener, a logger, and a handler for each client."""

    def __init__(self, port: int, logger: list[str]) -> None:
        self.listener = _socket.socket()
        self.listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        self.listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        timeout = bytes(8) + RECEIVE_TIMEOUT_MICROSECONDS.to_bytes(8, sys.byteorder)
        self.listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeout)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(1024)
        events, self.log = os.pipe()
        self.shutdown_read, self.shutdown_write = os.pipe()
        self.notices_read, self.notices_write = os.pipe()
        self.clients: dict[int, tuple[int, str, int]] = {}
        self.number = 0
        _start(logger, events)
        with open("/proc/self/stat", "rb") as file:
            self.arguments = int(file.read().rpartition(b") ")[2].split()[45])

    def run(self) -> None:
        """Fork for every client, and read exit notices."""
        gc.disable()
        gc.freeze()
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.notices_read, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.notices_read:
                    self.read_notices()
                else:
                    self.accept()

    def accept(self) -> None:
        """Accept a client, fork a handler for it, and record both."""
        try:
            client, (host, port) = self.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:  # the client has closed the connection
            return
        self.number += 1
        pid = os.fork()
        if pid == 0:
            self.serve(client, host.encode(), port)
            os.write(self.notices_write, self.number.to_bytes(NUMBER_BYTES, sys.byteorder))
            os._exit(0)
        os.close(client)
        self.clients[self.number] = pid, host, port

    def read_notices(self) -> None:
        """Remove the clients of exited handlers."""
        notices = os.read(self.notices_read, NOTICES_BYTES)
        for start in range(0, len(notices), NUMBER_BYTES):
            number = notices[start : start + NUMBER_BYTES]
            del self.clients[int.from_bytes(number, sys.byteorder)]

    def serve(self, client: int, host: bytes, port: int) -> None:
        """Answer one client until it sends `quit` or closes, and log its session."""
        since = time.monotonic_ns()
        self.listener.close()
        os.close(self.shutdown_write)
        header = HEADER % (os.getpid(), host, port, self.number)
        events = header + CONNECTED % time.time_ns()
        commands = sent = 0
        reason = b"eof"
        while reason == b"eof":
            try:
                command = os.read(client, 4)
            except BlockingIOError:
                os.write(self.log, events)
                events = header
                if self.wait(client, host, port):
                    continue
                reason = b"idle_timeout"
                break
            if command == b"time":
                answer = time.strftime("%Y/%m/%d %H:%M:%S").encode()
            elif command == b"quit":
                answer, reason = command, command
            else:
                break
            os.write(client, answer)
            commands += 1
            sent += len(answer)
            events += COMMAND % (time.time_ns(), command)
        took = divmod((time.monotonic_ns() - since) // 1000, 1_000_000)
        ended = DISCONNECTED % (time.time_ns(), reason, *took, 4 * commands, sent, commands)
        os.write(self.log, events + ended)

    def wait(self, client: int, host: bytes, port: int) -> bool:
        """Set the title, and wait for input; return False on timeout or exit of the master."""
        memory = os.open("/proc/self/mem", os.O_WRONLY)
        os.pwrite(memory, b"equipped: %b:%d\0" % (host, port), self.arguments)
        os.close(memory)
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(self.shutdown_read, select.POLLIN)
        return client in dict(poll.poll(IDLE_MILLISECONDS))


def _start(logger: list[str], events: int) -> None:
    if os.fork() == 0:
        counters = os.memfd_create("counters")
        os.dup2(events, EVENTS_FD)
        os.dup2(counters, COUNTERS_FD)
        os.execv(logger[0], logger)
    os.close(events)


_signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
Server(int(sys.argv[1]), sys.argv[2:]).run()
