"""What operators do with the service, command by command; README.md here has the output.

The tests are marked `long`; with the option `--write-transcript` they write README.md.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.daemons import TIMEOUT_SECONDS
from tests.systemd.conftest import WRITE_TRANSCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service

PAGE = os.path.join(os.path.dirname(__file__), "README.md")

HEAD = """\
# The service as operators use it

The output of real commands in a container with systemd 252, in which `tetrad install` has installed
the service. `test_transcript.py` runs them and compares what matters of the output and every exit
status; `pytest -m long tests/systemd/test_transcript.py --write-transcript` writes this page anew.
Root types the commands, unless `setpriv` makes it another user. Standard error is shown too, and
an exit status other than 0.
"""

POLL_SECONDS = 0.5

NOBODY = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
STATE = "systemctl show --property=ActiveState,StatusText tetrad"
BY_SYSTEMD = r"^tetrad: systemctl {} tetrad\.service\ntetrad: started \(pid \d+\), listening on"


class Step(NamedTuple):
    """A command, what it shows, its exit status, and a pattern that its output must match.

    With `is_awaited`, it is repeated until it does. Without `what`, it is not part of the page.
    """

    what: str
    command: str
    pattern: str = ""
    status: int = 0
    is_awaited: bool = False


def configure(what: str, text: str, file: str = "/etc/tetrad/tetrad.yaml") -> Step:
    """Return the step that writes a configuration."""
    return Step(what, f"echo '{text}' >{file}")


NOTIFY = Step(
    "The other type of the unit, with the log in its file.",
    "mkdir -p /run/systemd/system/tetrad.service.d &&"
    " cp /opt/tetrad/lib/python3*/site-packages/tetrad/data/systemd/tetrad.service.d/notify.conf"
    " /run/systemd/system/tetrad.service.d/ && systemctl daemon-reload",
)


def repaired(settings: str) -> tuple[Step, ...]:
    """Return the steps of a bad restart and its repair; `settings` follow the listeners."""
    return (
        configure("A mistake in the file.", f"listen: [{{prot: 65000}}]{settings}"),
        Step(
            "systemctl does not check before it stops. The start fails with the reason.",
            "systemctl restart tetrad",
            status=1,
        ),
        Step(
            "systemd tries again every 5 seconds; the status has the mistake.",
            STATE,
            r"StatusText=.*listen\[0\]\.prot: unknown key",
            is_awaited=True,
        ),
        configure("Another mistake.", f"listen: [{{adress: 127.0.0.1}}]{settings}"),
        Step(
            "The status is that of the last try.",
            STATE,
            r"StatusText=.*listen\[0\]\.adress: unknown key",
            is_awaited=True,
        ),
        configure("The repaired file.", f"listen: [{{port: 65000}}]{settings}"),
        Step("One restart is enough, without reset-failed.", "systemctl restart tetrad"),
        Step(
            "The status has nothing of the mistakes any more.",
            STATE,
            r"^StatusText=127\.0\.0\.1:65000 \(command\); 0 clients\nActiveState=active$",
            is_awaited=True,
        ),
        Step("It serves.", "tetrad client time", r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d$"),
    )


CERTIFICATE = (
    "faketime -f +15s openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    " -subj /CN=localhost -days 9 -keyout /etc/tetrad/key.pem -out /etc/tetrad/cert.pem 2>/dev/null"
    " && chown tetrad /etc/tetrad/key.pem"
)

SITUATIONS: dict[str, tuple[Step, ...]] = {
    "Root's commands on an installed service": (
        Step(
            "The first start, which no systemctl has preceded: the daemon belongs to the unit.",
            "tetrad start",
            BY_SYSTEMD.format("start"),
        ),
        Step("", "systemctl is-active tetrad", "^active$"),
        Step(
            "The files have the owner that the service needs.",
            "stat -c '%U %a %n' /run/tetrad/* /var/log/tetrad/tetrad.log",
            r"^tetrad 666 /run/tetrad/control.sock\ntetrad 600 .*\ntetrad 640 ",
        ),
        Step("A restart", "tetrad restart", BY_SYSTEMD.format("restart")),
        Step(
            "replaces the service by the service.",
            "systemctl show --property=ActiveState,User,Result tetrad",
            r"^User=tetrad$",
        ),
        Step("", "ps -C tetrad -o user,args", r"tetrad +tetrad: master /etc/tetrad/tetrad\.yaml"),
        Step("A stop.", "tetrad stop", r"^tetrad: systemctl stop tetrad\.service\ntetrad: stopped"),
        Step("", "systemctl is-active tetrad", "^inactive$", status=3),
        Step(
            "A daemon that root starts by hand",
            "tetrad start --no-systemd",
            r"^tetrad: started \(pid \d+\)",
        ),
        Step("keeps the service from starting,", "systemctl start tetrad", status=1),
        Step(
            "which names it and removes nothing:",
            STATE,
            r"StatusText=.*\(pid \d+\) was started by hand",
            is_awaited=True,
        ),
        Step("the daemon is found, and answers.", "tetrad status", r"running \(pid \d+\)"),
        Step(
            "A restart through systemctl is refused too.",
            "tetrad restart",
            r"was started by hand and does not belong to tetrad\.service",
            status=1,
        ),
        Step("It is stopped as it was started.", "tetrad stop --no-systemd", "tetrad: stopped"),
        Step(
            "The log is root's now. The next try gives it to the service's user, and starts.",
            "systemctl is-active tetrad",
            "^active$",
            is_awaited=True,
        ),
        Step("", "stat -c '%U %n' /var/log/tetrad/tetrad.log", "^tetrad "),
    ),
    "One preflight": (
        configure(
            "daemon.user in the file of an ordinary user, and a folder that does not exist.",
            "{daemon: {user: games}, listen: [{address: unix:/var/tmp/missing/t.sock}]}",
            "/var/tmp/own.yaml",  # noqa: S108 - in the container
        ),
        Step(
            "The check finds both faults at once,",
            f"{NOBODY} tetrad -c /var/tmp/own.yaml check",
            r"(?s)daemon\.user.*create the directory /var/tmp/missing",
            status=78,
        ),
        Step(
            "as the start does.",
            f"{NOBODY} tetrad -c /var/tmp/own.yaml start",
            r"(?s)daemon\.user.*create the directory /var/tmp/missing",
            status=4,
        ),
        Step("", "rm /var/tmp/own.yaml"),
        Step("The service runs.", "systemctl start tetrad"),
        Step(
            "root's check does not advise to set daemon.user: the unit has a user.",
            "tetrad check",
            r"^/etc/tetrad/tetrad\.yaml: configuration OK$",
        ),
        configure("root sets it all the same.", "daemon: {user: nobody}"),
        Step("The check refuses it,", "tetrad check", r"daemon\.user", status=78),
        Step(
            "and a restart, before it stops anything:",
            "tetrad restart",
            r"not stopped, because the daemon could not start again; .*daemon\.user",
            status=4,
        ),
        Step("the service still answers.", "tetrad client --port 65000 time", r"^\d{4}/"),
        configure("The file as it was.", "listen: [{port: 65000}]"),
        Step(
            "Its default folder is missing, as after a boot.",
            "systemctl stop tetrad && rm -rf /run/tetrad",
        ),
        Step("A restart makes it.", "tetrad restart", BY_SYSTEMD.format("restart")),
    ),
    "Tries without a limit": (
        Step("", "systemctl start tetrad"),
        *repaired(""),
        configure("An address that no interface has yet.", "listen: [{address: 192.0.2.77}]"),
        Step("The start fails,", "systemctl restart tetrad", status=1),
        Step("with the reason.", STATE, "no network interface of this host", is_awaited=True),
        Step("The network comes later than the service.", "ip address add 192.0.2.77/32 dev lo"),
        Step("The next try serves it.", STATE, r"^ActiveState=active", is_awaited=True),
        Step("", "tetrad client time", r"^\d{4}/"),
        Step("", "ip address del 192.0.2.77/32 dev lo"),
        Step(
            "A certificate of a clock that is ahead: it will be valid in 15 seconds.", CERTIFICATE
        ),
        configure(
            "",
            "listen: [{port: 65000, tls: {certificate: /etc/tetrad/cert.pem,"
            " key: /etc/tetrad/key.pem}}]",
        ),
        Step("The start fails,", "systemctl restart tetrad", status=1),
        Step(
            "with the time of the certificate and that of the clock.",
            STATE,
            r"not valid before 20.* UTC; the clock of this host says 20",
            is_awaited=True,
        ),
        Step("It is waited for.", STATE, r"^ActiveState=active", is_awaited=True),
        Step("", "tetrad client --tls --ca /etc/tetrad/cert.pem --host localhost time", r"^\d{4}/"),
        Step("", "systemctl stop tetrad; rm /etc/tetrad/*.pem"),
    ),
    "Tries without a limit, with the notify unit": (
        NOTIFY,
        configure("", "log: {file: /var/log/tetrad/tetrad.log}"),
        Step("", "systemctl start tetrad"),
        *repaired("\nlog: {file: /var/log/tetrad/tetrad.log}"),
    ),
    "Other users": (
        Step("", "systemctl start tetrad"),
        Step(
            "A user who may not ask is told so; it is not taken for a stopped daemon.",
            f"{NOBODY} tetrad status",
            "permission denied",
            status=4,
        ),
        Step("Nor can that user stop it.", f"{NOBODY} tetrad stop", "permission denied", status=4),
        Step("", "tetrad client time", r"^\d{4}/"),
        Step(
            "A daemon of that user's own would be elsewhere; the message names the running one.",
            f"echo '{{}}' >/var/tmp/own.yaml; {NOBODY} tetrad -c /var/tmp/own.yaml status",
            r"(?s)other running daemons: .*tetrad\.yaml.*not running \(pidfile /",
            status=3,
        ),
        Step("", "rm /var/tmp/own.yaml; systemctl stop tetrad"),
        Step(
            "When it is stopped, the message names the pidfile.",
            f"{NOBODY} tetrad status",
            r"not running \(pidfile /run/tetrad/tetrad\.pid\)",
            status=3,
        ),
    ),
    "The wrong file": (
        configure("Two files that name no paths.", "listen: [{port: 65021}]", "/etc/tetrad/a.yaml"),
        configure("", "listen: [{port: 65022}]", "/etc/tetrad/b.yaml"),
        Step("", "tetrad -c /etc/tetrad/a.yaml start", r"started \(pid \d+\)"),
        *(
            Step(
                what,
                f"tetrad -c /etc/tetrad/b.yaml {command}",
                "runs with /etc/tetrad/a.yaml, not with /etc/tetrad/b.yaml",
                status=1,
            )
            for what, command in {
                "The daemon of one is not that of the other.": "start",
                "It is not reloaded with the other file,": "reload",
                "nor restarted,": "restart",
                "nor stopped.": "stop",
            }.items()
        ),
        Step("", "tetrad -c /etc/tetrad/a.yaml status", r"config     /etc/tetrad/a\.yaml"),
        Step("Its own file stops it.", "tetrad -c /etc/tetrad/a.yaml stop", "stopped"),
        Step("", "rm /etc/tetrad/a.yaml /etc/tetrad/b.yaml"),
    ),
}


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Return the sections of the page, which is written after the last test if that is wanted."""
    sections: dict[str, str] = {}
    yield sections
    if request.config.getoption(WRITE_TRANSCRIPT, default=False) and set(sections) == set(
        SITUATIONS
    ):
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write("\n".join([HEAD, *(sections[title] for title in SITUATIONS)]))


@pytest.mark.long
@pytest.mark.parametrize("title", SITUATIONS)
def test_commands_show_what_the_page_shows(
    service: Service, page: dict[str, str], title: str
) -> None:
    """Each has its exit status, and what matters in its output."""
    lines = [f"## {title}", "", "```"]
    for step in SITUATIONS[title]:
        output = output_of(service, step)
        if step.what:
            lines.append(f"# {step.what}")
        lines += [f"$ {step.command}", *output.splitlines()]
        if step.status:
            lines.append(f"[exit status {step.status}]")
    page[title] = "\n".join([*lines, "```", ""])


def output_of(service: Service, step: Step) -> str:
    """Run a command, and return its output, which must be that of the step."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        ran = service.container.run("sh", "-c", f"exec 2>&1; cd /; {step.command}")
        if ran.status == step.status and re.search(step.pattern, ran.out, re.MULTILINE):
            return ran.out
        assert step.is_awaited, (step, ran)
        assert time.monotonic() < deadline, (step, ran)
        time.sleep(POLL_SECONDS)
