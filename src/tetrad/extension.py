r'''What a function that answers a command is told.

A command of the configuration may be a function of an installed package:

    commands:
      who?: {call: "mycompany.tetrad:who"}

It takes a `Context`, and returns the answer as bytes, or as a text that goes out in UTF-8:

    from tetrad.extension import Context

    def who(context: Context) -> str:
        """Tell clients their own address."""
        return f"you are {context.client}\n"

Each call has a process of its own, which is killed at the command's `timeout`, and when the client
resets its connection. So a function may block, crash or print without harm (what it prints goes
into the log), and what it remembers is gone after the call. An exception is logged in one line, and
`on_error` is what the client gets.
'''

from __future__ import annotations

__all__ = ["Context"]


class Context:
    """Who has sent which command. It does not change.

    `client` is its address as the log has it (`192.0.2.7:38276`, `[2001:db8::7]:41010`, `unix:1`),
    `connection` the id that is on all lines of the session, `command` the four characters.
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
        """Refuse."""
        raise AttributeError(f"a context does not change: {name}")

    def __delattr__(self, name: str) -> None:
        """Refuse."""
        raise AttributeError(f"a context does not change: {name}")

    def __repr__(self) -> str:
        """Show it as it is made."""
        return f"Context({self.client!r}, {self.connection!r}, {self.command!r})"
