"""The master loads few modules: the cost of a fork grows with the memory of the process."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.processes import UNDER_COVERAGE, environment, run
from tetrad.system import exec_commands

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick

ALLOWED = {"__future__", "_signal", "_socket", "errno", "fcntl", "gc", "marshal", "select", "time"}
"""What the master may import beyond tetrad's modules and those of a bare interpreter."""

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
"""Modules that made forking measurably slower."""

SHOW = "print(*sys.modules)"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> dict[str, str]:
    """Return an environment in which programs run without coverage."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(exec_commands, "ISOLATION", ["-I", "-S"])
    return environment(str(tmp_path / "home"))


def modules_of_master(bare: dict[str, str]) -> set[str]:
    """Return the modules of a master before its `main` runs."""
    *python, code = exec_commands.command("master.process")
    assert code.endswith("; main()")
    return set(run([*python, code.removesuffix("main()") + SHOW], bare).out.split())


def modules_at_start(bare: dict[str, str]) -> set[str]:
    """Return the modules of a bare interpreter."""
    *python, _ = exec_commands.command("master.process")
    return set(run([*python, f"import os, sys; {SHOW}"], bare).out.split())


def is_own(module: str) -> bool:
    """Tell whether a module is tetrad's."""
    return module.partition(".")[0] == "tetrad"


def test_the_master_imports_only_what_is_allowed(bare: dict[str, str]) -> None:
    """Its own modules, and a few C modules of the standard library."""
    loaded = modules_of_master(bare)
    assert {name for name in loaded - modules_at_start(bare) if not is_own(name)} <= ALLOWED
    assert "tetrad.handler.process" in loaded


def test_the_master_loads_no_heavy_module(bare: dict[str, str]) -> None:
    """Not indirectly either."""
    assert not modules_of_master(bare) & HEAVY


def test_the_master_runs_isolated_and_without_site(bare: dict[str, str]) -> None:
    """A `.pth` file in site-packages could import any module."""
    assert bare
    assert exec_commands.command("master.process")[1:3] == ["-I", "-S"]


def extensions_of(pid: int) -> set[str]:
    """Return the extension modules that a process has mapped."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        files = set(re.findall(r"(/\S+\.so)\b", maps.read()))
    return {os.path.basename(file).partition(".")[0] for file in files if "cpython" in file}


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage loads extension modules")
def test_a_running_master_has_few_extension_modules(daemon: MakeDaemon) -> None:
    """Those of sockets, select and fcntl (which most builds link in), also after a client."""
    served = daemon()
    served.served().quit()
    assert extensions_of(served.pid) <= {"_socket", "select", "fcntl"}


@needs_openssl
@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage loads extension modules")
def test_a_master_loads_tls_when_a_listener_has_it(
    daemon: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """Not before the reload that adds such a listener, and without a thread."""
    served = daemon(listen=[{"port": 0, "proxy": {"trusted": ["127.0.0.1"]}}])
    assert "_ssl" not in extensions_of(served.pid)
    certificate, key = Authority(str(tmp_path / "authority")).issue("server")
    served.configure(listen=[{"port": 0, "tls": {"certificate": certificate, "key": key}}])
    assert served.tetrad("reload").status == 0
    assert "_ssl" in extensions_of(served.pid)
    assert len(os.listdir(f"/proc/{served.pid}/task")) == 1


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage starts a thread")
def test_every_process_has_one_thread(daemon: MakeDaemon) -> None:
    """Neither the master nor its children have threads."""
    served = daemon(handlers={"spare": 1})
    served.served()
    assert {len(os.listdir(f"/proc/{pid}/task")) for pid in served.processes} == {1}
