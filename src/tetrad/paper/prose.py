"""What the manual says that is neither in the parser nor in the types of the configuration.

In the blocks and marks of `tetrad.paper.roff`.
"""

from __future__ import annotations

from tetrad import cli
from tetrad.cli import exit_status
from tetrad.config import paths
from tetrad.config.json_schema import AS_ROOT
from tetrad.ipc import log_protocol

DATE = "2026-11-22"
"""Of the last change of what is said here."""

MANUAL = "System Administration"

SUMMARY = "a daemon that answers four-byte commands, one process per client"

DESCRIPTION = """
`tetrad` accepts connections on TCP and Unix sockets and forks a handler process for each client.
To the command `time` it answers the local time, to `quit` the word itself, after which it closes
the connection; the configuration may add other commands of four bytes. A second service, `echo`,
sends every byte back.

Line endings, spaces, tabs and NULs between commands are skipped. Commands may be pipelined and may
arrive in any pieces. Bytes that can no longer become a known command are one invalid command: it is
logged and not answered, what else had arrived with it is thrown away, and the session goes on.

The daemon is configured by one file, see `tetrad.yaml`(5), and serves without one, too.
"""

ABOUT_COMMANDS = {
    "run": """
The log is readable lines on standard error, unless the file names a log file. Ctrl-C stops it.
""",
    "start": """
It becomes a daemon: a session of its own, no terminal, a pidfile. If it runs already, that is said,
and the status is 0. If it is interrupted, nothing is left. Root is warned where `daemon.user` is
not set.
""",
    "stop": """
Sessions have `daemon.stop_timeout` to finish in. If it does not run, that is said, and the status
is 0.
""",
    "restart": """
A bad configuration is found before anything is stopped.
""",
    "reload": """
Sessions go on. It says what has changed; if the file is bad, nothing has.
""",
    "upgrade": """
After another version was installed in the place of the one that runs: the daemon tries it, and
becomes it, with the same pid and listeners. Sessions go on, no client is refused, and the file is
applied as by a reload, but for listeners that have changed. If the new version does not start, or
the file is bad, the old one serves on, and it is said why. See UPGRADING.
""",
    "explain": """
It says by which rule of the access lists and, if the daemon runs, how near to which limit. The
status is 0 if the client would be let in, else 1.
""",
    "check": """
Every mistake is told with its line and column, in one run.
""",
    "client": """
With words, it sends them and prints the answers, a line each. Without, it asks for commands, or for
lines until END where the service is `echo`.
""",
}

SIGNALS = """
The master process, whose number is in the pidfile, takes these:

`SIGTERM`, `SIGINT`
    It stops. No more clients are accepted, commands that have begun are finished, idle sessions
    are closed. What is left after `daemon.stop_timeout` is killed.

`SIGQUIT`
    It stops at once.

`SIGHUP`
    It applies the configuration file, as `tetrad reload` has it do. A bad file changes nothing and
    is logged.

`SIGUSR1`
    It opens the log file anew. A file that was moved away is noticed anyway.

`SIGUSR2`
    It becomes the version that is installed now, as `tetrad upgrade` has it do. What keeps it from
    that is logged.

`SIGTERM` to a single handler ends its session. `SIGCHLD` is ignored, so that handlers never become
zombies.
"""

UPGRADING = """
Install another version in the place of the one that runs, and have the daemon become it:

    # pip install --upgrade tetrad
    # tetrad upgrade

First the daemon has a program of the new version try everything that the new version will do: it
reads the file, takes over the state of the daemon, begins on stand-ins for what the daemon has
open, and serves sessions. Only if that succeeds, within 30 seconds, does the daemon execute the new
version. So nothing that is wrong with a version or with the file costs anything, unless it shows
only in the moment of the change: then the daemon ends, as after a crash.

While the version changes, which takes tenths of a second, clients wait at the door, and so do
signals. Sessions that are open finish with the code that they have begun with; they count, are
watched and are stopped as ever. The logger is replaced, and no line is lost. How fast a source has
come, for `limits.rate_per_source`, is forgotten, as by a reload.

A version that cannot take over from the one that runs says so; then `tetrad restart` is what is
left.
"""

STATUSES: dict[int, str] = {
    exit_status.OK: "The command did what it is for.",
    exit_status.FAILURE: "It failed, and standard error says why.",
    exit_status.USAGE: "The command line is wrong.",
    exit_status.PERMISSION: "Permission is missing.",
    exit_status.NOT_RUNNING: "`tetrad reload`, `tetrad upgrade`: the daemon does not run.",
    exit_status.BAD_CONFIGURATION: "The configuration is bad; every mistake is on standard error.",
    exit_status.HUNG_UP: "A start was interrupted by the end of its terminal, and is undone.",
    exit_status.INTERRUPTED: "It was interrupted by Ctrl-C; a start is undone.",
    exit_status.TERMINATED: "A start was interrupted by SIGTERM, and is undone.",
}

STATUSES_OF_STATUS: dict[int, str] = {
    exit_status.STATUS_RUNNING: "The daemon runs.",
    exit_status.STATUS_DEAD: "It is dead, but its pidfile is left.",
    exit_status.STATUS_STOPPED: "It does not run.",
    exit_status.STATUS_UNKNOWN: "How it is cannot be told.",
}

ENVIRONMENT: dict[str, str] = {
    paths.CONFIGURATION_VARIABLE: """
The configuration file, where `-c` names none.
""",
    cli.DEBUG_VARIABLE: """
If it is set, a defect in `tetrad` ends with a traceback.
""",
    "NO_COLOR": """
If it is set, `tetrad logs` does without colours.
""",
    "XDG_RUNTIME_DIR": """
For users other than root: the pidfile and the control socket are in its folder `tetrad`.
""",
    "XDG_STATE_HOME": """
For users other than root: the log is in its folder `tetrad`; so are the pidfile and the control
socket, in a folder `run`, where there is no `XDG_RUNTIME_DIR`.
""",
}

FILES: dict[str, str] = {
    paths.SYSTEM_CONFIGURATION: "The configuration, where nothing else is named.",
    AS_ROOT["pidfile"]: "The pidfile. The daemon holds a lock on it while it runs.",
    AS_ROOT["control"]: "The socket of `tetrad status`, `reload`, `upgrade`.",
    AS_ROOT["file"]: "The log.",
}

LOG = """
One JSON object a line, in ASCII, of one event each. Every line has `timestamp`, `level`, `event`
and `pid`; those about a client have `client`, `connection` (the same on all lines of a session),
`service` and `listener`, too. The events, with their levels and their other fields:
"""

EVENTS: dict[str, tuple[str, str]] = {
    log_protocol.SERVER_STARTED: ("info", "The master has begun: `version`, `config`."),
    log_protocol.SERVER_LISTENING: ("info", "One for each listener: `address`, `port`, `service`."),
    log_protocol.SERVER_STOPPING: ("info", "The stop has begun: `clients`."),
    log_protocol.SERVER_STOPPED: ("info", "The end: `accepted`."),
    log_protocol.SERVER_RELOADED: ("info", "The file was applied: `changes`."),
    log_protocol.SERVER_RELOAD_FAILED: ("error", "The file was not applied: `errors`."),
    log_protocol.SERVER_UPGRADED: ("info", "Another version runs: `version`, `from`, `changes`."),
    log_protocol.SERVER_UPGRADE_FAILED: ("error", "The old version serves on: `errors`."),
    log_protocol.SERVER_OVERLOADED: ("error", "No client can be accepted for a while: `error`."),
    log_protocol.SERVER_FAILED: ("error", "A defect in `tetrad`: `error`, `place`."),
    log_protocol.HANDLER_FAILED: ("error", "The same, in a handler: `error`, `place`."),
    log_protocol.CLIENT_CONNECTED: (
        "info",
        """
A session has begun. What is usual about one that has `check`, a balancer's look whether the daemon
lives, is of level debug.
""",
    ),
    log_protocol.CLIENT_COMMAND: (
        "info",
        """
A known command: `command`. One that runs a program or a function has `duration` in seconds, the
`bytes` that it gave, the exit `status` if it exited, `cut` if there were more than are allowed, the
beginning of what it wrote to its standard error in `stderr`, and in `error` why it failed. Of one
that failed or was cut the level is warning.
""",
    ),
    log_protocol.CLIENT_INVALID: (
        "warning",
        "An invalid one: `command`, at most four bytes; what is not printable is `\\x`_NN_.",
    ),
    log_protocol.CLIENT_DISCONNECTED: (
        "info",
        """
A session has ended: `reason` (quit, eof, reset, first_command_timeout, idle_timeout, max_duration,
send_timeout, stopping, access, tls, error), `duration` in seconds, `bytes_in`, `bytes_out`,
`commands`. Of a handshake that failed (tls), `error` says why; access is a certificate that is good
but not among `tls.subjects`.
""",
    ),
    log_protocol.CLIENT_REFUSED: (
        "warning",
        """
A client was not let in: `reason` (access, clients, clients_per_source, rate, stopping, resources,
proxy). Of a header that is bad, cut or late (proxy), `error` says what is wrong with it.
Of each reason there are ten lines a second, and then one with the number of the others in
`suppressed`.
""",
    ),
    log_protocol.HANDLER_LOST: (
        "error",
        "A handler was killed, and its session with it: `handler`, `why`, `duration`.",
    ),
    log_protocol.CERTIFICATE_EXPIRES: (
        "warning",
        "A certificate has less than 30 days left: `certificate`, `expires`, `days`. Said daily.",
    ),
    log_protocol.LOG_REOPENED: ("info", "The log file was opened anew."),
    log_protocol.LOG_LOST: ("error", "So many events could not be written: `count`."),
}

EXAMPLES = r"""
Serve in the foreground with the built-in defaults, and talk to it from another terminal:

    $ tetrad run
    $ printf 'time\r\ntimequit' | nc 127.0.0.1 65000
    $ tetrad client time

Change the configuration of a daemon that runs:

    # vi /etc/tetrad/tetrad.yaml
    # tetrad check
    # tetrad reload

Change its version:

    # pip install --upgrade tetrad
    # tetrad upgrade

See which clients send what is no command:

    # tetrad logs --event client.invalid --since 1h
"""

SEE_ALSO = "`tetrad.yaml`(5), `nc`(1), `logrotate`(8), `systemd.service`(5)"

FILE_SUMMARY = "the configuration of tetrad"

FILE_DESCRIPTION = f"""
`tetrad`(8) reads the file that `-c` names, else the one that `{paths.CONFIGURATION_VARIABLE}`
names, else `{paths.SYSTEM_CONFIGURATION}` if there is one. Otherwise the built-in defaults are in
force.

It is YAML. Every key is optional. Numbers, `true`, `false` and `null` are those of YAML 1.2, so
that `010` is ten, and `22:00` and `no` are text. A key that is there twice, an unknown key, a wrong
type or an impossible value is a mistake, and nothing starts on a file with a mistake: `tetrad
check` finds them all.

A relative path starts from the folder of the file.
"""

FILE_COMMANDS = """
Each key is a _command_ _name_, which is what a client sends. To the built-in `time` and `quit`
those of the file are added; one that is `null` is taken away. A command has one of five forms.

A program of `run` is executed without a shell. It gets an empty standard input, the variables
`PATH`, `LANG`, `TETRAD_CLIENT`, `TETRAD_CONNECTION` and `TETRAD_COMMAND` and those of `env`, the
daemon's user, umask and working directory, and nothing else. What it writes is the answer once it
has exited with status 0. If it fails, takes longer than `timeout` or cannot be started, the answer
is `on_error`. If it writes more than `max_output`, it is killed, and what fits is the answer.
However it ends, all that it has started is killed with it; so it is when the session ends. A client
that has ended only its own side waits for its answer. One that has closed its connection cannot be
told from that over TCP, so that a program may go on to its `timeout` for it.

A function of `call` takes a `tetrad.extension.Context` with the texts `client`, `connection` and
`command`, and returns bytes or text. It is imported and called in a process of its own for each
call, to which all of the above applies; what it prints goes into the log.
"""

USER_DEFAULTS = """
The defaults of `daemon.pidfile`, `daemon.control` and `log.file` are those of root. For other users
they are in the folders of `XDG_RUNTIME_DIR` and `XDG_STATE_HOME`, see `tetrad`(8). What is in force
is what `tetrad check --dump` prints.
"""

FILE_EXAMPLE = """
    listen:
      - {address: "::", port: 65000}              # IPv6 and IPv4
      - {address: 127.0.0.1, port: 65007, service: echo}
      - {address: unix:/run/tetrad/tetrad.sock}

    limits:
      clients: 500
      rate_per_source: 300/m

    access:
      allow: [127.0.0.0/8, "::1", 192.0.2.0/24]
      deny: [192.0.2.66]

    commands:
      date: {clock: "%Y-%m-%d", timezone: UTC}
      help: {text: "time date load quit"}
      load: {run: [uptime], timeout: 2s, on_error: unknown}
"""

EDITORS = """
With the JSON Schema that `tetrad check --schema` prints, editors complete and check the file as it
is typed. For those that use yaml-language-server, put it beside the file, and say so in the first
line:

    # yaml-language-server: $schema=tetrad.schema.json
"""

FILE_SEE_ALSO = "`tetrad`(8), `strftime`(3)"
