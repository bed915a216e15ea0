"""What `tetrad reload` prints, and `server.reloaded` logs, about listeners and commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.certificates import Authority, needs_openssl

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon


@needs_openssl
def test_whole_listeners_and_commands_are_lines(daemon: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """A listener or a command that comes or goes is one line, and one entry in the log."""
    pair = Authority(str(tmp_path / "ca")).issue("server")
    served = daemon(commands={"quit": None, "load": {"text": "1"}})
    tls = {"certificate": pair.certificate, "key": pair.key}
    secure = {"address": "127.0.0.2", "port": 0, "tls": tls}
    served.configure(
        listen=[{"address": "unix:t.sock"}, {"port": 0}, secure],
        commands={"quit": {"close": "quit"}, "load": {"text": "2"}, "ciao": {"close": "bye"}},
    )
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == (
        "tetrad: reloaded; changed:\n"
        "  commands.ciao: added close bye\n"
        "  commands.load.text: 1 -> 2\n"
        "  commands.quit: added close quit\n"
        f"  listen[0]: added unix:{served.folder}/t.sock (command)\n"
        "  listen[2]: added 127.0.0.2:0 (command, tls)\n"
    )
    assert served.wait_for("server.reloaded")["changes"]["listen[2]"] == (
        "added 127.0.0.2:0 (command, tls)"
    )
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("reload").out == (
        "tetrad: reloaded; changed:\n"
        f"  listen[0]: removed unix:{served.folder}/t.sock (command)\n"
        "  listen[2]: removed 127.0.0.2:0 (command, tls)\n"
    )
