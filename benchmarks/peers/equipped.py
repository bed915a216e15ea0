# ruff: noqa: INP001 — a program, not part of a package
"""The least that tetrad's job takes in Python: `python -I -S equipped.py PORT LOGGER...`.

bare.py, and what nobody who runs a daemon goes without: events in tetrad's own logger, which is the
command LOGGER, a title for `ps`, an end when the master ends, and a deadline for who is silent. One
file, no limits, no access lists, no reload, no defence.
"""

import _signal  # type: ignore[import-not-found]  # the C module behind signal
import _socket
import gc
import os
import select
import sys
import time

MOMENT_MICROSECONDS = 20_000
IDLE_MILLISECONDS = 300_000
PIPE, TALLY = 3, 4
"""Where the logger finds what it reads, and counts."""

SPEAKER = b'\x1e{"pid":%d,"client":"%b:%d","connection":"%d"}\n'
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
        moment = bytes(8) + MOMENT_MICROSECONDS.to_bytes(8, sys.byteorder)
        self.listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, moment)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(1024)
        events, self.log = os.pipe()
        self.lifeline, self.held = os.pipe()
        _start(logger, events)
        with open("/proc/self/stat", "rb") as file:
            self.arguments = int(file.read().rpartition(b") ")[2].split()[45])

    def run(self) -> None:
        """Fork for every client."""
        gc.disable()
        gc.freeze()
        while True:
            try:
                client, (host, port) = self.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except BlockingIOError:  # it gives up after a moment, too
                continue
            if os.fork() == 0:
                self.serve(client, host.encode(), port)
                os._exit(0)
            os.close(client)

    def serve(self, client: int, host: bytes, port: int) -> None:
        """Answer one client until it says `quit` or closes, and log that."""
        since = time.monotonic_ns()
        self.listener.close()
        os.close(self.held)
        speaker = SPEAKER % (os.getpid(), host, port, client)
        told = speaker + CONNECTED % time.time_ns()
        commands = sent = 0
        reason = b"eof"
        while reason == b"eof":
            try:
                command = os.read(client, 4)
            except BlockingIOError:
                os.write(self.log, told)
                told = speaker
                self.wait(client, host, port)
                continue
            if command == b"time":
                answer = time.strftime("%Y/%m/%d %H:%M:%S").encode()
            elif command == b"quit":
                answer, reason = command, command
            else:
                break
            os.write(client, answer)
            commands += 1
            sent += len(answer)
            told += COMMAND % (time.time_ns(), command)
        took = divmod((time.monotonic_ns() - since) // 1000, 1_000_000)
        ended = DISCONNECTED % (time.time_ns(), reason, *took, 4 * commands, sent, commands)
        os.write(self.log, told + ended)

    def wait(self, client: int, host: bytes, port: int) -> None:
        """Be a process that lasts: with a title, until the client, its time or the master ends."""
        memory = os.open("/proc/self/mem", os.O_WRONLY)
        os.pwrite(memory, b"equipped: %b:%d\0" % (host, port), self.arguments)
        os.close(memory)
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(self.lifeline, select.POLLIN)
        if client not in dict(poll.poll(IDLE_MILLISECONDS)):
            os._exit(0)


def _start(logger: list[str], events: int) -> None:
    if os.fork() == 0:
        tally = os.memfd_create("tally")
        os.dup2(events, PIPE)
        os.dup2(tally, TALLY)
        os.execv(logger[0], logger)
    os.close(events)


_signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
Server(int(sys.argv[1]), sys.argv[2:]).run()
