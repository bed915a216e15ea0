"""The master stays lean for good: a fork costs what the forking process has in memory."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from authorities import Authority, needs_openssl
from processes import MEASURED, environment, run
from tetrad.system import exec_commands

if TYPE_CHECKING:
    import pathlib

    from conftest import MakeDaemon

ALLOWED = {"__future__", "_signal", "_socket", "errno", "gc", "marshal", "select", "time"}
"""All that the master imports beyond its own modules and what an interpreter has at its start."""

HEAVY = {
    "asyncio",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "json",
    "logging",
    "msgspec",
    "re",
    "selectors",
    "socket",
    "structlog",
    "threading",
    "typing",
    "yaml",
}
"""Modules that made forking slower when they were measured."""

SHOW = "print(*sys.modules)"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> dict[str, str]:
    """Return an environment in which programs run as they do in service, unmeasured."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return environment(str(tmp_path / "home"))


def modules_of_master(bare: dict[str, str]) -> set[str]:
    """Return what is loaded in a master, just before it begins."""
    *python, code = exec_commands.command("master.process")
    assert code.endswith("; main()")
    return set(run([*python, code.removesuffix("main()") + SHOW], bare).out.split())


def modules_at_start(bare: dict[str, str]) -> set[str]:
    """Return what an interpreter has before it does anything."""
    *python, _ = exec_commands.command("master.process")
    return set(run([*python, f"import os, sys; {SHOW}"], bare).out.split())


def is_ours(module: str) -> bool:
    """Tell whether a module is tetrad's."""
    return module.partition(".")[0] == "tetrad"


def test_the_master_imports_next_to_nothing(bare: dict[str, str]) -> None:
    """The master has its own modules and a few of the standard library's in C, and no more."""
    loaded = modules_of_master(bare)
    assert {name for name in loaded - modules_at_start(bare) if not is_ours(name)} <= ALLOWED
    assert "tetrad.handler.process" in loaded


def test_the_master_has_nothing_heavy(bare: dict[str, str]) -> None:
    """None of the modules that slow a fork down are there, whoever would have brought them."""
    assert not modules_of_master(bare) & HEAVY


def test_the_master_runs_without_start_up_files(bare: dict[str, str]) -> None:
    """Isolated and without site-packages' own code, which could import anything."""
    assert bare
    assert exec_commands.command("master.process")[1:3] == ["-I", "-S"]


def extensions_of(pid: int) -> set[str]:
    """Return the extensions that a process has mapped."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        files = set(re.findall(r"(/\S+\.so)\b", maps.read()))
    return {os.path.basename(file).partition(".")[0] for file in files if "cpython" in file}


@pytest.mark.skipif(MEASURED, reason="coverage brings extensions along")
def test_a_master_at_work_has_no_extensions_of_others(daemon: MakeDaemon) -> None:
    """A running master that has served has mapped no extension but sockets' and select's."""
    served = daemon()
    served.served().quit()
    assert extensions_of(served.pid) <= {"_socket", "select"}


@needs_openssl
@pytest.mark.skipif(MEASURED, reason="coverage brings extensions along")
def test_a_master_has_tls_when_a_listener_has_it(
    daemon: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """Neither before a reload that wants it, nor for want of it after."""
    served = daemon(listen=[{"port": 0, "proxy": {"trusted": ["127.0.0.1"]}}])
    assert "_ssl" not in extensions_of(served.pid)
    certificate, key = Authority(str(tmp_path / "authority")).vouch("server")
    served.configure(listen=[{"port": 0, "tls": {"certificate": certificate, "key": key}}])
    assert served.tetrad("reload").status == 0
    assert "_ssl" in extensions_of(served.pid)
    assert len(os.listdir(f"/proc/{served.pid}/task")) == 1


@pytest.mark.skipif(MEASURED, reason="coverage traces with a thread's help")
def test_every_process_has_one_thread(daemon: MakeDaemon) -> None:
    """Nothing that forks or was forked has threads."""
    served = daemon(handlers={"spare": 1})
    served.served()
    assert {len(os.listdir(f"/proc/{pid}/task")) for pid in served.processes} == {1}
