"""The numbers of the descriptors that the launcher leaves for the master, as inetd and s6 do.

Handlers keep the first three, beside their client.
"""

EVENTS_WRITE = 3
"""The event pipe: master and handlers write events."""

NOTICES_WRITE = 4
"""The notice pipe: handlers write exit notices."""

SHUTDOWN_READ = 5
"""The shutdown pipe: handlers read that they have to stop, or that the master has exited."""

FIRST_MASTER_FD = 6
"""A handler closes this descriptor and all above, except its client and its channel."""

EVENTS_READ = 6
"""The logger's end of the event pipe. The master keeps it for the next logger."""

NOTICES_READ = 7
"""The master's end of the notice pipe."""

SHUTDOWN_WRITE = 8
"""The master's end of the shutdown pipe."""

RUNTIME_CONFIG = 9
"""A memory file with the runtime configuration, and in an upgrade the saved state behind it.

The master empties it once it has read it.
"""

PIDFILE = 10
"""The pidfile. Its lock shows that the daemon runs."""

CONTROL = 11
"""The listening control socket."""

READY = 12
"""The launcher's pipe: the master writes to it when it accepts clients."""

LOG_COUNTERS = 13
"""A memory file in which the logger counts lines (`tetrad.ipc.log_counters`)."""

FIRST_LISTENER = 14
"""The first listener; the others follow."""
