"""The text of a private key is not in the memory that handlers and functions inherit."""

from __future__ import annotations

import os
import pathlib
import re
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, concatenated, needs_openssl
from tests.support.clients import ANSWER
from tests.support.processes import UNDER_COVERAGE

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

pytestmark = needs_openssl

MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw")


def memory_of(pid: int) -> bytes:
    """Return all writable memory of a process."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        ranges = [(int(m[1], 16), int(m[2], 16)) for line in maps if (m := MAPPING.match(line))]
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        return b"".join(os.pread(memory.fileno(), end - start, start) for start, end in ranges)


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage keeps objects alive")
@pytest.mark.parametrize("in_one_file", [False, True], ids=["key", "certificate"])
def test_no_process_has_the_text_of_the_key(
    daemon: MakeDaemon,
    tmp_path: pathlib.Path,
    in_one_file: bool,  # noqa: FBT001
) -> None:
    """After a start, a reload and an upgrade, which all serve with it."""
    ca = Authority(str(tmp_path / "ca"))
    pair = ca.issue("server")
    secret = pathlib.Path(pair.key).read_bytes().splitlines()[1]
    tls = {"certificate": pair.certificate, "key": pair.key}
    if in_one_file:
        tls = {"certificate": concatenated(str(tmp_path / "both.pem"), *pair)}
    served = daemon(listen=[{"port": 0, "tls": tls}])
    context = ssl.create_default_context(cafile=ca.certificate)
    for change in ("start", "reload", "upgrade", "reload"):
        if change != "start":
            assert served.tetrad(change).status == 0
        client = served.connect()
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        assert ANSWER.fullmatch(client.ask())
        for pid in (served.pid, *served.handlers):
            assert secret not in memory_of(pid), change
        client.quit()
