"""Where the front leaves what the master needs: descriptors by number, as in s6 and inetd.

The first three are what every handler keeps, beside its client.
"""

EVENTS_WRITE = 3
"""Where events go in: the pipe to the logger."""

NOTICES_WRITE = 4
"""Where handlers tell the master that they are done."""

SHUTDOWN_READ = 5
"""Where handlers hear that they are to stop, or that their master is gone."""

FIRST_MASTER_FD = 6
"""What stands here and above is closed in a handler, but for its client or its channel."""

EVENTS_READ = 6
"""The master's: the logger's end of the pipe, kept for the next logger."""

NOTICES_READ = 7
"""The master's end of the notices."""

SHUTDOWN_WRITE = 8
"""The master's end of the lifeline."""

RUNTIME_CONFIG = 9
"""The plan, and for an upgrade the state of the daemon, in a file in memory; else it is empty."""

PIDFILE = 10
"""The pidfile, whose lock says that this daemon runs."""

CONTROL = 11
"""The listening control socket."""

READY = 12
"""Where the one who started the daemon waits to hear that it accepts."""

LOG_COUNTERS = 13
"""How many lines the logger has written and lost, in memory (`tetrad.ipc.log_counters`)."""

FIRST_LISTENER = 14
"""The first listener; the others follow."""
