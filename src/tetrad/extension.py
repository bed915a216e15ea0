r'''The API for functions that answer commands.

A command of the configuration may call a function of an installed package:

    commands:
      who?: {call: "mycompany.tetrad:who"}

The function takes a `Context` and returns the answer as bytes, or as a string, which is sent in
UTF-8:

    from tetrad.extension import Context

    def who(context: Context) -> str:
        """Tell clients their own address."""
        return f"you are {context.client}\n"

Each call runs in a process of its own, which is killed after the command's `timeout` and when the
client resets the connection. So a function may block, crash or print without harm, and keeps no
state between calls. What it prints goes to the log. If it raises an exception, the log has the
exception in one line, and the client gets `on_error`.
'''

from __future__ import annotations

__all__ = ["Context"]


class Context:
    """The command that is answered, and its client. Immutable.

    `client` is the client's address as in the log (`192.0.2.7:38276`, `[2001:db8::7]:41010`,
    `unix:1`), `connection` the id that all log lines of the session have, `command` the four
    characters.
    """

    __slots__ = ("client", "command", "connection")

    client: str
    command: str
    connection: str

    def __init__(self, client: str, connection: str, command: str) -> None:
        object.__setattr__(self, "client", client)
        object.__setattr__(self, "connection", connection)
        object.__setattr__(self, "command", command)

    def __setattr__(self, name: str, _value: object) -> None:
        """Raise AttributeError."""
        raise AttributeError(f"Context is immutable: {name}")

    def __delattr__(self, name: str) -> None:
        """Raise AttributeError."""
        raise AttributeError(f"Context is immutable: {name}")

    def __repr__(self) -> str:
        """Return the call that creates an equal context."""
        return f"Context({self.client!r}, {self.connection!r}, {self.command!r})"
