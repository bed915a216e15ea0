"""Texts are UTF-8 whatever the locale of the terminal, of cron, or of the daemon's environment."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.system_programs import require

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon


@pytest.fixture(params=["C", "de_DE.ISO-8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> dict[str, str]:
    """Return the variables of a locale without UTF-8, and nothing else, as from cron."""
    name: str = request.param
    variables = {"LC_ALL": name, "LOCPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    if name == "C":
        return variables | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    require("localedef")
    command = ["localedef", "--no-archive", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / name)]
    made = subprocess.run(command, check=False, capture_output=True)
    if made.returncode:
        pytest.skip("the sources of locales are not installed: apt-get install locales")
    return variables


def test_texts_are_utf_8_in_every_locale(
    prepared: MakeDaemon, tmp_path: pathlib.Path, locale: dict[str, str]
) -> None:
    """File names, arguments, answers of texts and of programs, messages, and the log."""
    folder = tmp_path / "grüß €"
    folder.mkdir()
    text = {"text": "grüß €"}
    served = prepared(
        folder=str(folder),
        daemon={"pidfile": "é.pid", "control": "é.sock"},
        log={"file": "é.log"},
        commands={"motd": text, "prog": {"run": ["echo", "-n", "grüß €"]}},
    )
    served.environment = {"HOME": served.environment["HOME"], **locale}
    served.pidfile, served.log_file = str(folder / "é.pid"), str(folder / "é.log")
    served.start()
    command = [sys.executable, "-m", "tetrad", "client", "--port", str(served.port)]
    ran = subprocess.run(
        [*command, "motd", "prog"], env=served.environment, capture_output=True, check=True
    )
    assert ran.stdout.decode() == "grüß €\ngrüß €\n"
    served.wait_for("client.disconnected")
    assert served.tetrad("reload").out == "tetrad: reloaded; nothing changed\n"
    served.configure(commands={"grüß": text})
    command = [sys.executable, "-m", "tetrad", "check", "-c", served.file]
    refused = subprocess.run(command, env=served.environment, capture_output=True, check=False)
    assert f"tetrad: {served.file}:" in refused.stderr.decode()
    assert "commands.grüß: " in refused.stderr.decode()
