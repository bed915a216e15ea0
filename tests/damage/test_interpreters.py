"""Interpreters that lack functions or modules of Python: tetrad runs, or names what is missing."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.interpreters import environment_of, make_interpreter
from tests.support.jobs import ask, shell
from tests.support.processes import UNDER_COVERAGE, until

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.skipif(UNDER_COVERAGE, reason="coverage starts by a start-up file")

LACKING = ("posix.memfd_create", "posix.pidfd_open", "_signal.pidfd_send_signal")
"""What Python lacks if it was built with the C library of an older system, as uv's are."""


def use(asked: Daemon, interpreter: str) -> None:
    """Have a daemon and its commands run with an interpreter."""
    asked.command = [interpreter, "-m", "tetrad"]
    asked.environment = environment_of(os.path.join(asked.folder, "home"))


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an interpreter that lacks the functions."""
    return make_interpreter(str(tmp_path_factory.mktemp("python")), LACKING)


@needs_openssl
def test_python_without_memfds_and_pidfds(
    prepared: MakeDaemon, lacking: str, tmp_path: pathlib.Path
) -> None:
    """All that uses them works: start, TLS, jobs, reload, upgrade, a new logger, denials, stop."""
    certificate, key = Authority(str(tmp_path / "authority")).issue("server")
    tls = {"port": 0, "tls": {"certificate": certificate, "key": key}}
    asked = prepared(listen=[{"port": 0}, tls], commands={"prog": shell("echo hello")})
    use(asked, lacking)
    assert asked.tetrad("check").status == 0
    asked.start()
    assert ask(asked) == b"hello\nquit"
    old = asked.logger
    os.kill(old, 9)
    until(lambda: asked.loggers not in ([], [old]), "a new logger")
    client = asked.served(source="127.0.0.9")
    asked.configure(access={"deny": ["127.0.0.9"]})
    assert asked.tetrad("reload").status == 0
    assert client.read_all() == b""
    upgraded = asked.tetrad("upgrade")
    assert upgraded.status == 0, upgraded.err
    assert ask(asked) == b"hello\nquit"
    stopped = asked.tetrad("stop")
    assert (stopped.status, stopped.out) == (0, f"tetrad: stopped (pid {asked.pid})\n")
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name.startswith(".tetrad-")]


def test_the_interpreters_of_this_test_lack_the_functions(lacking: str, tmp_path: object) -> None:
    """Otherwise the test shows nothing."""
    del tmp_path
    code = "import os, signal, sys; print([hasattr(os, 'memfd_create'), hasattr(os, 'pidfd_open')])"
    with os.popen(f'{lacking} -I -S -c "{code}"') as output:  # noqa: S605
        assert output.read() == "[False, False]\n"


@pytest.mark.parametrize("module", ["_ctypes", "msgspec"])
def test_a_missing_module_is_named(
    prepared: MakeDaemon, tmp_path: pathlib.Path, module: str
) -> None:
    """By every command that needs it, without a traceback."""
    interpreter = make_interpreter(str(tmp_path / "python"), modules=[module])
    asked = prepared()
    use(asked, interpreter)
    reason = {
        "_ctypes": f"{interpreter} was built without the module _ctypes: use another Python",
        "msgspec": f"{interpreter} has no module msgspec: install tetrad again, "
        "with its dependencies",
    }[module]
    for command in ("check", "start"):
        ran = asked.tetrad(command)
        assert (ran.status, ran.err) == (1, f"tetrad: {reason}\n")


def test_a_function_that_an_import_hook_finds(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """An editable install by import hooks is named: the daemon runs without start-up files."""
    (tmp_path / "site").mkdir()
    (tmp_path / "far" / "hooked").mkdir(parents=True)
    (tmp_path / "far" / "hooked" / "__init__.py").write_text("def f(context): return 'x'\n")
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        file = {str(tmp_path / 'far' / 'hooked' / '__init__.py')!r}\n"
        "        if name == 'hooked':\n"
        "            return importlib.util.spec_from_file_location(name, file)\n"
        "sys.meta_path.append(Finder)\n"
    )
    asked = prepared(commands={"func": {"call": "hooked:f"}})
    asked.environment["PYTHONPATH"] = str(tmp_path / "site")
    ran = asked.tetrad("check")
    assert ran.status == 78
    assert "no module named hooked, but an import hook of an editable install finds it" in ran.err
