"""The environment of the daemon: a list of variables."""

from __future__ import annotations

import pytest

from tetrad.launch import environment

SECRETS = {"AWS_SECRET_ACCESS_KEY": "x", "SSH_AUTH_SOCK": "/agent", "SUDO_USER": "alice"}


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "PATH",
        "TZ",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "OPENSSL_CONF",
        "JOURNAL_STREAM",
        "TETRAD_CONFIG",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
    ],
)
def test_the_daemon_has_the_variables_that_it_needs(name: str) -> None:
    """And no other of the starter's."""
    assert environment.of_daemon({**SECRETS, name: "value"}) == {name: "value"}


def test_further_variables_can_be_named() -> None:
    """One that the starter does not have is not there either."""
    passed = {"TETRAD_PASS_ENVIRONMENT": " SITE  DATABASE_URL OTHER ", "SITE": "a", "SITES": "b"}
    names = set(environment.of_daemon({**SECRETS, **passed, "DATABASE_URL": ""}))
    assert names == {"TETRAD_PASS_ENVIRONMENT", "SITE", "DATABASE_URL"}
