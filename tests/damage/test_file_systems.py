"""File systems without space or inodes, limits of file sizes, files that can only grow."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.system_programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and change files")


@needs_root
@pytest.mark.parametrize(
    ("section", "key", "size"),
    [
        ("daemon", "pidfile", "size=4k"),
        ("daemon", "pidfile", "nr_inodes=1"),
        ("daemon", "control", "nr_inodes=1"),
        ("log", "file", "nr_inodes=1"),
    ],
)
def test_a_full_file_system_is_named(
    prepared: MakeDaemon, section: str, key: str, size: str
) -> None:
    """The start fails, and leaves neither an empty file nor a process."""
    asked = prepared()
    full = os.path.join(asked.folder, "full")
    os.mkdir(full)
    asked.configure(**{section: {key: os.path.join(full, "file")}})
    asked.pidfile = os.path.join(full, "file") if key == "pidfile" else asked.pidfile
    script = f"""
        mount -t tmpfs -o {size} none {full}
        dd if=/dev/zero of={full}/rest bs=4k 2>/dev/null
        "$@"; status=$?
        ls {full}
        exit $status
    """
    asked.command = ["unshare", "--mount", "sh", "-c", script, "sh", *asked.command]
    ran = asked.tetrad("start")
    assert (ran.status, f"{full}/file: no space left on device" in ran.err) == (1, True), ran
    assert "file" not in ran.out.split()


def test_a_limit_of_file_sizes_is_named(prepared: MakeDaemon) -> None:
    """What the master is given in memory is a file, too."""
    asked = prepared()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    ran = asked.tetrad("start", preexec_fn=limit)
    hint = "raise the limit of file sizes (ulimit -f, or LimitFSIZE= in the unit)"
    assert (ran.status, ran.err) == (1, f"tetrad: file too large; {hint}\n")


@pytest.fixture
def with_growing_log(prepared: MakeDaemon) -> Iterator[Daemon]:
    """Return a daemon whose log can only be appended to, and ends within a line."""
    made = prepared()
    with open(made.log_file, "w", encoding="ascii") as log:
        log.write('{"event":"without a line feed"}')
    require("chattr")
    chattr = ["/usr/bin/env", "chattr"]
    if subprocess.run([*chattr, "+a", made.log_file], check=False, capture_output=True).returncode:
        pytest.skip("a file system without attributes")
    yield made
    subprocess.run([*chattr, "-a", made.log_file], check=True)


@needs_root
def test_a_log_that_can_only_grow_is_complete(with_growing_log: Daemon) -> None:
    """As administrators protect logs; the daemon truncates its log in no usual case."""
    with_growing_log.start()
    with_growing_log.connect().quit()
    assert with_growing_log.tetrad("stop").status == 0
    names = [event["event"] for event in with_growing_log.events()]
    assert names[:2] == ["without a line feed", "server.started"]
    assert (names[-1], len(names)) == ("server.stopped", 8)
