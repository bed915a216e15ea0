"""Where the configuration file is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tetrad.config import paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("config_path", "variable", "system", "found"),
    [
        ("a.yaml", "/b.yaml", True, "{}/a.yaml"),
        ("/a.yaml", None, False, "/a.yaml"),
        (None, "b.yaml", True, "{}/b.yaml"),
        (None, "", True, "{}/system.yaml"),
        (None, None, True, "{}/system.yaml"),
        (None, None, False, None),
        ("", "", False, None),
    ],
)
def test_the_file_is_searched_in_order(  # noqa: PLR0913 - a table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_path: str | None,
    variable: str | None,
    *,
    system: bool,
    found: str | None,
) -> None:
    """-c comes first, then $TETRAD_CONFIG, then the system's file if it exists, then none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "SYSTEM_CONFIGURATION", str(tmp_path / "system.yaml"))
    monkeypatch.delenv("TETRAD_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("TETRAD_CONFIG", variable)
    if system:
        (tmp_path / "system.yaml").touch()
    assert paths.configuration(config_path) == (found and found.format(tmp_path))


def test_the_file_of_the_system_is_in_etc() -> None:
    """Its path is fixed."""
    assert paths.SYSTEM_CONFIGURATION == "/etc/tetrad/tetrad.yaml"
