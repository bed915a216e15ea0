"""Descendants of this process, and others."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tetrad.system import ancestry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def grandchild() -> Iterator[int]:
    """Return the pid of a child's child."""
    script = "sleep 1000 & echo $!; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        yield pid
        os.kill(pid, signal.SIGKILL)


def test_descendants(grandchild: int) -> None:
    """Of any generation; this process itself counts."""
    assert ancestry.is_descendant(grandchild)
    assert ancestry.is_descendant(os.getpid())


def test_others() -> None:
    """The parent, process 1, and a process outside of the pid namespace."""
    assert not ancestry.is_descendant(os.getppid())
    assert not ancestry.is_descendant(1)
    assert not ancestry.is_descendant(0)


def test_a_process_that_has_exited_counts() -> None:
    """It may have been one."""
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
    assert ancestry.is_descendant(child.pid)


def test_an_ancestor_that_exits_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, grandchild: int
) -> None:
    """Its children have got another parent then."""
    parents = iter([2**30])  # no pid is that high
    parent_of = ancestry._parent_of  # noqa: SLF001 - what the kernel says
    monkeypatch.setattr(ancestry, "_parent_of", lambda pid: next(parents, None) or parent_of(pid))
    assert ancestry.is_descendant(grandchild)


@pytest.mark.parametrize(
    ("error", "expected"), [(PermissionError, False), (None, True), (ProcessLookupError, True)]
)
def test_hidden_processes(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, *, expected: bool
) -> None:
    """With hidepid, /proc hides those of other users, and those of ours that are not dumpable."""

    def kill(_pid: int, _number: int) -> None:
        if error is not None:
            raise error

    def hide(_pid: int) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(ancestry, "_parent_of", hide)
    assert ancestry.is_descendant(2**30) is expected
