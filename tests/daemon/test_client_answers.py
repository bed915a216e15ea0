"""`tetrad client`: its target by default, its exit status, and the prompt with more commands."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority, Pair, needs_openssl
from tests.support.clients import ANSWER

if TYPE_CHECKING:
    from tests.support.daemons import Daemon, Ran
    from tests.support.fixtures import MakeDaemon

TIME = ANSWER.pattern.decode()
LATE = (
    "the command is unknown, or the listener has TLS (use --tls), or the server is slower than"
    " --timeout"
)


def free_port() -> int:
    """Return a TCP port that no program uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def failure(daemon: Daemon, *arguments: str) -> str:
    """Return the reason of a client that fails; its standard output must be empty."""
    ran = daemon.tetrad("client", "--timeout", "300ms", *arguments)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    return ran.err.partition("tetrad: ")[2].rstrip("\n")


def dialog(daemon: Daemon, typed: str) -> Ran:
    """Run the interactive client with these lines as its input."""
    with tempfile.TemporaryFile("w+") as lines:
        lines.write(typed)
        lines.seek(0)
        return daemon.tetrad("client", stdin=lines)


def test_an_unanswered_word_is_a_failure(shared_daemon: MakeDaemon) -> None:
    """The other words are answered; the last line names those that were not."""
    served = shared_daemon()
    ran = served.tetrad("client", "--timeout", "0.3", "nope", "time", "what", "quit")
    assert ran.status == 1
    assert re.fullmatch(f"{TIME}\nquit\n", ran.out)
    name = f"127.0.0.1:{served.port}"
    assert ran.err == f"tetrad: {name}: no answer to nope, what within 300ms: {LATE}\n"


@pytest.mark.parametrize("service", ["command", "echo"])
def test_no_answer_of_a_suspended_daemon_is_a_failure(daemon: MakeDaemon, service: str) -> None:
    """The kernel accepts the connection, and nothing answers."""
    served = daemon(listen=[{"port": 0, "service": service}])
    port = str(served.port)
    served.signal(signal.SIGSTOP)
    try:
        reason = failure(served, "--port", port, "--service", service, "time")
    finally:
        served.signal(signal.SIGCONT)
    assert reason.startswith(f"127.0.0.1:{port}: no answer to time within 300ms: ")


def test_a_refused_session_is_a_failure(daemon: MakeDaemon) -> None:
    """A daemon with the most clients that it accepts closes the next connection."""
    served = daemon(limits={"clients": 1})
    served.served()
    closed = "the server closed the connection without an answer to time: its log has the reason"
    assert failure(served, "time").startswith(f"127.0.0.1:{served.port}: {closed}")


def test_words_after_a_goodbye_are_a_failure(shared_daemon: MakeDaemon) -> None:
    """The server has closed the connection, so they have no answer."""
    ran = shared_daemon().tetrad("client", "quit", "time")
    assert (ran.status, ran.out) == (1, "quit\n")
    assert "the server closed the connection without an answer to time" in ran.err


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Pair]:
    """Return a CA and a server certificate."""
    one = Authority(str(tmp_path_factory.mktemp("pki") / "ca"))
    return one, one.issue("server")


@needs_openssl
@pytest.mark.parametrize("service", ["command", "echo"])
def test_plain_text_at_a_tls_listener_is_a_failure(
    daemon: MakeDaemon, authority: tuple[Authority, Pair], service: str
) -> None:
    """The reason has the option, for certain if the file says so."""
    pair = authority[1]
    tls = {"certificate": pair.certificate, "key": pair.key}
    served = daemon(listen=[{"port": 0, "service": service, "tls": tls}])
    served.allow_session_errors = True
    assert failure(served, "time") == "127.0.0.1:0: the listener has TLS; use --tls"
    port = str(served.status()["listeners"][0]["port"])
    options = ("--port", port, "--service", service)
    # The server waits for the five bytes of the header of a record.
    for word, problem in (("time", "no answer to time"), ("hello", "closed the connection")):
        reason = failure(served, *options, word)
        assert problem in reason
        assert "the listener has TLS (use --tls)" in reason


@needs_openssl
def test_a_rejected_client_certificate_is_a_failure(
    daemon: MakeDaemon, authority: tuple[Authority, Pair]
) -> None:
    """With TLS 1.3 a client learns of it only when it expects the answer."""
    ca, pair = authority
    tls: dict[str, Any] = {"certificate": pair.certificate, "key": pair.key}
    tls |= {"client_ca": ca.certificate, "subjects": ["CN=monitor"]}
    served = daemon(listen=[{"port": 0, "tls": tls}])
    served.allow_session_errors = True
    assert "certificate" in failure(served, "--ca", ca.certificate, "time")
    other = ca.issue("other", "/CN=other", kind="client")
    reason = failure(
        served, "--ca", ca.certificate, "--cert", other.certificate, "--key", other.key, "time"
    )
    assert "certificate" in reason or "closed the connection" in reason


def test_the_target_is_the_first_listener_of_the_file(prepared: MakeDaemon) -> None:
    """Host and port need no option; --service selects the first listener that has it."""
    ports = [free_port() for _ in range(3)]
    listen: list[dict[str, Any]] = [{"address": "0.0.0.0", "port": ports[0]}]  # noqa: S104
    listen += [{"port": port, "service": "echo"} for port in ports[1:]]
    served = prepared(listen=listen).start()
    assert re.fullmatch(TIME, served.tetrad("client", "time").out.rstrip())
    assert dialog(served, "").out.startswith(f"CLIENT >> socket connect to 127.0.0.1:{ports[0]}\n")
    assert served.tetrad("client", "--service", "echo", "hi").out == "hi\n"
    assert served.tetrad("client", "--port", str(ports[2]), "--service", "echo", "x").out == "x\n"


def test_the_target_may_be_a_unix_socket(daemon: MakeDaemon) -> None:
    """Its service is used, too; --host alone goes with the first TCP port."""
    served = daemon(listen=[{"address": "unix:t.sock", "service": "echo"}, {"port": 0}])
    assert served.tetrad("client", "hi").out == "hi\n"
    assert re.fullmatch(TIME, served.tetrad("client", "--host", "localhost", "time").out.rstrip())


def test_the_running_daemon_tells_a_free_port(daemon: MakeDaemon) -> None:
    """Port 0 in the file is the port that the daemon has; without a daemon the reason says so."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    assert served.tetrad("client", "hi").out == "hi\n"
    served.stop()
    assert failure(served, "hi").startswith("port 0 is any free port; use --port: ")


def test_a_service_without_a_listener_is_a_failure(prepared: MakeDaemon) -> None:
    """The reason has the options."""
    reason = failure(prepared(), "--service", "echo", "hi")
    assert reason == "no listener has the service echo; use --host and --port"


def test_a_whole_address_needs_no_file(daemon: MakeDaemon) -> None:
    """A file that cannot be read is not an error then, unless -c names it."""
    served = daemon(listen=[{"port": 0}, {"address": "unix:t.sock"}])
    served.environment["TETRAD_CONFIG"] = f"{served.folder}/missing.yaml"
    command = [sys.executable, "-m", "tetrad", "client", "time"]
    where = ["--host", "127.0.0.1", "--port", str(served.port)]
    ran = subprocess.run(
        [*command, *where], env=served.environment, capture_output=True, check=True
    )
    assert ANSWER.fullmatch(ran.stdout.rstrip())
    path = ["--host", f"unix:{served.folder}/t.sock"]
    ran = subprocess.run([*command, *path], env=served.environment, capture_output=True, check=True)
    assert ANSWER.fullmatch(ran.stdout.rstrip())
    missing = subprocess.run(
        [*command, *where[2:]], env=served.environment, capture_output=True, check=False
    )
    assert (missing.returncode, missing.stdout) == (78, b"")
    assert b"missing.yaml: no such file" in missing.stderr


def test_the_prompt_has_the_commands_of_the_file(daemon: MakeDaemon) -> None:
    """A goodbye of one's own ends the dialog, after its answer."""
    served = daemon(commands={"quit": None, "load": {"text": "1.5"}, "ciao": {"close": "so long"}})
    prompt = "CLIENT >> Enter command time, ciao or load : "
    ran = dialog(served, "load\nciao\ntime\n")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        f"CLIENT >> socket connect to 127.0.0.1:{served.port}\n"
        f"{prompt}CLIENT >> Input command : load\n"
        "CLIENT >> received data : 1.5\n"
        f"{prompt}CLIENT >> Input command : ciao\n"
        "CLIENT >> received data : so long\n"
    )


def test_a_dialog_that_the_server_ends_is_a_failure(daemon: MakeDaemon) -> None:
    """The last line has the reason."""
    served = daemon(limits={"clients": 1})
    served.served()
    ran = dialog(served, "time\ntime\n")
    assert ran.status == 1
    assert "closed the connection without an answer to time" in ran.err


@pytest.mark.parametrize("seconds", ["5", "0.5"])
def test_a_duration_may_be_a_number_of_seconds(shared_daemon: MakeDaemon, seconds: str) -> None:
    """As in the configuration file."""
    served = shared_daemon()
    assert served.tetrad("client", "--timeout", seconds, "time").status == 0
    assert served.tetrad("logs", "--since", seconds).status == 0
