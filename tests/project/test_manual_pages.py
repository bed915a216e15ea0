"""The manual pages as files: they are valid, complete and installed. And tetrad-protocol(7)."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.support.manual_pages import ALL, FOLDER, PAGES, PROTOCOL, Page, every_page
from tests.support.project import ROOT
from tests.support.system_programs import output_of
from tetrad.cli import install
from tetrad.config.command_model import BUILT_IN_COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick


def test_every_page_is_read_here() -> None:
    """No page is left out of these tests."""
    assert sorted(manual.name for manual in ALL) == PAGES


@every_page
def test_mandoc_has_no_warning(manual: Page) -> None:
    """The stricter reader of the two."""
    assert output_of("mandoc", "-Tlint", "-Wwarning", str(FOLDER / manual.name)) == ""


@every_page
def test_man_shows_the_page(manual: Page) -> None:
    """Debian's man, by groff, without a warning."""
    shown = output_of("man", "--warnings", "-E", "UTF-8", "-l", str(FOLDER / manual.name))
    assert "NAME" in shown
    assert "SEE ALSO" in shown


@every_page
def test_references_lead_somewhere(manual: Page) -> None:
    """To sections of the same page, and to pages of ours where they are named like that."""
    sections = {name.text for name in manual.names if name.macro == "Sx"}
    assert sections <= set(manual.titles)
    pages = {name.text for name in manual.names if name.macro == "Xr"}
    ours = {text.replace(" ", ".") for text in pages if text.startswith("tetrad")}
    assert ours <= set(PAGES) - {manual.name}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_installed(name: str, tmp_path: Path) -> None:
    """`tetrad install` puts it where man(1) finds it."""
    target = f"{tmp_path}/usr/local/share/man/man{name[-1]}/{name}"
    done = list(install.install_files(install.Target(str(tmp_path), dry_run=True)))
    assert f"would write {target}" in done


def test_the_wheel_has_the_pages() -> None:
    """All of etc/ is in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["etc"] == "tetrad/data/etc"
    assert (ROOT / "etc" / "man").samefile(FOLDER)


def test_an_invalid_command_takes_the_rest_of_its_segment_with_it(daemon: MakeDaemon) -> None:
    """The example of tetrad-protocol(7)."""
    assert any("xyz!time" in name.text for name in PROTOCOL.names)
    client = daemon().connect()
    client.send(b"xyz!time")
    client.half_close()
    assert client.read_all() == b""


def test_the_built_in_commands_are_documented() -> None:
    """And no other."""
    items = PROTOCOL.find("THE COMMAND SERVICE", "Cm")
    assert {name for item in items for name in item.named("Cm")} == {*BUILT_IN_COMMANDS}
