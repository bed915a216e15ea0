"""A unit's configuration file may be named by a file of environment variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.test_systemctl import systemd, unit, unit_of

if TYPE_CHECKING:
    import pathlib

__all__ = ["systemd"]


def with_files(*files: object) -> str:
    """Return what `systemctl show` prints for a unit with environment files."""
    lines = [f"EnvironmentFiles={file} (ignore_errors=no)" for file in files]
    return "\n".join([unit(environment="TETRAD_CONFIG=/one.yaml A=b"), *lines])


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("TETRAD_CONFIG=/two.yaml\n", "/two.yaml"),
        ("# TETRAD_CONFIG=/three.yaml\n\n  TETRAD_CONFIG = /two.yaml \n", "/two.yaml"),
        ('TETRAD_CONFIG="/my file.yaml"\nB=c', "/my file.yaml"),
        ("TETRAD_CONFIG='/my file.yaml'\n;B=c", "/my file.yaml"),
        ("TETRAD_CONFIG=/my file.yaml", "/my file.yaml"),
        ("TETRAD_CONFIG=/two\\\n.yaml", "/two.yaml"),
        ("TETRAD_CONFIG='/two.yaml", "'/two.yaml"),
        ("B=c", "/one.yaml"),
        ("", "/one.yaml"),
    ],
)
def test_it_overrides_the_unit(
    systemd: list[str],
    tmp_path: pathlib.Path,
    text: str,
    file: str,
) -> None:
    """As systemd reads it."""
    (tmp_path / "environment").write_text(text)
    systemd.append(with_files(tmp_path / "environment"))
    found = unit_of("-c", file if file.startswith("/") else f"/{file}")
    assert found is not None
    assert found.environment["A"] == "b"
    assert unit_of() is None


def test_the_last_file_wins(
    systemd: list[str],
    tmp_path: pathlib.Path,
) -> None:
    """A file that cannot be read has no variables."""
    files = [tmp_path / name for name in ("one", "two", "missing")]
    files[0].write_text("TETRAD_CONFIG=/two.yaml")
    files[1].write_text("TETRAD_CONFIG=/three.yaml")
    systemd.append(with_files(*files))
    assert unit_of("-c", "/three.yaml") is not None
    assert unit_of("-c", "/two.yaml") is None
