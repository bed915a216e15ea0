"""Code of an attacker inside the service: what the unit refuses it."""

from __future__ import annotations

import json
import pathlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import until
from tests.support.project import ROOT
from tests.support.systemd_container import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service
    from tests.support.tls_certificates import Certificates

MODULE = """
import errno, json, os, shutil, socket, subprocess

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def bind(family, kind, port):
    with socket.socket(family, kind) as one:
        one.bind(("", port))

def execute(folder):
    path = folder + "/intruder"
    shutil.copy("/bin/true", path)
    try:
        subprocess.run([path], check=True)
    finally:
        os.unlink(path)

def all(context):
    folders = "/run/tetrad", "/var/lib/tetrad", "/var/log/tetrad", "/tmp", "/var/tmp"
    return json.dumps({
        "udp": attempt(lambda: bind(socket.AF_INET, socket.SOCK_DGRAM, 5353)),
        "tcp": attempt(lambda: bind(socket.AF_INET, socket.SOCK_STREAM, 0)),
        "setuid": attempt(lambda: os.setuid(os.getuid())),
        **{folder: attempt(lambda: execute(folder)) for folder in folders},
    })
"""

WRITABLE = ("/run/tetrad", "/var/lib/tetrad", "/var/log/tetrad", "/tmp", "/var/tmp")  # noqa: S108

FIND_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


@pytest.fixture
def intruded(service: Service) -> Iterator[Service]:
    """Return the service with an attacker's function; not started."""
    container = service.container
    packages = container.do(f"{PREFIX}/bin/python", "-c", FIND_PACKAGES).strip()
    container.write(f"{packages}/intruder.py", MODULE)
    service.configure(commands={"intr": {"call": "intruder:all"}})
    yield service
    container.do("rm", f"{packages}/intruder.py")


def test_what_the_unit_refuses(intruded: Service) -> None:
    """The execution of files that it can write; UDP ports, where systemd is built for that."""
    intruded.do("start", "tetrad")
    with intruded.connect().socket as client:
        client.sendall(b"intrquit")
        data = b"".join(iter(lambda: client.recv(4096), b""))
    has_bpf = "+BPF_FRAMEWORK" in intruded.container.do("systemctl", "--version")
    assert json.loads(data.removesuffix(b"quit")) == {
        "udp": "EPERM" if has_bpf else "done",
        "tcp": "done",
        "setuid": "EPERM",
        **dict.fromkeys(WRITABLE, "EACCES"),
    }


def test_memory_is_limited_and_one_lost_handler_does_not_end_the_service(service: Service) -> None:
    """A limit for all processes together, and the master serves on."""
    service.do("start", "tetrad")
    assert service.get_property("MemoryMax").isdecimal()
    assert service.get_property("OOMPolicy") == "continue"


def test_the_filters_of_tetrad_are_set(service: Service) -> None:
    """The unit's own does not refuse them."""
    service.configure(log={"level": "debug"})
    service.do("start", "tetrad")
    missing = [one for one in service.events() if one["event"] == "server.unconfined"]
    assert [(one["fence"], one["why"]) for one in missing] == []
    filters = service.container.do("grep", "Seccomp_filters", f"/proc/{service.master}/status")
    service.drop_in("[Service]\nSystemCallFilter=~seccomp\n")
    service.do("restart", "tetrad")
    fewer = service.container.do("grep", "Seccomp_filters", f"/proc/{service.master}/status")
    assert int(filters.split()[1]) == int(fewer.split()[1]) + 1
    until(lambda: "server.unconfined" in {one["event"] for one in service.events()}, "the event")
    service.reset()


def test_a_key_that_only_root_can_read(service: Service, pki: Certificates) -> None:
    """Systemd reads it (LoadCredential=); a reload reads it again."""
    container, (certificate, key) = service.container, pki.server
    container.write("/etc/tetrad/tls.crt", pathlib.Path(certificate).read_text("ascii"))
    container.write("/etc/tetrad/tls.key", pathlib.Path(key).read_text("ascii"))
    container.do("chmod", "600", "/etc/tetrad/tls.key")
    text = (ROOT / "systemd" / "tetrad.service").read_text("ascii")
    (example,) = re.findall("^#(LoadCredential=.*)$", text, re.MULTILINE)
    name, _, source = example.partition("=")[2].partition(":")
    service.drop_in(f"[Service]\n{example.replace(source, '/etc/tetrad/tls.key')}\n")
    tls = {"certificate": "tls.crt", "key": f"/run/credentials/tetrad.service/{name}"}
    service.configure(listen=[{"port": 65000, "tls": tls}])
    for action in ("start", "reload"):
        service.do(action, "tetrad")
        plain = service.connect().socket
        with pki.context().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(b"time")
            assert ANSWER.fullmatch(client.recv(100))
    service.reset()
    container.do("rm", "/etc/tetrad/tls.crt", "/etc/tetrad/tls.key")
