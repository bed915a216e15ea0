# ruff: noqa: INP001 — a program, not part of a package
"""The least that tetrad's job takes in Python: `python -I -S equipped.py PORT LOGGER...`.

bare.py, and what nobody who runs a daemon goes without: events in tetrad's own logger, which is the
command LOGGER, a title for `ps`, an end when the master ends, a deadline for who is silent, and a
master that knows who is in. One file, no limits, no access lists, no reload, no defence.
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
NUMBER_BYTES = 8
"""What a handler says when it leaves: its client's number."""
HEARD_BYTES = 512 * NUMBER_BYTES

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
        self.notices_heard, self.notices = os.pipe()
        self.clients: dict[int, tuple[int, str, int]] = {}
        self.number = 0
        _start(logger, events)
        with open("/proc/self/stat", "rb") as file:
            self.arguments = int(file.read().rpartition(b") ")[2].split()[45])

    def run(self) -> None:
        """Fork for every client, and hear who has left."""
        gc.disable()
        gc.freeze()
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.notices_heard, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.notices_heard:
                    self.forget()
                else:
                    self.welcome()

    def welcome(self) -> None:
        """Accept a client, fork a handler for it, and remember both."""
        try:
            client, (host, port) = self.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:  # it has gone again
            return
        self.number += 1
        pid = os.fork()
        if pid == 0:
            self.serve(client, host.encode(), port)
            os.write(self.notices, self.number.to_bytes(NUMBER_BYTES, sys.byteorder))
            os._exit(0)
        os.close(client)
        self.clients[self.number] = pid, host, port

    def forget(self) -> None:
        """Forget clients that have left."""
        said = os.read(self.notices_heard, HEARD_BYTES)
        for start in range(0, len(said), NUMBER_BYTES):
            number = said[start : start + NUMBER_BYTES]
            del self.clients[int.from_bytes(number, sys.byteorder)]

    def serve(self, client: int, host: bytes, port: int) -> None:
        """Answer one client until it says `quit` or closes, and log that."""
        since = time.monotonic_ns()
        self.listener.close()
        os.close(self.held)
        speaker = SPEAKER % (os.getpid(), host, port, self.number)
        told = speaker + CONNECTED % time.time_ns()
        commands = sent = 0
        reason = b"eof"
        while reason == b"eof":
            try:
                command = os.read(client, 4)
            except BlockingIOError:
                os.write(self.log, told)
                told = speaker
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
            told += COMMAND % (time.time_ns(), command)
        took = divmod((time.monotonic_ns() - since) // 1000, 1_000_000)
        ended = DISCONNECTED % (time.time_ns(), reason, *took, 4 * commands, sent, commands)
        os.write(self.log, told + ended)

    def wait(self, client: int, host: bytes, port: int) -> bool:
        """Be a process that lasts, with a title; False if time or master end before it speaks."""
        memory = os.open("/proc/self/mem", os.O_WRONLY)
        os.pwrite(memory, b"equipped: %b:%d\0" % (host, port), self.arguments)
        os.close(memory)
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(self.lifeline, select.POLLIN)
        return client in dict(poll.poll(IDLE_MILLISECONDS))


def _start(logger: list[str], events: int) -> None:
    if os.fork() == 0:
        tally = os.memfd_create("tally")
        os.dup2(events, PIPE)
        os.dup2(tally, TALLY)
        os.execv(logger[0], logger)
    os.close(events)


_signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
Server(int(sys.argv[1]), sys.argv[2:]).run()
